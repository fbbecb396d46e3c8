"""The loop of one episode.

In: a planned episode, a worker, a policy. Out: whether the goal was met; listeners receive each executed chunk.
Read next: `recorder.py` for the listeners, `lane.py`, which calls this and turns faults into records.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from evalkit.contracts.errors import EpisodeFault, EvalkitError, describe
from evalkit.contracts.execution import PLAIN, Execution
from evalkit.contracts.policy import Policy
from evalkit.contracts.requests import EpisodeRequests
from evalkit.contracts.spec import EnvSpec, PolicySpec, check_actions, past_offsets
from evalkit.contracts.types import PROPRIO_DIM, Episode, Observation, PolicyReply, PolicyRequest, Prediction
from evalkit.contracts.worker.client import ChunkOutcome, EnvWorker, EpisodeStart
from evalkit.run.realtime import RobotClock
from evalkit.serve.whole import only_reply


@dataclass(frozen=True, kw_only=True, eq=False)
class ExecutedChunk:
    """A chunk of actions, its prediction and its outcome.

    Attributes:
        request: The request to the policy, with the observation.
        actions: N,14 float32, the executed actions: those of the reply, in real-time mode older ones before them.
        predicted: The prediction; None if the policy predicts nothing.
        outcome: The outcome of the actions.
        reply: The reply of the policy, with its timings and details.
        before: The rendered observation before each executed action; empty unless every step is rendered.
    """

    request: PolicyRequest
    actions: np.ndarray
    predicted: Prediction | None
    outcome: ChunkOutcome
    reply: PolicyReply
    before: Sequence[Observation] = ()


@dataclass(frozen=True, kw_only=True)
class Settling:
    """What followed a success.

    Attributes:
        num_steps: Control steps without action; 0 for none.
        success: Whether the goal is met after them; None if there were none, or a fault ended them.
    """

    num_steps: int
    success: bool | None = None


class Listener(Protocol):
    """Receives the chunks of an episode; called while the robot executes the next chunk, so that nothing waits."""

    def on_chunk(self, chunk: ExecutedChunk) -> None:
        """Receive one executed chunk, in order."""
        ...

    def on_end(self, outcome: str) -> None:
        """The episode ended as `success` or `failure`."""
        ...

    def abandon(self) -> None:
        """The episode ended in a fault; leave no unfinished file."""
        ...


class Tally:
    """Counts of an episode so far; valid also after a fault.

    Attributes:
        steps: Executed control steps.
        num_chunks: Executed chunks.
        start: Which scene the episode met; None before the first observation.
        instruction: The instruction that the policy received; None before the first observation.
        settling: What followed the success; None before one.
        details: Details that the policy added.
        counters: What the env has counted.
        clock: Seconds by name.
        robot: The robot's clock, which counts what came late; None before the first request.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.num_chunks = 0
        self.start: EpisodeStart | None = None
        self.instruction: str | None = None
        self.settling: Settling | None = None
        self.details: dict[str, Any] = {}
        self.counters: dict[str, int] = {}
        self.clock = Clock()
        self.robot: RobotClock | None = None
        self._actions = hashlib.sha256()

    def add(self, actions: np.ndarray, outcome: ChunkOutcome, reply: PolicyReply) -> None:
        """Count one executed chunk."""
        self._actions.update(np.ascontiguousarray(actions[: outcome.num_executed]).tobytes())
        self.steps += outcome.num_executed
        self.num_chunks += 1
        self.details.update(reply.details)
        self.counters.update(outcome.counters)
        for name, milliseconds in reply.timings_ms.items():
            self.clock.add(f"policy/{name}", milliseconds / 1000)
        self.clock.add("sim", outcome.sim_s)
        self.clock.add("render", outcome.render_s)

    @property
    def actions_sha256(self) -> str:
        """Return the hash of all executed actions, float32, in order."""
        return self._actions.hexdigest()


