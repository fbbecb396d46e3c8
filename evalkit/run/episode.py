"""One episode: the one loop of the harness.

In: a planned episode, a worker, a policy. Out: how it ended; listeners hear of each executed chunk.
Read next: `recorder.py` for the listeners, `runner.py` for who calls this and what becomes of faults.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from evalkit.contracts.errors import EpisodeFault, EvalkitError
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import EnvSpec, PolicySpec, check_actions
from evalkit.contracts.types import PROPRIO_DIM, Episode, Observation, PolicyReply, PolicyRequest, Prediction
from evalkit.run.worker import ChunkOutcome, EnvWorker


@dataclass(frozen=True, kw_only=True, eq=False)
class ExecutedChunk:
    """What listeners hear.

    Attributes:
        request: What the policy was asked, with the observation that it saw.
        predicted: What it imagined; None where it imagines nothing.
        outcome: What its actions did.
    """

    request: PolicyRequest
    predicted: Prediction | None
    outcome: ChunkOutcome


class Listener(Protocol):
    """Who wants to hear of an episode; called while the robot executes the next chunk, so that nobody waits."""

    def on_chunk(self, chunk: ExecutedChunk) -> None:
        """Hear of one executed chunk, in order."""
        ...

    def on_end(self, outcome: str) -> None:
        """Hear that the episode ended as `success` or `failure`."""
        ...

    def abandon(self) -> None:
        """Hear that the episode ended in a fault; leave nothing half done behind."""
        ...


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """How an episode ended that ended without a fault."""

    success: bool
    steps: int
    num_chunks: int
    instruction: str
    actions_sha256: str
    timings_s: Mapping[str, float]
    details: Mapping[str, Any]


def run_episode(
    episode: Episode, worker: EnvWorker, policy: Policy, listeners: Sequence[Listener], *, render: bool, imagine: bool
) -> EpisodeResult:
    """Run one planned episode to its end and return how it ended.

    The robot moves as soon as the actions are there; the rest of the imagination, and the listeners, go on meanwhile.

    Args:
        episode: What was planned.
        worker: A live worker for the episode's task.
        policy: Who acts.
        listeners: Who hears of each chunk.
        render: Whether to render the frames between the policy's looks, one every `frame_stride` steps.
        imagine: Whether to ask for predictions.

    Raises:
        EpisodeFault: Whatever ends the episode as an error, and whose fault it is.
    """
    spec, env_spec = policy.spec, worker.env_spec
    clock = _Clock()
    with clock("reset"):
        observation = worker.begin(episode, render=spec.needs_images or render)
        instruction = observation.instruction
        _blaming_policy(policy.reset, episode, env_spec)
    actions_hash = hashlib.sha256()
    details: dict[str, Any] = {}
    unheard: ExecutedChunk | None = None
    step_idx, chunk_idx, success = 0, 0, False
    while step_idx < episode.max_steps and not success:
        request = PolicyRequest(
            episode=episode,
            chunk_idx=chunk_idx,
            step_idx=step_idx,
            observation=observation,
            want_prediction=imagine,
        )
        with clock("policy"):
            reply = _infer(policy, request, env_spec)
        actions = reply.actions[: min(spec.execute_steps, episode.max_steps - step_idx)]
        worker.send_actions(
            actions,
            render_at=_frame_offsets(step_idx, len(actions), spec.frame_stride) if render else (),
            render_last=spec.needs_images,
            render_success=render,
        )
        with clock("record"):
            _tell(listeners, unheard)
        with clock("imagine"):
            predicted = _imagine(reply, spec, env_spec)
        with clock("wait"):
            outcome = worker.receive_outcome()
        clock.add(sim=outcome.sim_s, render=outcome.render_s)
        unheard = ExecutedChunk(request=request, predicted=predicted, outcome=outcome)
        actions_hash.update(np.ascontiguousarray(actions[: outcome.num_executed]).tobytes())
        details.update(reply.details)
        step_idx += outcome.num_executed
        chunk_idx += 1
        success, observation = outcome.success, outcome.last
    with clock("record"):
        _tell(listeners, unheard)
    return EpisodeResult(
        success=success,
        steps=step_idx,
        num_chunks=chunk_idx,
        instruction=instruction,
        actions_sha256=actions_hash.hexdigest(),
        timings_s=clock.seconds(),
        details=details,
    )


def _frame_offsets(step_idx: int, num_actions: int, stride: int) -> list[int]:
    """Return after how many actions of a chunk a frame is due; frames lie `stride` steps apart from the chunk's start.

    Example:
        >>> _frame_offsets(0, 8, 4), _frame_offsets(6, 1, 4), _frame_offsets(7, 1, 4)
        ([4, 8], [], [1])
    """
    if num_actions >= stride:
        return list(range(stride, num_actions + 1, stride))
    return [offset for offset in range(1, num_actions + 1) if (step_idx + offset) % stride == 0]


def _infer(policy: Policy, request: PolicyRequest, env_spec: EnvSpec) -> PolicyReply:
    replies = _blaming_policy(policy.infer, [request])
    if len(replies) != 1 or not isinstance(replies[0], PolicyReply):
        raise EpisodeFault("policy", f"Policy '{policy.spec.policy_id}' gave {len(replies)} replies to one request.")
    check_actions(replies[0].actions, env_spec, policy.spec)
    return replies[0]


def _imagine(reply: PolicyReply, spec: PolicySpec, env_spec: EnvSpec) -> Prediction | None:
    if reply.prediction is None:
        return None
    prediction: Prediction = _blaming_policy(reply.prediction)
    _check_prediction(prediction, spec, env_spec)
    return prediction


def _check_prediction(prediction: Prediction, spec: PolicySpec, env_spec: EnvSpec) -> None:
    frames, views, size = spec.num_future_frames, len(env_spec.cameras), env_spec.image_hw_px
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
        raise EpisodeFault("policy", f"{type(error).__name__}: {error}") from error


def _tell(listeners: Sequence[Listener], chunk: ExecutedChunk | None) -> None:
    if chunk is not None:
        for listener in listeners:
            listener.on_chunk(chunk)


class _Clock:
    """Seconds spent under each name.

    Example:
        >>> clock = _Clock()
        >>> with clock("policy"):
        ...     pass
        >>> list(clock.seconds())
        ['policy', 'wall']
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._spent: Counter[str] = Counter()
        self._open: tuple[str, float] = ("", 0.0)

    def __call__(self, name: str) -> _Clock:
        self._open = (name, time.perf_counter())
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        name, started = self._open
        self.add(**{name: time.perf_counter() - started})

    def add(self, **seconds: float) -> None:
        for name, value in seconds.items():
            self._spent[name] += value  # type: ignore[assignment]

    def seconds(self) -> dict[str, float]:
        wall = time.perf_counter() - self._started
        return {**{name: round(value, 4) for name, value in self._spent.items()}, "wall": round(wall, 4)}
