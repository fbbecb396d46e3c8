"""Execution on the robot's clock: what the robot does while a policy computes, a choice that a plan fixes.

In: settings such as `execution.realtime=async`. Out: the delay in control steps, refusals, departures.
Read next: `evalkit/run/realtime.py`, which carries it out; `docs/realtime.md` for the five strategies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.limits import check_choice, check_range
from evalkit.contracts.spec import EE_POSE_BASE, JOINT_POSITION, OSC_DELTA_BASE, EnvSpec, Join, PolicySpec
from evalkit.contracts.text import count_of

SYNC, ASYNC, BLEND, GUIDED, PREFIX = STRATEGIES = ("sync", "async", "blend", "guided", "prefix")
JOINING = (GUIDED, PREFIX)
"""Strategies for which the policy gets the actions that the robot is committed to."""

MEASURED = "measured"
"""Value of `execution.delay_ms`: each answer arrives as late as the policy took on this machine."""

MAX_DELAY_MS = 60_000
"""A minute: nothing that acts in real time waits longer."""

STANDING_LAYOUTS = (OSC_DELTA_BASE, EE_POSE_BASE, JOINT_POSITION)
"""Action layouts in which it is known which action lets the robot stand still."""

_MEANING = {
    SYNC: "the robot stands still until each answer arrives",
    ASYNC: "the old chunk goes on until the answer arrives",
    BLEND: "each action is the average of all chunks that hold it",
    GUIDED: "the old chunk goes on, and the new one is guided towards it",
    PREFIX: "the old chunk goes on, and the new one is denoised behind it",
}


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What the robot does while the policy computes.

    Attributes:
        realtime: Strategy: `sync` stands still until the answer arrives; `async` goes on with the old chunk; `blend`
            averages all chunks that hold an action for the step; `guided` and `prefix` go on with the old chunk and
            ask the policy for a chunk that joins it, by guidance or by clean first actions.
        delay_ms: Time from a request to its answer, in milliseconds of the robot's clock; `measured` takes the
            policy's own time on this machine, which no other run repeats.
        untrained_prefix: Allow `prefix` with a model that was not trained for it, or not for this delay.
    """

    realtime: str = SYNC
    delay_ms: str = "0"
    untrained_prefix: bool = False

    def __post_init__(self) -> None:
        """Raise BadConfig for values that mean nothing; numbers get one spelling, so that equal plans have one hash."""
        check_choice("execution.realtime", self.realtime, STRATEGIES)
        if self.delay_ms == MEASURED:
            return
        try:
            milliseconds = float(self.delay_ms)
        except ValueError:
            raise BadConfig(
                f"execution.delay_ms must be a number of milliseconds or '{MEASURED}', got '{self.delay_ms}'."
            ) from None
        check_range("execution.delay_ms", milliseconds, 0, MAX_DELAY_MS, unit="ms")
        object.__setattr__(self, "delay_ms", f"{milliseconds:g}")

    @property
    def is_plain(self) -> bool:
        """Return whether the simulation simply waits for each answer, as the protocols say."""
        return self == PLAIN

    @property
    def is_measured(self) -> bool:
        """Return whether the delay is the policy's own time."""
        return self.delay_ms == MEASURED

    def to_json(self) -> Mapping[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def fixed_delay(self, control_hz: float) -> int:
        """Return the fixed delay in control steps; 0 where it is measured, and not known before.

        Example:
            >>> Execution(realtime="async", delay_ms="120").fixed_delay(20)
            3
        """
        return 0 if self.is_measured else delay_steps(float(self.delay_ms) / 1000, control_hz)

    def may_predict(self, control_hz: float) -> bool:
        """Return whether any prediction is of the actions that are executed, so that it can be scored.

        Elsewhere the robot executes other actions than those whose outcome the policy predicts.
        """
        if self.is_measured or self.realtime == BLEND:
            return False
        return self.realtime in JOINING or self.fixed_delay(control_hz) == 0


PLAIN = Execution()
"""The simulation waits for each answer."""


def delay_steps(seconds: float, control_hz: float) -> int:
    """Return the first control step at or after a delay; a rounding error of a nanosecond costs no step.

    Example:
        >>> delay_steps(0.1, 20), delay_steps(0.101, 20)
        (2, 3)
    """
    return max(0, math.ceil((seconds - 1e-9) * control_hz))


def check_execution(execution: Execution, env: EnvSpec, policy: PolicySpec) -> None:
    """Raise BadConfig unless a policy can be executed like this on an env.

    Raises:
        BadConfig: Names the setting, what was found and what to change.
    """
    if execution.is_plain:
        return
    delay = execution.fixed_delay(env.control_hz)
    late = f"{execution.delay_ms} ms are {count_of(delay, 'control step')} at {env.control_hz:g} Hz"
    where = f"execution.realtime={execution.realtime}, policy '{policy.policy_id}' on {env.env_id}"
    if env.action_layout not in STANDING_LAYOUTS:
        raise BadConfig(f"{where}: it is not known how the robot stands still in the layout '{env.action_layout}'.")
    stride = policy.past_frame_stride
    if stride is not None and (execution.is_measured or delay % stride):
        found = "a measured delay" if execution.is_measured else late
        raise BadConfig(
            f"{where}: the policy asks for an image every {stride} steps, and {found}; give a delay of a multiple of "
            f"{stride} steps."
        )
    if execution.realtime == SYNC:
        return
    if policy.chunk_len == 1:
        raise BadConfig(f"{where}: the policy gives one action at a time, and no chunk to go on with; use sync.")
    if delay >= policy.chunk_len:
        raise BadConfig(
            f"{where}: {late}, and a chunk of {policy.chunk_len} actions would be over when it arrives; give a shorter "
            f"delay, or use sync."
        )
    if execution.realtime in JOINING:
        _check_join(execution, _join_of(execution, policy, where), policy, delay, f"{where}: {late}")


def _join_of(execution: Execution, policy: PolicySpec, where: str) -> Join:
    """Return how a policy joins chunks by the strategy; raises BadConfig if it does not."""
    for join in policy.joins:
        if join.strategy == execution.realtime:
            if join.refusal:
                raise BadConfig(f"{where}: {join.refusal}")
            return join
    offered = ", ".join(join.strategy for join in policy.joins if not join.refusal)
    raise BadConfig(
        f"{where}: the policy cannot join its chunks like this"
        + (f" (it can by {offered})" if offered else "")
        + f"; use {SYNC}, {ASYNC} or {BLEND}, which need nothing of a policy."
    )


def _check_join(execution: Execution, join: Join, policy: PolicySpec, delay: int, where: str) -> None:
    """Raise BadConfig if a chunk cannot bridge the delay, or the policy was not trained for it."""
    between = max(policy.execute_steps, delay)
    if between + delay > policy.chunk_len:
        raise BadConfig(
            f"{where}, and {between} actions of a chunk of {policy.chunk_len} are over at the next request, so the "
            f"chunk does not reach the answer; execute fewer actions (execute_steps), or give a shorter delay."
        )
    if join.max_delay is None or execution.untrained_prefix:
        return
    if join.max_delay == 0 or delay > join.max_delay or execution.is_measured:
        trained = f"with at most {join.max_delay} clean first actions" if join.max_delay else "without clean first ones"
        raise BadConfig(
            f"{where}, but the model was trained {trained}; train one with prefix_actions_max={max(delay, 1)} or more, "
            f"or add execution.untrained_prefix=true, a departure."
        )


def execution_departures(execution: Execution, env: EnvSpec, policy: PolicySpec) -> list[str]:
    """Return how an execution departs from a protocol whose simulation waits for each answer, one sentence each."""
    if execution.is_plain:
        return []
    found = [f"Real-time execution '{execution.realtime}': {_MEANING[execution.realtime]}."]
    if execution.is_measured:
        found.append("The delay of each answer is measured on this machine, so that no other run repeats the result.")
    else:
        steps = count_of(execution.fixed_delay(env.control_hz), "control step")
        found.append(f"Each answer arrives {execution.delay_ms} ms ({steps}) after its request.")
    untrained = [j for j in policy.joins if j.strategy == PREFIX and (j.max_delay or 0) < _longest(execution, env)]
    if execution.realtime == PREFIX and execution.untrained_prefix and untrained:
        found.append("The model was not trained with clean first actions of this delay (execution.untrained_prefix).")
    return found


def _longest(execution: Execution, env: EnvSpec) -> float:
    return math.inf if execution.is_measured else max(1, execution.fixed_delay(env.control_hz))