def run_episode(
    episode: Episode,
    worker: EnvWorker,
    policy: Policy,
    listeners: Sequence[Listener],
    tally: Tally,
    *,
    render: bool,
    predict: bool,
    render_all: bool = False,
    execution: Execution = PLAIN,
) -> bool:
    """Run one planned episode to its end and return whether the goal was met.

    The robot moves as soon as the actions are ready; meanwhile the prediction is completed and listeners are called.
    In real-time mode it also moves in the control steps that an answer takes (`realtime.py`); a prediction is then
    asked for only if it is of the actions that will be executed.

    Args:
        episode: The planned episode.
        worker: A live worker for the episode's task.
        policy: The policy that acts.
        listeners: Called with each executed chunk.
        tally: Filled during the episode.
        render: Whether to render frames between observations, one every `frame_stride` steps.
        predict: Whether to ask for predictions: of the frames that the executed actions can reach.
        render_all: Whether to render after every step, for `ExecutedChunk.before`.
        execution: What the robot does while the policy computes.

    Raises:
        EpisodeFault: If anything ends the episode as an error; it says whose fault it is.
    """
    spec, env_spec, clock = policy.spec, worker.env_spec, tally.clock
    requests = EpisodeRequests(episode, spec)
    with clock.span("reset"):
        tally.start = worker.begin(episode, render=spec.needs_images or render or render_all)
        worker.check_start(episode, tally.start)
        observation = tally.start.observation
        tally.instruction = observation.instruction
        _blaming_policy(requests.reset, policy, env_spec)
    unreported: ExecutedChunk | None = None
    between: list[np.ndarray] = []
    success = False
    robot = tally.robot = RobotClock(execution, spec, env_spec)
    while tally.steps < episode.max_steps and not success:
        steps_left = episode.max_steps - tally.steps
        num_actions = min(robot.steps_until_next_request, steps_left)
        is_predicted = predict and robot.predicts_what_it_executes
        request = requests.request(
            observation,
            chunk_idx=tally.num_chunks,
            step_idx=tally.steps,
            num_predicted_frames=num_reachable_frames(num_actions, spec) if is_predicted else 0,
            between=between,
            committed=robot.committed(),
        )
        asked_s = time.perf_counter()
        with clock.span("policy"):
            reply = ask_policy(policy, request, env_spec)
        latency_s = time.perf_counter() - asked_s
        actions = robot.actions(reply.actions, observation, latency_s=latency_s, max_steps=steps_left)
        shown_at = _frame_offsets(tally.steps, len(actions), spec.frame_stride) if render else []
        past_at = past_offsets(spec, len(actions))
        worker.send_actions(
            actions,
            render_at=range(1, len(actions) + 1) if render_all else sorted({*shown_at, *past_at}),
            render_last=spec.needs_images,
            render_success=render,
        )
        with clock.span("record"):
            _notify(listeners, unreported)
        with clock.span("imagine"):
            predicted = complete_prediction(reply, request, spec, env_spec)
        with clock.span("wait"):
            outcome = worker.receive_outcome()
        tally.add(actions, outcome, reply)
        before = [observation, *(frame for _, frame in outcome.frames)][: outcome.num_executed] if render_all else []
        between = [frame.rgb for frame in _frames_at(outcome, past_at) if frame is not outcome.last]
        outcome = _for_listeners(outcome, shown_at)
        executed = actions[: outcome.num_executed]
        robot.note_executed(executed)
        unreported = ExecutedChunk(
            request=request, actions=executed, predicted=predicted, outcome=outcome, reply=reply, before=before
        )
        success, observation = outcome.success, outcome.last
    with clock.span("record"):
        _notify(listeners, unreported)
    return success


def _frame_offsets(step_idx: int, num_actions: int, stride: int) -> list[int]:
    """Return the numbers of executed actions of a chunk after which a frame is due, one every `stride` steps.

    Example:
        >>> _frame_offsets(0, 8, 4), _frame_offsets(6, 1, 4), _frame_offsets(7, 1, 4)
        ([4, 8], [], [1])
    """
    if num_actions >= stride:
        return list(range(stride, num_actions + 1, stride))
    return [offset for offset in range(1, num_actions + 1) if (step_idx + offset) % stride == 0]


