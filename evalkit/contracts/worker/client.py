"""The client of an env process: starts it, asks, watches the clock, ends it. Run, record and replay use it.

In: how to launch a bench's env. Out: observations and the outcomes of chunks of actions, or an `EpisodeFault`.
Read next: `messages.py`, the messages; `start.py` and `server.py`, the other end; `evalkit/run/episode.py`, which asks.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from evalkit.contracts import plugins
from evalkit.contracts.env import WorkerLaunch
from evalkit.contracts.errors import (
    EnvNotBuilt,
    EnvRaised,
    EpisodeFault,
    SolvedAtReset,
    SpecMismatch,
    WorkerNotStarted,
)
from evalkit.contracts.spec import EnvSpec, check_observation
from evalkit.contracts.types import Episode, Observation
from evalkit.contracts.worker import messages, wire
from evalkit.contracts.worker.output import Output
from evalkit.contracts.worker.process import WorkerProcess

STATES_PER_MESSAGE = 16
"""Recorded states that one message plays; it bounds the size of the answer."""

SETTLE_STEPS_PER_MESSAGE = 20
"""Control steps that one message lets a scene settle; it bounds the time of the answer."""

END_S = 5.0
"""Seconds for a process to end by itself, once it is asked to or has closed its connection."""

Answer = TypeVar("Answer", bound=messages.Message)


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds that a worker has for each kind of question."""

    start_s: float = 300.0
    reset_s: float = 300.0
    chunk_s: float = 300.0
    vet_s: float = 1800.0


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeStart:
    """The start of an episode.

    Attributes:
        observation: The first observation.
        solved: Whether the goal is met before the first step.
        scene: What the seed drew, JSON values; None if the env does not say.
        first_state_sha256: Hash of the env's first state; None if the env does not give it.
        first_frame_sha256: Hash of RGB and depth of all views; None if they cannot be rendered.
    """

    observation: Observation
    solved: bool
    scene: Mapping[str, Any] | None
    first_state_sha256: str | None
    first_frame_sha256: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkOutcome:
    """The outcome of a chunk of actions.

    Attributes:
        num_executed: Actions executed before the chunk or the episode ended.
        success: Whether the goal was met.
        frames: (number of executed actions, rendered observation), in order.
        last: The observation after the last action; rendered only if it is also among the frames.
        sim_s: Seconds of physics.
        render_s: Seconds of rendering and reading the state.
        counters: What a `CountingEnv` has counted since the episode began.
        rewards: What a `RewardingEnv` gave for each executed action; empty for others.
    """

    num_executed: int
    success: bool
    frames: list[tuple[int, Observation]]
    last: Observation
    sim_s: float
    render_s: float
    counters: Mapping[str, int] = field(default_factory=dict)
    rewards: Sequence[float] = ()


