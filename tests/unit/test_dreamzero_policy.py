"""`--policy dreamzero`: its spec, its settings, and replies that depend on the requests of their episode alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from baselines.dreamzero.family import DreamZeroFamily
from baselines.dreamzero.models import MODELS
from baselines.dreamzero.policy import DreamZeroPlugin, DreamZeroPolicy, DreamZeroPolicyConfig
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.types import PolicyReply, PolicyRequest
from evalkit.testing import check_policy, env_for, noise_request
from xwam.config import NANO, WAN22_5B, count_parameters
from xwam.families import family_of

FAST = DreamZeroPolicyConfig(num_video_steps=2)
FLASH = DreamZeroPolicyConfig(checkpoint="random-nano-flash", num_video_steps=2, num_action_steps=1)


def policy_of(config: DreamZeroPolicyConfig = FAST) -> DreamZeroPolicy:
    return DreamZeroPlugin().make(config)


def requests_of(policy: DreamZeroPolicy, episode: int, count: int) -> list[PolicyRequest]:
    """Return the requests of one episode, under one id."""
    made = [noise_request(policy.spec, episode, chunk_idx) for chunk_idx in range(count)]
    return [replace(request, episode_id=f"episode {episode}") for request in made]


def ask(policy: DreamZeroPolicy, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
    """Return the replies to one episode's requests, one after another."""
    policy.reset(requests[0].episode_id, env_for(policy.spec))
    return [policy.infer([request])[0] for request in requests]


def actions_of(replies: Sequence[PolicyReply]) -> np.ndarray:
    return np.stack([reply.actions for reply in replies])


# ---- spec


def test_specs_are_those_of_the_models() -> None:
    nano, robotwin = (DreamZeroPlugin().spec(DreamZeroPolicyConfig(checkpoint=f"random-{name}")) for name in NAMES)
    assert (nano.chunk_len, nano.execute_steps, nano.num_future_frames, nano.frame_stride) == (8, 8, 8, 1)
    assert (nano.past_frame_stride, nano.predicts, nano.takes_actions) == (1, ("rgb",), False)
    assert (robotwin.chunk_len, robotwin.execute_steps, robotwin.num_future_frames) == (32, 32, 8)
    assert (robotwin.frame_stride, robotwin.past_frame_stride, robotwin.arms) == (4, 4, ("left", "right"))
    assert DreamZeroPlugin().spec(FLASH).takes_actions


NAMES = ("nano", "nano-robotwin")


