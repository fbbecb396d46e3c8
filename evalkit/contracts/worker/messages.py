"""The messages that harness and env process exchange, as types.

In: fields. Out: dicts that `wire` can send, and the messages read from such dicts.
Read next: `server.py`, which answers them; `client.py`, which sends them.

    Make     -> Made        build the env
    Begin    -> Begun       start an episode
    Advance  -> Advanced    execute a chunk of actions
    Settle   -> Settled     let the scene settle after success
    Observe  -> Observed    observe the current state
    Play     -> Played      put the simulation into recorded states and render each
    Vet      -> Vetted      let the expert try a seed
    Close                   end the process; no answer
    any      -> Failed      the env raised an error
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from evalkit.contracts.worker.wire import WireError


class Message:
    """A message; every message is a frozen dataclass whose fields can be sent as they are."""

    def to_wire(self) -> dict[str, Any]:
        """Return the dict that is sent.

        Example:
            >>> Begin(seed=3, max_steps=200, render=True).to_wire()
            {'message': 'begin', 'seed': 3, 'max_steps': 200, 'render': True, 'identify': False, 'instruction': None}
        """
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}  # type: ignore[arg-type]
        return {"message": self.name(), **values}

    @classmethod
    def name(cls) -> str:
        """Return what `to_wire` writes under `message`."""
        return cls.__name__.lower()


@dataclass(frozen=True, kw_only=True)
class Make(Message):
    """Import `module:attribute` and call it with these arguments; the result is the env."""

    target: str
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Made(Message):
    """The env was built.

    Attributes:
        spec: JSON form of its `EnvSpec`.
        about: What only the running env knows: its interpreter, its renderer.
    """

    spec: Mapping[str, Any]
    about: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Begin(Message):
    """Start the episode of a seed and observe its first state.

    Attributes:
        seed: Seed of the env.
        max_steps: Control steps after which the episode ends.
        render: Whether the observation holds images.
        identify: Whether the answer says which scene was met.
        instruction: The planned instruction, for an `InstructedEnv`; None if the plan leaves it open.
    """

    seed: int
    max_steps: int
    render: bool
    identify: bool = False
    instruction: str | None = None


@dataclass(frozen=True, kw_only=True)
class Begun(Message):
    """The episode has started.

    Attributes:
        solved: Whether its goal is met already.
        observation: The first observation.
        scene: What the seed drew, JSON values; None if the env does not say, or was not asked.
        first_state_sha256: Hash of `SceneEnv.state`; None as for `scene`.
        first_frame_sha256: Hash of RGB and depth of all views; None if they cannot be rendered, or were not asked for.
    """

    solved: bool
    observation: Mapping[str, Any]
    scene: Mapping[str, Any] | None = None
    first_state_sha256: str | None = None
    first_frame_sha256: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Advance(Message):
    """Execute actions until the last one or the first success.

    Attributes:
        actions: K,14 float32.
        render_at: Numbers of executed actions after which to render.
        render_last: Whether to render after the last executed action.
        render_success: Whether to render the moment at which the goal is met.
    """

    actions: np.ndarray
    render_at: Sequence[int] = ()
    render_last: bool = False
    render_success: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Advanced(Message):
    """The outcome of a chunk of actions.

    Attributes:
        num_executed: Actions executed before the chunk or the episode ended.
        success: Whether the goal was met.
        frames: (number of executed actions, rendered observation), in order.
        last: The observation after the last action; None if it is the last of the frames.
        sim_s: Seconds of physics.
        render_s: Seconds of rendering and reading the state.
        counters: What a `CountingEnv` has counted since the episode began.
        rewards: What a `RewardingEnv` gave for each executed action; empty for others.
    """

    num_executed: int
    success: bool
    frames: Sequence[tuple[int, Mapping[str, Any]]]
    last: Mapping[str, Any] | None
    sim_s: float
    render_s: float
    counters: Mapping[str, int] = field(default_factory=dict)
    rewards: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Settle(Message):
    """Leave the robot alone for some control steps; for an episode that has met its goal."""

    num_steps: int


@dataclass(frozen=True, kw_only=True)
class Settled(Message):
    """The scene has settled; `success` says whether the goal is met after the last step, None if no action holds."""

    success: bool | None


@dataclass(frozen=True, kw_only=True)
class Observe(Message):
    """Observe the current state."""

    render: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed(Message):
    """The observation of the current state."""

    observation: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Play(Message):
    """Put the simulation into recorded states, T,X float64, and render each."""

    states: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Played(Message):
    """One rendered observation per state, in order."""

    observations: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Vet(Message):
    """Let the expert try the episode of a seed; for a `VettingEnv`.

    Attributes:
        seed: Seed of the scene.
        instructions: Sentences to check, by split; None to draw new ones.
    """

    seed: int
    instructions: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Vetted(Message):
    """The expert's verdict: the JSON values of an `evalkit.contracts.manifest.Vetting`."""

    vetting: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Close(Message):
    """Free the simulator and end the process."""


@dataclass(frozen=True, kw_only=True)
class Failed(Message):
    """The env raised an error; its process still answers.

    Attributes:
        kind: Name of the error's type, for example `FloatingPointError`.
        reason: Text of the error.
    """

    kind: str
    reason: str


_TYPES: dict[str, type[Message]] = {
    kind.name(): kind
    for kind in (
        *(Make, Made, Begin, Begun, Advance, Advanced, Settle, Settled, Observe, Observed, Play, Played),
        *(Vet, Vetted, Close, Failed),
    )
}


def from_wire(raw: Any) -> Message:
    """Return the message that `to_wire` wrote.

    Raises:
        WireError: If it is not one of ours, or its fields are not those of its type.

    Example:
        >>> from_wire({"message": "failed", "kind": "OSError", "reason": "no such file"})
        Failed(kind='OSError', reason='no such file')
    """
    name = raw.get("message") if isinstance(raw, dict) else None
    if name not in _TYPES:
        raise WireError(f"a message of an unknown kind ({type(raw).__name__}, {name!r})")
    try:
        return _TYPES[name](**{key: value for key, value in raw.items() if key != "message"})
    except TypeError as error:
        raise WireError(f"a message '{name}' with wrong fields ({error})") from error
