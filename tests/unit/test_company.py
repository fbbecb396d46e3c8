"""Requests that share passes: what they share them with changes nothing, to the bit, in all families.

In: untrained nano models with passes of a few rows. Out: replies alone and in company, and what the check says.
Read next: `evalkit/testing/stepped.py`, whose walk through the passes is used; `xwam/serving/stepped.py`.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from evalkit.contracts.plugins import load_policy
from evalkit.contracts.stepped import Phase, SteppedPolicy
from evalkit.contracts.types import ACTION_DIM, CommittedActions, PolicyRequest
from evalkit.testing.replies import Answer, check_same_reply
from evalkit.testing.requests import ask, noise_request
from evalkit.testing.stepped import begin, check_steps, finished, with_state_of
from xwam.network.transformer import TextContext
from xwam.serving.prompts import bucket_of

WIDTH = 3

FAMILIES: dict[str, dict[str, Any]] = {
    "xwam": {"num_video_steps": 3, "num_action_steps": 2},
    "xwam guided": {"num_video_steps": 2, "num_action_steps": 1, "guidance": 2.0},
    "uwm joint": {"num_steps": 2},
    "uwm marginal": {"num_steps": 2, "act": "marginal", "guidance": 3.0},
    "uwm video": {"num_steps": 2, "predict": "video"},
    "dreamzero": {"num_video_steps": 3},
    "dreamzero static": {"num_video_steps": 16, "step_cache": "static-5", "guidance": 0.0},
    "joint_attention": {"num_video_steps": 2, "num_action_steps": 1},
    "video_in_training": {"num_action_steps": 2},
}
PRECISIONS = ("float32", "bfloat16")


@cache
def policy_of(family: str, precision: str, width: int = WIDTH) -> Any:
    plugin = load_policy(family.split(" ")[0])
    settings = {"checkpoint": "random-nano", "precision": precision, "width": width}
    return plugin.make(replace(plugin.config_type(), **settings, **FAMILIES[family]))


def request_of(policy: SteppedPolicy, index: int, **changes: Any) -> PolicyRequest:
    request = noise_request(policy.spec, index, 0)
    seen = replace(request.observation, instruction=changes.pop("instruction", request.observation.instruction))
    return replace(request, observation=seen, **changes)


def company_of(policy: SteppedPolicy) -> list[Any]:
    """Return jobs of many kinds: another prompt, a step ahead, no prediction, given actions, NaN and 1e30."""
    words = request_of(policy, 1, instruction="put the red cube into the left drawer and then close it slowly")
    jobs = [begin(policy, words), *policy.step([begin(policy, request_of(policy, 2))])]
    jobs.append(begin(policy, request_of(policy, 3, num_predicted_frames=0)))
    for index, number in enumerate((np.nan, 1e30)):
        bad = with_state_of(request_of(policy, 4, episode_id=f"bad {index}"), number)
        jobs.append(begin(policy, bad))
    if policy.spec.takes_actions:
        given = np.full((policy.spec.chunk_len, ACTION_DIM), 0.05, np.float32)
        jobs.append(begin(policy, request_of(policy, 5, given_actions=given)))
    return [job for job in jobs if job.phase is not Phase.DONE]


def mixed(policy: SteppedPolicy, job: Any, others: list[Any], turn: int) -> Answer:
    """Return the answer of a job that has other company and another row in each of its passes."""
    actions, num_passes = None, 0
    while job.phase is not Phase.DONE:
        if job.phase is Phase.VIDEO and actions is None:
            actions = policy.actions(job).actions
        first, slot = (turn + num_passes) * (WIDTH - 1) % len(others), (turn + 2 * num_passes) % WIDTH
        row = (others * 2)[first : first + WIDTH - 1 - num_passes % 2]  # every second pass has a row of padding
        row.insert(slot, job)
        job = policy.step(row)[min(slot, len(row) - 1)]
        num_passes += 1
    actions = policy.actions(job).actions if actions is None else actions
    return Answer(actions, policy.finish(job) if policy.spec.predicts else None)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_company_changes_no_bit(family: str, precision: str) -> None:
    policy = policy_of(family, precision)
    job, others = begin(policy, request_of(policy, 0)), company_of(policy)
    assert {other.group for other in others} == {job.group}
    alone = finished(policy, job)
    assert np.isfinite(alone.actions).all()
    for turn in range(WIDTH):
        check_same_reply(alone, mixed(policy, job, others, turn), f"in company, turn {turn}")


@pytest.mark.parametrize("family", ["xwam", "uwm marginal"])
def test_company_changes_no_bit_of_given_actions(family: str) -> None:
    policy = policy_of(family, "float32")
    given = np.full((policy.spec.chunk_len, ACTION_DIM), 0.02, np.float32)
    job, others = begin(policy, request_of(policy, 6, given_actions=given)), company_of(policy)
    check_same_reply(finished(policy, job), mixed(policy, job, others, 0), "in company")


@pytest.mark.parametrize("strategy", ["guided", "prefix"])
def test_company_changes_no_bit_of_a_joining_chunk(strategy: Any) -> None:
    """Its action phase shares passes with its like alone: gradients are recorded, or the first actions are clean."""
    policy = policy_of("xwam", "float32")
    rng = np.random.default_rng(0)
    left, last = (rng.uniform(-0.02, 0.02, size).astype(np.float32) for size in ((24, ACTION_DIM), ACTION_DIM))
    joining = [
        replace(request_of(policy, 7), committed=CommittedActions(actions=left, last=last, delay=2, strategy=strategy)),
        replace(
            request_of(policy, 8), committed=CommittedActions(actions=-left, last=last, delay=2, strategy=strategy)
        ),
    ]
    sick = replace(with_state_of(joining[1], np.nan), episode_id="sick")
    job, other, bad = (begin(policy, request) for request in (*joining, sick))
    assert job.group == other.group
    assert job.group != begin(policy, request_of(policy, 0)).group
    alone = finished(policy, job)
    for slot, company in enumerate(([other, bad], [other], [bad, bad])):
        check_same_reply(alone, finished(policy, job, company, slot=slot), f"row {slot}")


@pytest.mark.parametrize("family", ["xwam", "uwm marginal", "dreamzero static", "video_in_training"])
def test_the_stepped_part_of_the_check_passes(family: str) -> None:
    assert "company of others at other steps" in check_steps(policy_of(family, "float32"))


@pytest.mark.parametrize("family", ["xwam", "uwm marginal", "dreamzero"])
def test_rows_change_no_more_than_the_last_bits(family: str) -> None:
    one, wide = (finished(policy, begin(policy, request_of(policy, 0))) for policy in widths(family))
    np.testing.assert_allclose(wide.actions, one.actions, atol=1e-4)
    assert wide.future is not None
    assert one.future is not None
    assert np.abs(wide.future.rgb.astype(int) - one.future.rgb).max() <= 2


def widths(family: str) -> list[Any]:
    return [policy_of(family, "float32", width) for width in (1, WIDTH)]


def test_guided_and_plain_requests_share_a_pass() -> None:
    """The pass with the empty prompt has all rows too, however many are guided."""
    guided, plain = policy_of("xwam guided", "float32"), policy_of("xwam", "float32")
    job, other = begin(guided, request_of(guided, 0)), begin(plain, request_of(plain, 1))
    check_same_reply(finished(guided, job), finished(guided, job, [other, other], slot=1), "beside unguided ones")
    check_same_reply(finished(plain, other), finished(plain, other, [job], slot=0), "beside a guided one")


def test_a_skipped_pass_takes_no_row() -> None:
    policy = policy_of("dreamzero static", "float32")
    job = begin(policy, request_of(policy, 0))
    steps = [job.under_way.state.video.step_idx]
    while job.phase is not Phase.DONE:
        (job,) = policy.step([job])
        steps.append(job.under_way.state.video.step_idx)
    assert steps == [0, 1, 2, 7, 12, 16]  # every job waits before a pass that runs
    assert policy.actions(job).details["passes"] == 5


def test_actions_alone_end_with_the_actions() -> None:
    policy = policy_of("xwam", "float32")
    job = begin(policy, request_of(policy, 0, num_predicted_frames=0))
    assert job.passes_left == 2
    for _ in range(2):
        assert job.phase is Phase.ACTIONS
        (job,) = policy.step([job])
    assert job.phase is Phase.DONE
    assert job.under_way.state.depth_BCTVHW is None


def test_given_actions_take_no_action_pass() -> None:
    policy = policy_of("xwam", "float32")
    given = np.full((policy.spec.chunk_len, ACTION_DIM), 0.05, np.float32)
    job = begin(policy, request_of(policy, 0, given_actions=given))
    assert job.phase is Phase.VIDEO
    np.testing.assert_array_equal(policy.actions(job).actions, given)
    unasked = begin(policy, request_of(policy, 0, given_actions=given, num_predicted_frames=0))
    assert (unasked.phase, unasked.passes_left) == (Phase.DONE, 0)


def test_what_cannot_share_a_pass_is_refused() -> None:
    policy = policy_of("xwam", "float32")
    job = begin(policy, request_of(policy, 0))
    with pytest.raises(ValueError, match="A pass of 3 rows takes 1 to 3 requests, got 4"):
        policy.step([job] * 4)
    done = begin(policy, request_of(policy, 0, num_predicted_frames=0))
    for _ in range(2):
        (done,) = policy.step([done])
    with pytest.raises(ValueError, match="Request 1 of 2 is done and needs no pass"):
        policy.step([job, done])
    state = job.under_way.state
    wide = replace(job, under_way=replace(job.under_way, state=replace(state, text=state.text.filled(64))))
    with pytest.raises(ValueError, match="Requests of different groups cannot share a pass, got 2 groups"):
        policy.step([job, wide])


def test_a_prompt_fills_its_bucket_whatever_its_company() -> None:
    policy = policy_of("xwam", "float32")
    contexts = [policy.engine.prompts.read(prompt) for prompt in ("lift", "lift the very small red cube", "")]
    assert {context.num_tokens for context in contexts} == {bucket_of(1)}
    joined = TextContext.cat(contexts)
    assert joined.bias_BN is not None
    for row, context in enumerate(contexts):
        assert torch.equal(joined.bias_BN[row], context.bias_BN[0])
    narrow = policy_of("xwam", "float32", 1).engine.prompts.read("lift")
    assert narrow.num_tokens < bucket_of(1)


def test_infer_of_several_requests_is_that_of_each() -> None:
    policy = policy_of("uwm joint", "float32")
    first, second = (request_of(policy, index) for index in (0, 1))
    together = ask(policy, first, second)
    np.testing.assert_array_equal(together[0].actions, finished(policy, begin(policy, first)).actions)
    np.testing.assert_array_equal(together[1].actions, finished(policy, begin(policy, second)).actions)


@pytest.mark.parametrize("width", [0, 65])
def test_a_width_out_of_range_is_refused(width: int) -> None:
    plugin = load_policy("xwam")
    with pytest.raises(Exception, match=rf"policy\.xwam\.width must be from 1 to 64, got {width}"):
        plugin.spec(replace(plugin.config_type(), width=width))


def test_the_provenance_names_a_width_that_is_not_one() -> None:
    plugin = load_policy("uwm")
    assert "rows of a pass" not in plugin.provenance(plugin.config_type())
    assert plugin.provenance(replace(plugin.config_type(), width=8))["rows of a pass"] == "8"
