"""Execution on the robot's clock: which actions the robot executes while it waits for a chunk, and after that.

In: chunks of a policy, each with the control steps that its answer took. Out: the executed actions, what was late, how
far old and new chunks differ, how jerky the commands are.
Read next: `evalkit/contracts/execution.py` for the settings; `episode.py`, whose loop asks; `docs/realtime.md`.

Time is simulated: the robot executes one action per control step, and the simulation stops while the policy computes.
A request at step t is answered at step t + d. The old chunk covers steps t to t + d - 1, the new one the steps from
t + d on, with the action that it holds for that step. So the actions until the next request are known as soon as the
policy has answered, and the same on every machine. The next request is made after `execute_steps` steps, or when the
answer arrives, if that is later: one request at a time.

Letters: N steps until the next request, K actions in a chunk, R actions left of a chunk.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from evalkit.contracts.execution import BLEND, JOINING, PREFIX, SYNC, Execution, delay_steps
from evalkit.contracts.geometry import matrix_from_quat, rotvec_from_matrix
from evalkit.contracts.spec import (
    EE_POSE_BASE,
    JOINT_POSITION,
    OSC_DELTA_BASE,
    OSC_STEP_M,
    EnvSpec,
    PolicySpec,
    still_action,
)
from evalkit.contracts.types import (
    ACTION_DIM,
    ARM_ACTION,
    ARM_PROPRIO,
    QUAT_WXYZ,
    ROTVEC_RAD,
    TRANSLATION,
    CommittedActions,
    Observation,
)

BLEND_DECAY = 0.01
"""Weights of `blend`: exp(-0.01 i) for the i-th oldest of the chunks that hold an action for a step, as in Zhao et al.,
"Learning fine-grained bimanual manipulation with low-cost hardware" (2023), section IV."""

NUM_REMEMBERED = 10
"""Measured delays of which the longest is what the next answer is expected to take."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TimedChunk:
    """A chunk, K,14, and the control step of its first action."""

    actions: np.ndarray
    start: int

    def holds(self, step: int) -> bool:
        """Return whether it has an action for a control step."""
        return self.start <= step < self.start + len(self.actions)

    def at(self, step: int) -> np.ndarray:
        """Return its action for a control step."""
        action: np.ndarray = self.actions[step - self.start]
        return action