def _frames_at(outcome: ChunkOutcome, offsets: Container[int]) -> list[Observation]:
    """Return the observations that were rendered after these numbers of actions, in order."""
    return [frame for offset, frame in outcome.frames if offset in offsets]


def _for_listeners(outcome: ChunkOutcome, shown_at: Container[int]) -> ChunkOutcome:
    """Return the outcome without the frames that only the policy asked for; the last observation always stays."""
    frames = [(offset, frame) for offset, frame in outcome.frames if offset in shown_at or frame is outcome.last]
    return replace(outcome, frames=frames)


def num_reachable_frames(num_actions: int, spec: PolicySpec) -> int:
    """Return how many of the predicted frames the executed actions reach, unless the episode ends early."""
    return min(spec.num_future_frames, num_actions // spec.frame_stride)


def ask_policy(policy: Policy, request: PolicyRequest, env_spec: EnvSpec) -> PolicyReply:
    """Return the policy's reply to a request; raises EpisodeFault if it breaks its spec."""
    name = policy.spec.policy_id
    reply = only_reply(_blaming_policy(policy.infer, [request]), name)
    check_actions(reply.actions, env_spec, policy.spec)
    try:
        json.dumps([dict(reply.details), dict(reply.timings_ms)], allow_nan=False)
    except (TypeError, ValueError) as error:
        raise EpisodeFault("policy", f"Policy '{name}': details or timings are not JSON: {error}.") from error
    return reply


def complete_prediction(
    reply: PolicyReply, request: PolicyRequest, spec: PolicySpec, env_spec: EnvSpec
) -> Prediction | None:
    """Return the prediction of a reply, None if there is none; raises EpisodeFault if it breaks the policy's spec."""
    if reply.prediction is None or request.num_predicted_frames == 0:
        return None
    prediction: Prediction = _blaming_policy(reply.prediction)
    _check_prediction(prediction, request.num_predicted_frames, spec, env_spec)
    return prediction


def _check_prediction(prediction: Prediction, frames: int, spec: PolicySpec, env_spec: EnvSpec) -> None:
    if not isinstance(prediction, Prediction):
        got = type(prediction).__name__
        raise EpisodeFault("policy", f"Policy '{spec.policy_id}': a prediction must be a Prediction, got {got}.")
    views, size = len(env_spec.cameras), env_spec.image_hw_px
    expected: dict[str, tuple[Any, tuple[int, ...], type]] = {
        "rgb": (prediction.rgb, (frames, views, *size, 3), np.uint8),
        "depth": (prediction.depth, (frames, views, *size), np.float32),
        "proprio": (prediction.proprio, (frames, PROPRIO_DIM), np.float32),
    }
    for name in spec.predicts:
        value, shape, dtype = expected[name]
        if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype != dtype:
            got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise EpisodeFault(
                "policy",
                f"Policy '{spec.policy_id}': predicted {name} must be {np.dtype(dtype)} {shape}, got {got}.",
            )


def _blaming_policy(call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except (EpisodeFault, EvalkitError):
        raise
    except Exception as error:
        raise EpisodeFault("policy", describe(error)) from error


def _notify(listeners: Sequence[Listener], chunk: ExecutedChunk | None) -> None:
    if chunk is not None:
        for listener in listeners:
            listener.on_chunk(chunk)


class Clock:
    """Seconds by name.

    Example:
        >>> clock = Clock()
        >>> with clock.span("policy"):
        ...     pass
        >>> list(clock.seconds())
        ['policy', 'wall']
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._spent: dict[str, float] = {}

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Add the time spent in the `with` block to `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds that were measured elsewhere."""
        self._spent[name] = self._spent.get(name, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """Return the seconds by name, and the `wall` time since the start."""
        return {
            name: round(value, 4)
            for name, value in {**self._spent, "wall": time.perf_counter() - self._started}.items()
        }
