"""Checks of a policy that answers by denoising steps: its passes, and that a reply does not depend on who shares them.

In: a loaded `SteppedPolicy`. Out: what was tried, or an AssertionError with the promise that is not kept.
Read next: `evalkit/contracts/stepped.py`, the promises; `policies.py`, which runs these checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evalkit.contracts.requests import visible_env
from evalkit.contracts.stepped import Phase, SteppedPolicy
from evalkit.contracts.types import ARM_PROPRIO, QUAT_WXYZ, PolicyRequest
from evalkit.testing.replies import Answer, answer, check_same, check_same_reply, without_prediction
from evalkit.testing.requests import env_for, noise_request

ORDER = (Phase.ACTIONS, Phase.VIDEO, Phase.DONE)
HUGE = 1e30
"""A number whose square is infinite in float32."""


def check_steps(policy: SteppedPolicy) -> str:
    """Check what a stepped policy promises on requests of noise, and return what was tried.

    Raises:
        AssertionError: If a promise is not kept.
    """
    request = noise_request(policy.spec, 0, 0)
    expected = answer(policy, request)
    job = begin(policy, request)
    num_passes = check_phases(policy, job)
    check_same_reply(expected, finished(policy, job), "passes must give what `infer` gives")
    check_same_reply(expected, finished(policy, job), "a pass must leave its jobs as they were")
    short = begin(policy, without_prediction(request))
    num_action_passes = check_phases(policy, short)
    alone = finished(policy, short, predicts=False)
    check_same(expected.actions, alone.actions, "actions must not depend on num_predicted_frames")
    said = f"{num_passes} passes, {num_action_passes} without a prediction; the same as `infer`"
    if policy.width == 1:
        return f"{said}; no company at width 1"
    return f"{said}; the same in the company of {check_company(policy, request, expected)}"


def check_phases(policy: SteppedPolicy, job: Any) -> int:
    """Check that a job passes through its phases in order with fewer passes left each time; return its passes."""
    num_passes = 0
    while job.phase is not Phase.DONE:
        assert job.passes_left > 0, f"a job in the phase {job.phase} must have passes left"
        (later,) = policy.step([job])
        assert ORDER.index(later.phase) >= ORDER.index(job.phase), f"{later.phase} must not follow {job.phase}"
        assert later.passes_left < job.passes_left, f"{later.passes_left} passes are left after {job.passes_left}"
        job, num_passes = later, num_passes + 1
    assert job.passes_left == 0, f"a job that is done must have no passes left, has {job.passes_left}"
    return num_passes


def check_company(policy: SteppedPolicy, request: PolicyRequest, expected: Answer) -> str:
    """Check that a reply is the same whoever shares its passes, and in whatever row; return who did."""
    others = [begin(policy, noise_request(policy.spec, index, 0)) for index in range(1, policy.width)]
    ahead = [job if index % 2 else policy.step([job])[0] for index, job in enumerate(others)]
    poisoned = list(_poisoned(policy, request))
    kinds = {"others at other steps": ahead, "requests of NaN and 1e30": poisoned}
    for name, company in kinds.items():
        for slot in sorted({0, len(company[: policy.width - 1])}):
            job = begin(policy, request)
            got = finished(policy, job, company[: policy.width - 1], slot=slot)
            check_same_reply(expected, got, f"a reply must not depend, to the bit, on {name} in its passes")
    return " and of ".join(name for name, company in kinds.items() if company)


def begin(policy: SteppedPolicy, request: PolicyRequest) -> Any:
    """Return the job of a request, the first of its episode."""
    policy.reset(request.episode_id, visible_env(env_for(policy.spec), policy.spec))
    return policy.prepare(request)


def finished(
    policy: SteppedPolicy, job: Any, company: Sequence[Any] = (), *, slot: int = 0, predicts: bool = True
) -> Answer:
    """Return the answer of a job after all its passes.

    Args:
        policy: The policy.
        job: The job.
        company: Jobs that share the passes where their group allows it; one that is done begins again.
        slot: The row of the job among them.
        predicts: Whether its request asks for a prediction, if the policy has any.
    """
    now, actions = list(company), None
    while job.phase is not Phase.DONE:
        if job.phase is Phase.VIDEO and actions is None:
            actions = policy.actions(job).actions
        sharing = [index for index, other in enumerate(now) if other.group == job.group]
        before, after = sharing[:slot], sharing[slot:]
        row = [*(now[index] for index in before), job, *(now[index] for index in after)]
        stepped = policy.step(row)
        job = stepped.pop(len(before))
        for index, other in zip(sharing, stepped, strict=True):
            now[index] = company[index] if other.phase is Phase.DONE else other
    if actions is None:
        actions = policy.actions(job).actions
    return Answer(actions, policy.finish(job) if predicts and policy.spec.predicts else None)


def with_state_of(request: PolicyRequest, number: float) -> PolicyRequest:
    """Return a request whose state is this number, except for rotations, which many policies refuse."""
    seen = request.observation
    state = np.full_like(seen.proprio, number)
    for arm in ARM_PROPRIO.values():
        state[arm][QUAT_WXYZ] = seen.proprio[arm][QUAT_WXYZ]
    return replace(request, observation=replace(seen, proprio=state))


def _poisoned(policy: SteppedPolicy, request: PolicyRequest) -> Iterator[Any]:
    """Yield jobs whose state is NaN or huge, as far as the policy takes them."""
    for index, number in enumerate((np.nan, HUGE, -HUGE)):
        bad = replace(with_state_of(request, number), episode_id=f"poisoned {index}")
        try:
            yield begin(policy, bad)
        except Exception:
            continue