class RobotClock:
    """The robot's side of one episode in real time.

    Args:
        execution: Strategy and delay.
        policy: Spec of the policy.
        env: Spec of the env.
    """

    def __init__(self, execution: Execution, policy: PolicySpec, env: EnvSpec) -> None:
        self._execution, self._policy, self._env = execution, policy, env
        self._chunks: list[TimedChunk] = []
        self._commanded: list[np.ndarray] = []
        self._delays: deque[int] = deque(maxlen=NUM_REMEMBERED)
        self._errors_m: list[float] = []
        self._holds: list[bool] = []  # of the steps until the answer, whether the robot stands still
        self._num_requests = self._num_delayed = self._num_late = self._num_held = 0

    @property
    def step(self) -> int:
        """Return how many actions have been executed."""
        return len(self._commanded)

    @property
    def predicts_what_it_executes(self) -> bool:
        """Return whether the next answer's prediction will be of the actions that are executed after its request."""
        if not self._execution.may_predict(self._env.control_hz):
            return False
        return self._expected_delay() == 0 or (self._execution.realtime in JOINING and bool(self._chunks))

    @property
    def steps_until_next_request(self) -> int:
        """Return how many steps follow the next request, if its answer takes as long as expected."""
        return self._period(self._expected_delay())

    def committed(self) -> CommittedActions | None:
        """Return what the next request tells the policy; None unless it joins its chunks and one is under execution.

        None also for a prefix of no actions.
        """
        if self._execution.realtime not in JOINING or not self._chunks:
            return None
        newest = self._chunks[-1]
        left = newest.actions[self.step - newest.start :]
        delay = min(self._expected_delay(), len(left))
        if self._execution.realtime == PREFIX and delay == 0:
            return None
        return CommittedActions(
            actions=left,
            delay=delay,
            last=self._commanded[-1],
            strategy=self._execution.realtime,  # type: ignore[arg-type]
        )

    def actions(self, chunk: np.ndarray, observation: Observation, *, latency_s: float, max_steps: int) -> np.ndarray:
        """Return the actions to execute until the next request, N,14 float32.

        Args:
            chunk: The policy's answer to a request made now, K,14.
            observation: The observation of the request.
            latency_s: Seconds that the policy took; they count only where the delay is measured.
            max_steps: Steps left in the episode.
        """
        delay = self._expected_delay()
        if self._execution.is_measured:
            delay = delay_steps(latency_s, self._env.control_hz)
        self._delays.append(delay)
        self._num_requests, self._num_delayed = self._num_requests + 1, self._num_delayed + delay
        waits, last = self._waits, self._period(delay)
        meanwhile = self._meanwhile(min(delay, max_steps), observation)
        self._num_late += self._is_late(delay) and delay <= max_steps
        if not waits:
            self._note_error(meanwhile, chunk)
        new = TimedChunk(actions=chunk, start=self.step + delay if waits else self.step)
        self._chunks = [old for old in self._chunks if old.holds(self.step + delay) and not waits] + [new]
        after = [self._action(self.step + offset) for offset in range(delay, last)]
        return np.stack([*meanwhile, *after][:max_steps]).astype(np.float32)

    def note_executed(self, actions: np.ndarray) -> None:
        """Note which of these actions were executed before the episode ended or the next request is due."""
        self._commanded.extend(actions)
        self._num_held += sum(self._holds[: len(actions)])

    def to_json(self) -> dict[str, float | None]:
        """Return what was counted and measured so far, for the record of the episode.

        `delay_steps` is the mean over requests; `late_chunks` counts answers that came after the old chunk's end, and
        `held_steps` the steps in which the robot stood still; `delay_zone_error_m` and `jerk_*_mps3` are explained at
        `zone_error_m` and `jerk_mps3`, and None where they are not defined.
        """
        errors, requests = self._errors_m, max(1, self._num_requests)
        found: dict[str, float | None] = {
            "delay_steps": self._num_delayed / requests,
            "late_chunks": self._num_late,
            "held_steps": self._num_held,
            "delay_zone_error_m": float(np.mean(errors)) if errors else None,
        }
        for arm in self._env.arms:
            found[f"jerk_{arm}_mps3"] = jerk_mps3(np.array(self._commanded), arm, self._env)
        return found

    @property
    def _waits(self) -> bool:
        """Return whether the robot stands still until the next answer: always with `sync`, else for the first one."""
        return self._execution.realtime == SYNC or not self._chunks

    def _period(self, delay: int) -> int:
        """Return how many steps lie between a request and the next one."""
        executed = self._policy.execute_steps
        return delay + executed if self._waits else max(delay, executed)

    def _expected_delay(self) -> int:
        """Return the fixed delay, or the longest of the last measured ones."""
        if not self._execution.is_measured:
            return self._execution.fixed_delay(self._env.control_hz)
        return max(self._delays, default=0)

    def _meanwhile(self, num_steps: int, observation: Observation) -> list[np.ndarray]:
        """Return the actions until the answer arrives: those of the old chunks, or of a robot that stands still."""
        last = self._commanded[-1] if self._commanded else None
        found: list[np.ndarray] = []
        steps = range(self.step, self.step + num_steps)
        self._holds = [self._waits or not any(chunk.holds(step) for chunk in self._chunks) for step in steps]
        for step, stands in zip(steps, self._holds, strict=True):
            last = standing_action(last, observation, self._env.action_layout) if stands else self._action(step)
            found.append(last)
        return found

    def _is_late(self, delay: int) -> bool:
        """Return whether the old chunk ends before an answer arrives."""
        before_arrival = self.step + delay - 1
        return not self._waits and delay > 0 and not any(chunk.holds(before_arrival) for chunk in self._chunks)

    def _action(self, step: int) -> np.ndarray:
        """Return the action of a step: the newest chunk's, or with `blend` the average of all that hold one."""
        holding = [chunk.at(step) for chunk in self._chunks if chunk.holds(step)]
        return average(holding, self._env.action_layout) if self._execution.realtime == BLEND else holding[-1]

    def _note_error(self, executed: list[np.ndarray], chunk: np.ndarray) -> None:
        """Note how far the executed actions are from those that the new chunk holds for the same steps."""
        count = len(executed)
        if count and (error := zone_error_m(np.array(executed), chunk[:count], self._env)) is not None:
            self._errors_m.append(error)