@pytest.mark.parametrize("config", [FAST, FLASH, replace(FAST, checkpoint="random-nano-robotwin")])
def test_every_promise_of_a_policy_is_kept(config: DreamZeroPolicyConfig) -> None:
    check_policy(DreamZeroPlugin(), config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_cache": "static-9"}, r"policy\.dreamzero\.step_cache must be one of off, dynamic, static-5"),
        ({"step_cache": "static-8"}, r"is a schedule of 16 steps, the run has 8; give .*num_video_steps=16"),
        ({"num_action_steps": 4}, r"num_action_steps must be those of the video, as this model shares their levels: 8"),
        ({"execute_steps": 3}, r"execute_steps=3 observes no part of a block of 8 frames .* give one of 2, 4, 8"),
        ({"execute_steps": 1}, r"execute_steps=1 observes no part of .* that continues a window; give one of 2, 4, 8"),
        (
            {"checkpoint": "random-nano-robotwin", "execute_steps": 4},
            r"execute_steps=4 observes no part of .* 4 steps apart that continues a window; give one of 8, 16, 32",
        ),
        ({"execute_steps": 9}, r"policy\.dreamzero\.execute_steps must be"),
        ({"cache_memory_gib": -1}, r"policy\.dreamzero\.cache_memory_gib must be"),
        ({"guidance": -1.0}, r"policy\.dreamzero\.guidance must be"),
        ({"guidance": 0.5}, r"policy\.dreamzero\.guidance must be 0 or above 1, got 0.5"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        DreamZeroPlugin().spec(DreamZeroPolicyConfig(**settings))


def test_provenance_names_departures_and_step_caching() -> None:
    facts = DreamZeroPlugin().provenance(DreamZeroPolicyConfig(num_video_steps=16, guidance=5.0, step_cache="static-6"))
    assert facts["denoising"].endswith("16 for video, guidance 5.0 of the video, step caching static-6")
    assert "num_video_steps 16 in place of 8" in facts["departures from the model's own schedule"]
    assert "guidance 5.0 in place of 0.0" in facts["departures from the model's own schedule"]
    assert DreamZeroPlugin().provenance(FAST)["weights"] == "random, init_seed 0: an untrained network"


# ---- memory


def test_a_reply_depends_on_its_episode_alone() -> None:
    policy = policy_of()
    one, two = requests_of(policy, 1, 3), requests_of(policy, 2, 3)
    alone = actions_of(ask(policy, one))
    policy.reset(one[0].episode_id, env_for(policy.spec))
    policy.reset(two[0].episode_id, env_for(policy.spec))
    together = [policy.infer(pair)[0] for pair in zip(one, two, strict=True)]
    np.testing.assert_array_equal(actions_of(together), alone)


def test_what_was_observed_before_changes_a_reply() -> None:
    policy = policy_of()
    requests = requests_of(policy, 1, 2)
    other = [replace(requests_of(policy, 3, 1)[0], episode_id="episode 1"), requests[1]]
    assert (ask(policy, requests)[1].actions != ask(policy, other)[1].actions).any()


def test_a_repeated_request_gives_the_same_reply_again() -> None:
    policy = policy_of()
    requests = requests_of(policy, 1, 4)
    once = actions_of(ask(policy, requests))
    policy.reset(requests[0].episode_id, env_for(policy.spec))
    for index, request in enumerate(requests):
        for _ in range(2):
            (reply,) = policy.infer([request])
            np.testing.assert_array_equal(reply.actions, once[index])


def test_a_new_start_forgets_the_episode() -> None:
    policy = policy_of()
    requests = requests_of(policy, 1, 3)
    np.testing.assert_array_equal(actions_of(ask(policy, requests)), actions_of(ask(policy, requests)))


def test_replies_count_passes_and_why_windows_started() -> None:
    policy = policy_of()
    details = [reply.details for reply in ask(policy, requests_of(policy, 1, 6))]
    assert [each["passes"] for each in details] == [2, 4, 6, 8, 10, 12]
    assert [each["window_starts"] for each in details[3:5]] == [
        {"first request": 1},
        {"first request": 1, "4 blocks fill the window": 1},
    ]


def test_predictions_are_images_alone() -> None:
    policy = policy_of()
    (reply,) = ask(policy, requests_of(policy, 1, 1))
    assert reply.prediction is not None
    prediction = reply.prediction()
    assert prediction.rgb.shape == (8, 3, 128, 128, 3)
    assert prediction.depth is None
    assert prediction.proprio is None


# ---- sizes


def test_nano_has_as_many_parameters_as_xwam_within_5_percent() -> None:
    own = sum(count_parameters(NANO.network))
    for name in ("nano", "nano-flash", "nano-robocasa", "nano-robotwin"):
        count = sum(DreamZeroFamily().count_parameters(MODELS[name].network).values())  # type: ignore[arg-type]
        assert abs(count / own - 1) < 0.05, name


def test_5b_is_wan_and_the_official_encoders() -> None:
    config = MODELS["5b"].network
    with torch.device("meta"):
        network = family_of("dreamzero").build(config)
    counts = family_of("dreamzero").count_parameters(config)
    assert sum(weight.numel() for weight in network.parameters()) == sum(counts.values()) == 5_034_601_696
    assert counts["wan"] == count_parameters(WAN22_5B).wan
    shapes = {name: tuple(weight.shape) for name, weight in network.named_parameters()}
    assert shapes["action_encoder.W1.weight"] == (3072, 32)
    assert shapes["action_encoder.W2.weight"] == (3072, 6144)
    assert shapes["proprio_encoder.0.weight"] == (1024, 64)
    assert shapes["action_decoder.0.weight"] == (1024, 3072)
    assert shapes["action_decoder.2.weight"] == (32, 1024)