class EnvWorker:
    """One env in one process. The process survives an `EnvRaised`; after any other `EpisodeFault` it has ended.

    Attributes:
        env_spec: What the env gives.
        about: What only the worker knows: its interpreter, its renderer, the versions of its packages.
    """

    def __init__(
        self,
        launch: WorkerLaunch,
        env_spec: EnvSpec,
        *,
        timeouts: Timeouts = Timeouts(),
        log_path: Path | None = None,
    ) -> None:
        """Start the process; `build` makes the env in it.

        Args:
            launch: How to start it.
            env_spec: What its env must give.
            timeouts: Seconds that it has for its answers.
            log_path: File to which its output is appended; None to quote the last line of the output in errors.
        """
        self.env_spec = env_spec
        self.about: dict[str, str] = {}
        self._launch = launch
        self._timeouts = timeouts
        self._built = False
        self._output = Output(log_path, launch.fatal_output)
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._process = WorkerProcess(launch, theirs, self._output)

    def build(self) -> EnvWorker:
        """Build the env and return this worker.

        Raises:
            EnvRaised: If the env misses assets.
            WorkerNotStarted: If the process ends with an exit code while it starts (retriable).
            EpisodeFault: If it hangs or a signal kills it (retriable).
            EnvNotBuilt: If the env cannot be built for another reason.
            SpecMismatch: If the env that was built is not the one that was planned.
        """
        question = messages.Make(target=self._launch.target, kwargs=dict(self._launch.kwargs))
        try:
            made = self.ask(question, messages.Made)
            self._check_spec(made)
        except EnvRaised as error:
            note = self._log_note()
            self.kill()
            if error.misses_assets:
                raise
            raise EnvNotBuilt(
                f"The worker for {self.env_spec.env_id} cannot build its env: {error.said.rstrip('.')}. "
                + ("" if error.is_machines or error.text in note else f"{note}. ")
                + self._advice(),
                fault=error,
            ) from error
        except BaseException:
            self.kill()
            raise
        self.about = dict(made.about)
        self._built = True
        return self

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def begin(self, episode: Episode, *, render: bool) -> EpisodeStart:
        """Start an episode and return its first observation and which scene it met; `check_start` judges them.

        Raises:
            EpisodeFault: If the worker fails, its observation is not what its spec promises, or its scene is not JSON.
        """
        question = messages.Begin(
            seed=episode.seed,
            max_steps=episode.max_steps,
            render=render,
            identify=True,
            instruction=episode.instruction,
        )
        begun = self.ask(question, messages.Begun)
        try:
            json.dumps(begun.scene, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise self._fault(f"{self.env_spec.env_id}: the scene must hold JSON values: {error}.") from error
        return EpisodeStart(
            observation=self._observation(begun.observation, rendered=render),
            solved=begun.solved,
            scene=begun.scene,
            first_state_sha256=begun.first_state_sha256,
            first_frame_sha256=begun.first_frame_sha256,
        )

    def check_start(self, episode: Episode, start: EpisodeStart) -> None:
        """Check that an episode started as it was planned.

        Raises:
            EpisodeFault: If instruction or first state are not the planned ones, or the episode is solved before the
                first step.
        """
        where = f"{self.env_spec.env_id}, seed {episode.seed}"
        if start.solved:
            self.kill()
            raise SolvedAtReset("env", f"{where}: the goal is already met at reset.")
        if episode.instruction is not None and start.observation.instruction != episode.instruction:
            raise self._fault(
                f"{where}: the plan says '{episode.instruction}', the env says '{start.observation.instruction}'."
            )
        planned, met = episode.first_state_sha256, start.first_state_sha256
        if planned is not None and met != planned:
            raise self._fault(
                f"{where}: it is not the planned scene: the hash of its first state is {met or 'unknown'}, planned "
                f"{planned}."
            )

    def send_actions(
        self, actions: np.ndarray, *, render_at: Sequence[int], render_last: bool, render_success: bool
    ) -> None:
        """Let the robot move; `receive_outcome` returns the outcome. The arguments are those of `messages.Advance`."""
        self._send(
            messages.Advance(
                actions=actions, render_at=list(render_at), render_last=render_last, render_success=render_success
            )
        )

    def receive_outcome(self) -> ChunkOutcome:
        """Wait for the actions that were sent and return their outcome.

        Raises:
            EpisodeFault: If the worker fails, or gives an observation that is not what its spec promises.
        """
        answer = self._receive(messages.Advanced, self._timeouts.chunk_s, messages.Advance.name())
        frames = [(int(offset), self._observation(raw, rendered=True)) for offset, raw in answer.frames]
        last = self._observation(answer.last, rendered=False) if answer.last is not None else frames[-1][1]
        for name, count in answer.counters.items():
            if not isinstance(name, str) or type(count) is not int or count < 0:
                raise self._fault(f"{self.env_spec.env_id}: counter {name!r} is {count!r}, not a whole number from 0.")
        return ChunkOutcome(
            num_executed=answer.num_executed,
            success=answer.success,
            frames=frames,
            last=last,
            sim_s=answer.sim_s,
            render_s=answer.render_s,
            counters=answer.counters,
            rewards=self._rewards(answer),
        )

    def _rewards(self, answer: messages.Advanced) -> list[float]:
        """Return the rewards of an answer; raises EpisodeFault unless there is none, or a number for each action."""
        rewards = list(answer.rewards)
        if rewards and (len(rewards) != answer.num_executed or not np.isfinite(rewards).all()):
            raise self._fault(
                f"{self.env_spec.env_id}: {answer.num_executed} finite rewards were expected, got {rewards}."
            )
        return rewards

    def settle(self, num_steps: int) -> bool | None:
        """Leave the robot alone for some control steps; return whether the goal is met after the last one.

        None if it is not known which action holds the robot: the layout is another one than those of `settling_action`,
        and the env is no `HoldingEnv`.

        Raises:
            EpisodeFault: If the worker fails, or the env raises an error.
        """
        success: bool | None = False
        for start in range(0, num_steps, SETTLE_STEPS_PER_MESSAGE):
            steps = min(SETTLE_STEPS_PER_MESSAGE, num_steps - start)
            success = self.ask(messages.Settle(num_steps=steps), messages.Settled).success
        return success

    def observe(self, *, render: bool = False) -> Observation:
        """Return the current observation.

        Raises:
            EpisodeFault: If the worker fails, or its observation is not what its spec promises.
        """
        answer = self.ask(messages.Observe(render=render), messages.Observed)
        return self._observation(answer.observation, rendered=render)

    def begin_playback(self) -> None:
        """Start an episode for `play`; its first state is replaced by the first one that is played.

        Raises:
            EnvRaised: If the env cannot start.
            EpisodeFault: If the worker fails.
        """
        self.ask(messages.Begin(seed=0, max_steps=0, render=False), messages.Begun)

    def play(self, states: np.ndarray) -> Iterator[Observation]:
        """Yield the rendered observation of each recorded state; only for a `PlayableEnv`.

        Args:
            states: T,X float64, as the simulator's model lays them out.

        Raises:
            EnvRaised: If a state does not fit the model.
            EpisodeFault: If the worker fails, or gives an observation that is not what its spec promises.
        """
        for start in range(0, len(states), STATES_PER_MESSAGE):
            question = messages.Play(states=states[start : start + STATES_PER_MESSAGE])
            for raw in self.ask(question, messages.Played).observations:
                yield self._observation(raw, rendered=True)

    def vet(self, seed: int, instructions: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        """Return the expert's verdict on a seed, as JSON values; only for a `VettingEnv`, whose `vet` says more.

        Raises:
            EnvRaised: If the env raised an error; `misses_assets` tells a file that is not installed.
            EpisodeFault: If the worker fails, or its answer holds other than JSON values.
        """
        vetting = self.ask(messages.Vet(seed=seed, instructions=instructions), messages.Vetted).vetting
        try:
            json.dumps(vetting, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise self._fault(f"{self.env_spec.env_id}: a vetting must hold JSON values: {error}.") from error
        return vetting

    def ask(self, question: messages.Message, answer_type: type[Answer]) -> Answer:
        """Return the answer to a question.

        Raises:
            EnvRaised: If the env raised an error.
            EpisodeFault: If the worker dies, hangs, or answers with something else.
        """
        times = self._timeouts
        limits = {messages.Make: times.start_s, messages.Begin: times.reset_s, messages.Vet: times.vet_s}
        self._send(question)
        return self._receive(answer_type, limits.get(type(question), times.chunk_s), question.name())

    def close(self) -> None:
        """Ask the process to end and make sure that it does; calling it twice is fine."""
        with contextlib.suppress(OSError):
            wire.send(self._connection, messages.Close().to_wire())
            self._process.wait(END_S)
        self.kill()

    def kill(self) -> None:
        """End the process and whatever it started, at once."""
        self._process.kill()
        self._connection.close()
        self._output.close()

    def _send(self, question: messages.Message) -> None:
        try:
            wire.send(self._connection, question.to_wire())
        except OSError as error:
            raise self._died() from error

    def _receive(self, answer_type: type[Answer], timeout_s: float, question: str) -> Answer:
        env_id = self.env_spec.env_id
        try:
            answer = messages.from_wire(wire.receive(self._connection, timeout_s=timeout_s))
        except TimeoutError as error:
            self._output.note(f"evalkit: no answer to '{question}' within {timeout_s:g} s; this process is killed.")
            raise self._fault(
                f"{env_id}: the worker did not answer '{question}' within {timeout_s:g} s and was killed.",
                retriable=True,
            ) from error
        except EOFError as error:
            raise self._died() from error
        except wire.WireError as error:
            raise self._fault(f"{env_id}: the worker sent {error}.") from error
        fatal = self._output.find_fatal()
        if fatal is not None:
            raise self._fault(f"{env_id}: the simulator printed a fatal error: {fatal}")
        if isinstance(answer, messages.Failed):
            raise EnvRaised(env_id, kind=answer.kind, text=answer.reason)
        if not isinstance(answer, answer_type):
            raise self._fault(f"{env_id}: the worker answered '{question}' with '{answer.name()}'.")
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

    def _check_spec(self, made: messages.Made) -> None:
        built = EnvSpec.from_json(dict(made.spec))
        if built != self.env_spec:
            ours, theirs = self.env_spec.to_json(), built.to_json()
            names = [name for name in ours if ours[name] != theirs[name]]
            raise SpecMismatch(
                f"{self.env_spec.env_id}: the env that was built is not the one that was planned: "
                + "; ".join(f"{name} is {theirs[name]}, planned {ours[name]}" for name in names)
                + "."
            )

    def _died(self) -> EpisodeFault:
        if not self._process.wait(END_S):
            return self._fault(f"{self.env_spec.env_id}: the worker closed its connection.", retriable=True)
        how, note = self._process.how_it_ended(), self._log_note()
        if self._built or self._process.was_killed:
            return self._fault(f"{self.env_spec.env_id}: the worker {how}. {note}.", retriable=True)
        said = (
            "" if self._output.path is None else f" The last line of its output: {self._output.last_line.rstrip('.')}."
        )
        self.kill()
        reason = f"{self.env_spec.env_id}: the worker {how} before it had an env.{said} {note}."
        return WorkerNotStarted(reason, advice=self._advice())

    def _advice(self) -> str:
        return f"Run `{_doctor(self.env_spec.env_id)}` to see what is missing."

    def _log_note(self) -> str:
        """Return where the worker's output is, or its last line."""
        path = self._output.path
        return f"Its log is {path}" if path is not None else f"The last line of its output: {self._output.last_line}"

    def _fault(self, reason: str, *, retriable: bool = False) -> EpisodeFault:
        self.kill()
        if not self._process.has_ended:
            reason += f" No signal ends process {self.pid}; it is left behind."
        return EpisodeFault("env", reason, retriable=retriable)


def _doctor(env_id: str) -> str:
    """Return the command that says what an env needs; a bench without a registered name has none of its own."""
    bench = env_id.partition("/")[0]
    return f"evalkit doctor {bench}" if bench in plugins.names(plugins.BENCHES) else "evalkit doctor"