def standing_action(last: np.ndarray | None, observation: Observation, layout: str) -> np.ndarray:
    """Return the action, 14 float32, with which a robot stands still: it holds the last commanded pose.

    Args:
        last: The last executed action; None if nothing was commanded yet, and the robot holds its present pose.
        observation: The present.
        layout: One of `STANDING_LAYOUTS`.
    """
    if last is not None:
        return still_action(last, layout)
    action = np.zeros(ACTION_DIM, np.float32)
    if layout == JOINT_POSITION:
        action[:] = observation.privileged[JOINT_POSITION]
    elif layout == EE_POSE_BASE:
        for arm, columns in ARM_ACTION.items():
            state = observation.proprio[ARM_PROPRIO[arm]]
            if state.any():
                action[columns] = [*state[:3], *rotvec_from_matrix(matrix_from_quat(state[QUAT_WXYZ])), state[7]]
    return action


def average(actions: list[np.ndarray], layout: str) -> np.ndarray:
    """Return the weighted mean of the actions of one step, the oldest chunk's first; see `BLEND_DECAY`.

    Rotations of absolute poses are averaged as rotations, all other numbers by themselves.

    Example:
        >>> average([np.zeros(14, np.float32), np.ones(14, np.float32)], OSC_DELTA_BASE)[:2].round(4).tolist()
        [0.4975000023841858, 0.4975000023841858]
    """
    if len(actions) == 1:
        return actions[0]
    weights = np.exp(-BLEND_DECAY * np.arange(len(actions)))
    weights /= weights.sum()
    stacked = np.stack(actions).astype(np.float64)
    mean = weights @ stacked
    if layout == EE_POSE_BASE:
        for columns in ARM_ACTION.values():
            turns = stacked[:, columns][:, ROTVEC_RAD]
            mean[columns][ROTVEC_RAD] = Rotation.from_rotvec(turns).mean(weights).as_rotvec()
    return mean.astype(np.float32)


def commanded_positions_m(actions: np.ndarray, arm: str, layout: str) -> np.ndarray | None:
    """Return the positions that actions, N,14, command an arm to, N,3; None for joint angles, which name none.

    Deltas are summed from the position before the first action.
    """
    moves = np.asarray(actions, np.float64)[:, ARM_ACTION[arm]][:, TRANSLATION]
    if layout == OSC_DELTA_BASE:
        return np.cumsum(np.clip(moves, -1.0, 1.0) * OSC_STEP_M, axis=0)
    return moves if layout == EE_POSE_BASE else None


def zone_error_m(executed: np.ndarray, new: np.ndarray, env: EnvSpec) -> float | None:
    """Return the error in the delay zone: the mean distance, in metres, between commanded positions.

    Between those that the robot executed until the answer arrived and those that the new chunk holds for the same
    steps, both from the position at the request; the mean is over steps and arms.

    Args:
        executed: N,14.
        new: N,14.
        env: Spec of the env.
    """
    distances = []
    for arm in env.arms:
        pair = [commanded_positions_m(actions, arm, env.action_layout) for actions in (executed, new)]
        if pair[0] is None or pair[1] is None:
            return None
        distances.append(np.linalg.norm(pair[0] - pair[1], axis=1).mean())
    return float(np.mean(distances))


def jerk_mps3(actions: np.ndarray, arm: str, env: EnvSpec) -> float | None:
    """Return the root mean square of the third difference of commanded positions, m/s^3; None for fewer than 4 steps.

    Steps in which the robot stands still count.

    Example:
        >>> from evalkit.contracts.spec import EnvSpec
        >>> env = EnvSpec(env_id="x/y", cameras=(), image_hw_px=(1, 1), arms=("left",), action_layout=EE_POSE_BASE,
        ...     control_hz=10.0)
        >>> t_s = np.arange(9) / 10
        >>> round(jerk_mps3(np.outer(t_s**3, np.eye(14)[0]), "left", env), 9)
        6.0
    """
    if len(actions) < 4:
        return None
    positions = commanded_positions_m(actions, arm, env.action_layout)
    if positions is None:
        return None
    jerks = np.diff(positions, n=3, axis=0) * env.control_hz**3
    return float(np.sqrt((jerks**2).sum(axis=1).mean()))
