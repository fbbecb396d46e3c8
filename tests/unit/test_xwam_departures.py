"""Options that save passes of X-WAM: a video that stands still, and passes that a step cache skips.

In: small random networks and untrained nano models. Out: what the passes are, and that off changes nothing.
Read next: `xwam/flow/frozen.py`, `xwam/flow/step_cache.py`; `tests/unit/test_dreamzero_sampler.py` for more of caches.
"""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.plugins import load_policy
from evalkit.contracts.stepped import Phase
from evalkit.testing.replies import check_same_reply
from evalkit.testing.requests import noise_request
from evalkit.testing.stepped import begin, check_steps, finished
from tests.doubles.networks import ACTIONS, STATES, TINY, inputs_of, network_of, started
from xwam.config import DepthMode
from xwam.flow.sampler import SamplerState, Schedule, advance, run
from xwam.flow.step_cache import StepCache
from xwam.network.frozen import KeepingKeys, act, all_keys
from xwam.policy import XwamPlugin, XwamPolicyConfig


def state_of(network: Any, *, steps: tuple[int, int] = (6, 4), **settings: Any) -> SamplerState:
    state = started(network, steps=steps)
    return replace(state, schedule=Schedule(num_video_steps=steps[0], num_action_steps=steps[1], **settings))


@pytest.mark.parametrize("depth", ["interleaved", "none", "sequence", "channel"])
def test_a_pass_against_kept_keys_equals_the_whole_one(depth: DepthMode) -> None:
    network = network_of(replace(TINY, depth=depth))
    channels = 8 if depth in ("sequence", "channel") else 4
    video, action, proprio, rows = inputs_of(batch=2, channels=channels)
    geometry = network.geometry(video, ACTIONS, STATES)
    times = network.timesteps(torch.tensor([700.0, 300.0]), torch.tensor([400.0, 200.0]), geometry)
    text, keeping = network.encode_text(rows), KeepingKeys(network)
    whole = keeping(video, action, proprio, times, text)
    assert torch.equal(whole.video_BCTVHW, network(video, action, proprio, times, text).video_BCTVHW)
    keys = all_keys([keeping.of_row(0), keeping.of_row(1)])
    velocities = act(network, keys, action, proprio, times, text, geometry)
    for got, expected in zip(velocities, (whole.action_BKA, whole.proprio_BPS), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_the_video_stands_still_until_actions_are_clean() -> None:
    network = network_of()
    state, plain = state_of(network, freeze_video_after=2), state_of(network)
    assert state.passes_to_video == 8  # 6 of the video, and 2 without it
    videos = []
    while not state.actions_clean:
        (state,) = advance(network, [state])
        videos.append((state.video.step_idx, state.video_keys is not None))
        if len(videos) == 2:
            for _ in range(2):
                (plain,) = advance(network, [plain])
            assert torch.equal(state.action.x, plain.action.x)  # whole passes so far
    assert videos == [(1, False), (2, True), (2, True), (2, False)]
    assert torch.equal(state.video.x, plain.video.x)
    assert not torch.equal(state.action.x, run(network, plain, stop_after_actions=True).action.x)
    done = run(network, state)
    assert done.done
    assert torch.equal(done.action.x, state.action.x)
    assert done.depth_BCTVHW is not None


def test_frozen_states_share_passes() -> None:
    network = network_of()
    one = state_of(network, freeze_video_after=1)
    other = replace(one, action=replace(one.action, x=-one.action.x), video=replace(one.video, x=one.video.x * 0.5))
    alone = [run(network, state, stop_after_actions=True) for state in (one, other)]
    states = [one, other]
    while not states[0].actions_clean:
        states = advance(network, states)
    for got, expected in zip(states, alone, strict=True):
        torch.testing.assert_close(got.action.x, expected.action.x, atol=1e-5, rtol=1e-4)


class Parallel:
    """A network whose velocities never turn, and which remembers the timesteps of its passes."""

    def __init__(self) -> None:
        self.network, self.steps = network_of(), list[float]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def __call__(self, video: Any, action: Any, proprio: Any, times: Any, text: Any, *, depth: bool = False) -> Any:
        self.steps.append(float(times.t_BG[0].max()))
        out = self.network(video, action, proprio, times, text, depth=depth)
        return out._replace(
            video_BCTVHW=torch.ones_like(video),
            action_BKA=torch.ones_like(action),
            proprio_BPS=torch.ones_like(proprio),
        )


def test_parallel_velocities_skip_passes_but_never_the_last() -> None:
    network = Parallel()
    state = run(cast(Any, network), state_of(network.network, steps=(16, 8), step_cache=StepCache()))
    assert state.done
    assert state.history.num_runs == len(network.steps) == 5  # steps 0, 1, 6, 11, and 15 for depth
    assert state.depth_BCTVHW is not None


def test_a_cache_that_skips_nothing_changes_no_bit() -> None:
    network = network_of()
    plain, cached = (run(network, state_of(network, step_cache=cache)) for cache in (None, StepCache(thresholds=())))
    assert torch.equal(plain.action.x, cached.action.x)
    assert torch.equal(plain.video.x, cached.video.x)


XWAM = XwamPlugin()
MANY = XwamPolicyConfig(checkpoint="random-nano", num_video_steps=4, num_action_steps=3)


@pytest.mark.parametrize("option", [{"step_cache": "dynamic"}, {"freeze_video_after": 1}], ids=str)
def test_a_policy_with_an_option_keeps_its_promises(option: dict[str, Any]) -> None:
    assert "company of others at other steps" in check_steps(XWAM.make(replace(MANY, width=3, **option)))


def test_company_changes_no_bit_of_a_frozen_request() -> None:
    policy = XWAM.make(replace(MANY, width=3, freeze_video_after=1))
    job, other = (begin(policy, noise_request(policy.spec, index, 0)) for index in (0, 1))
    (frozen,) = policy.step([other])
    assert frozen.group != other.group
    alone = finished(policy, job)
    for slot, company in enumerate(([other, frozen], [frozen, other, frozen], [other])):
        check_same_reply(alone, finished(policy, job, company[:2], slot=slot), f"row {slot}")


def test_frozen_passes_count_on_top() -> None:
    policy = XWAM.make(replace(MANY, freeze_video_after=1))
    job, lefts = begin(policy, noise_request(policy.spec, 0, 0)), []
    while job.phase is not Phase.DONE:
        lefts.append(job.passes_left)
        (job,) = policy.step([job])
    assert lefts == [6, 5, 4, 3, 2, 1]
    assert np.isfinite(policy.actions(job).actions).all()


def test_options_are_named_as_departures() -> None:
    name = "departures from the model's own schedule"
    assert XWAM.provenance(XWAM.config_type())[name] == "none"
    facts = XWAM.provenance(replace(MANY, freeze_video_after=2))[name]
    assert facts.endswith("freeze_video_after 2 in place of None")
    assert "step_cache dynamic in place of off" in XWAM.provenance(replace(MANY, step_cache="dynamic"))[name]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"freeze_video_after": 3}, r"freeze_video_after must be less than the 3 steps of the actions .* got 3"),
        ({"freeze_video_after": 0}, r"at least 1, got 0"),
        ({"freeze_video_after": 1, "guidance": 2.0}, r"cannot be combined with guidance; leave one of them out"),
        ({"freeze_video_after": 1, "step_cache": "dynamic"}, "cannot be combined with step_cache"),
        ({"step_cache": "static-5"}, r"policy\.xwam\.step_cache must be"),
    ],
)
def test_what_cannot_be_followed_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        XWAM.spec(replace(MANY, **settings))


def test_a_family_with_two_streams_freezes_no_video() -> None:
    plugin = load_policy("joint_attention")
    config = replace(plugin.config_type(), num_video_steps=4, num_action_steps=3, freeze_video_after=1)
    with pytest.raises(BadConfig, match="cannot be combined with the second stream of this family"):
        plugin.spec(config)
