"""The harness's end of an env worker: starts the process, asks, watches the clock, kills.

In: how to launch a bench's env. Out: observations and what chunks of actions did, or an `EpisodeFault`.
Read next: `evalkit/contracts/worker/server.py`, the other end; `evalkit/run/episode.py`, which asks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import evalkit
from evalkit.contracts.env import WorkerLaunch
from evalkit.contracts.errors import EpisodeFault, EvalkitError, SpecMismatch, cannot_write
from evalkit.contracts.spec import EnvSpec, check_observation
from evalkit.contracts.types import Episode, Observation
from evalkit.contracts.worker import wire


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds that a worker has for each kind of question."""

    start_s: float
    reset_s: float
    chunk_s: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkOutcome:
    """What a chunk of actions did.

    Attributes:
        num_executed: Actions executed before the chunk or the episode ended.
        success: Whether the goal was met.
        frames: (actions executed, rendered observation), in order.
        last: The observation after the last action; rendered only if it is also among the frames.
        sim_s: Seconds of physics.
        render_s: Seconds of rendering and reading the state.
    """

    num_executed: int
    success: bool
    frames: list[tuple[int, Observation]]
    last: Observation
    sim_s: float
    render_s: float


class EnvWorker:
    """One env in one process. After any `EpisodeFault` the process is gone; start another worker.

    Attributes:
        env_spec: What the env gives.
        about: What only the worker knows: its interpreter, its renderer.
    """

    def __init__(self, launch: WorkerLaunch, env_spec: EnvSpec, *, timeouts: Timeouts, log_path: Path) -> None:
        """Start the process; `build` makes the env in it."""
        self.env_spec = env_spec
        self.about: dict[str, str] = {}
        self._launch = launch
        self._timeouts = timeouts
        self._log_path = log_path
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._process = _spawn(launch, theirs, log_path)

    def build(self) -> EnvWorker:
        """Build the env and return this worker.

        Raises:
            EpisodeFault: If the process dies or hangs while it starts (retriable).
            EvalkitError: If the env cannot be built.
            SpecMismatch: If the env that was built is not the one that was planned.
        """
        question = {"op": "make", "target": self._launch.target, "kwargs": dict(self._launch.kwargs)}
        try:
            answer = self._ask(question, self._timeouts.start_s)
            self._check_spec(answer)
        except BaseException:
            self.kill()
            raise
        self.about = dict(answer["about"])
        return self

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def begin(self, episode: Episode, *, render: bool) -> Observation:
        """Start an episode and return its first observation.

        Raises:
            EpisodeFault: If the worker fails, its observation is not what its spec promises, the instruction is not
                the planned one, or the episode is solved before the first step.
        """
        question = {"op": "begin", "seed": episode.seed, "max_steps": episode.max_steps, "render": render}
        answer = self._answer_or_fault(self._ask(question, self._timeouts.reset_s))
        observation = self._observation(answer["observation"], rendered=render)
        where = f"{self.env_spec.env_id}, seed {episode.seed}"
        if answer["solved"]:
            raise self._fault(f"{where}: the goal is already met at reset.")
        if episode.instruction is not None and observation.instruction != episode.instruction:
            raise self._fault(
                f"{where}: the plan says '{episode.instruction}', the env says '{observation.instruction}'."
            )
        return observation

    def send_actions(
        self, actions: np.ndarray, *, render_at: Sequence[int], render_last: bool, render_success: bool
    ) -> None:
        """Let the robot move; `receive_outcome` tells what came of it.

        Args:
            actions: K,14 float32.
            render_at: Numbers of executed actions after which to render.
            render_last: Whether to render after the last one, whichever it is.
            render_success: Whether to render the moment at which the goal is met.
        """
        question = {
            "op": "advance",
            "actions": actions,
            "render_at": list(render_at),
            "render_last": render_last,
            "render_success": render_success,
        }
        try:
            wire.send(self._connection, question)
        except OSError as error:
            raise self._died() from error

    def receive_outcome(self) -> ChunkOutcome:
        """Wait for the actions that were sent and return what they did.

        Raises:
            EpisodeFault: If the worker fails, or gives an observation that is not what its spec promises.
        """
        answer = self._answer_or_fault(self._receive(self._timeouts.chunk_s, "advance"))
        frames = [(int(offset), self._observation(raw, rendered=True)) for offset, raw in answer["frames"]]
        last = self._observation(answer["last"], rendered=False) if answer["last"] is not None else frames[-1][1]
        return ChunkOutcome(
            num_executed=answer["num_executed"],
            success=answer["success"],
            frames=frames,
            last=last,
            sim_s=answer["sim_s"],
            render_s=answer["render_s"],
        )

    def close(self) -> None:
        """Ask the process to end and make sure that it does; calling it twice is fine."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            wire.send(self._connection, {"op": "close"})
            self._process.wait(timeout=5.0)
        self.kill()

    def kill(self) -> None:
        """End the process and whatever it started, at once."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()

    def _ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        try:
            wire.send(self._connection, question)
        except OSError as error:
            raise self._died() from error
        return self._receive(timeout_s, question["op"])

    def _receive(self, timeout_s: float, doing: str) -> dict[str, Any]:
        try:
            answer = wire.receive(self._connection, timeout_s=timeout_s)
        except TimeoutError as error:
            raise self._fault(
                f"{self.env_spec.env_id}: the worker did not answer '{doing}' within {timeout_s:g} s and was killed.",
                retriable=True,
            ) from error
        except EOFError as error:
            raise self._died() from error
        except wire.WireError as error:
            raise self._fault(f"{self.env_spec.env_id}: the worker sent {error}.") from error
        if not isinstance(answer, dict):
            raise self._fault(f"{self.env_spec.env_id}: the worker answered with {type(answer).__name__}.")
        return answer

    def _answer_or_fault(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "error" in answer:
            raise self._fault(f"{self.env_spec.env_id}: {answer['error']}")
        return answer

    def _observation(self, raw: Mapping[str, Any], *, rendered: bool) -> Observation:
        try:
            observation = Observation(**raw)
            check_observation(observation, self.env_spec, rendered=rendered)
        except TypeError as error:
            raise self._fault(f"{self.env_spec.env_id}: an observation with wrong fields: {error}.") from error
        except EpisodeFault:
            self.kill()
            raise
        return observation

    def _check_spec(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            raise EvalkitError(
                f"The worker for {self.env_spec.env_id} cannot build its env: {answer['error']}. "
                f"Its log is {self._log_path}; `evalkit doctor` tells what is missing."
            )
        built = EnvSpec.from_json(answer["spec"])
        if built != self.env_spec:
            ours, theirs = self.env_spec.to_json(), built.to_json()
            names = [name for name in ours if ours[name] != theirs[name]]
            raise SpecMismatch(
                f"{self.env_spec.env_id}: the env that was built is not the one that was planned: "
                + "; ".join(f"{name} is {theirs[name]}, planned {ours[name]}" for name in names)
                + "."
            )

    def _died(self) -> EpisodeFault:
        try:
            code = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return self._fault(f"{self.env_spec.env_id}: the worker closed its connection.", retriable=True)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return self._fault(f"{self.env_spec.env_id}: the worker {how}; its log is {self._log_path}.", retriable=True)

    def _fault(self, reason: str, *, retriable: bool = False) -> EpisodeFault:
        self.kill()
        return EpisodeFault("env", reason, retriable=retriable)


def _spawn(launch: WorkerLaunch, connection: socket.socket, log_path: Path) -> subprocess.Popen[bytes]:
    """Start the worker in a process group of its own, what it prints going to its log."""
    root = str(Path(evalkit.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [launch.python, "-m", "evalkit.contracts.worker.server", str(connection.fileno())]
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log = log_path.open("ab")
    except OSError as error:
        raise cannot_write(log_path, error) from error
    with log:
        try:
            return subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": path, **launch.environ},
                pass_fds=[connection.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            raise EvalkitError(f"Cannot start the interpreter {launch.python}: {error.strerror}.") from error
