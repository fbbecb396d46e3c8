"""What a bench and its envs must offer.

In: a bench's name, its config, a planned episode. Out: physics steps and observations.
Read next: `worker/server.py`, the process in which an env lives; `envs/robosuite/env.py`, the embedded default.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import Episode


class Env(Protocol):
    """One task of one simulator. It lives alone in its worker process and may be reset many times there.

    Physics and rendering are separate calls, because pictures cost more than steps and are not needed at every one.
    `envs/gymnasium_env.py` makes a gymnasium env of any such env.
    """

    spec: EnvSpec
    about: Mapping[str, str]
    """What only the running env knows, for the run record: its renderer, say."""

    def begin(self, *, seed: int, max_steps: int) -> bool:
        """Start the episode of this seed; return whether it is already solved, which makes it an error.

        The same seed gives the same first frame to the bit, in any process and after any other episode.
        """
        ...

    def advance(self, action: np.ndarray) -> bool:
        """Execute one 14-number float32 action for one control step; return whether the goal is met."""
        ...

    def observe(self, *, render: bool) -> dict[str, Any]:
        """Return the fields of an `Observation`, `privileged` among them; with `render=False` V is 0.

        RGB and depth of a view come from one render pass.
        """
        ...

    def close(self) -> None:
        """Free the simulator; calling it twice is fine."""
        ...


@dataclass(frozen=True, kw_only=True)
class WorkerLaunch:
    """How to start the process in which an env of this bench lives.

    Attributes:
        target: `module:function` that the worker imports; called with `kwargs`, returns an `Env`.
        kwargs: JSON values.
        python: Interpreter; another one than ours where a simulator's pins ask for it.
        environ: Environment variables set on top of the harness's own.
    """

    target: str
    kwargs: Mapping[str, Any]
    python: str = sys.executable
    environ: Mapping[str, str] = field(default_factory=dict)


class Bench(Protocol):
    """A plugin of the entry-point group `evalkit.envs`; it imports no simulator.

    Attributes:
        name: What `--bench` takes.
        summary: One line for `evalkit list`.
        config_type: Frozen dataclass of its settings, all with defaults; overridden as `bench.<name>.<field>=value`.
        tasks: Task names in report order.
        settings: Setting names; the first is the default.
        protocol: Name and version of the set of choices that its plans make with its default settings; episodes say
            which one they follow.
    """

    name: str
    summary: str
    config_type: type
    tasks: Sequence[str]
    settings: Sequence[str]
    protocol: str

    def plan_episodes(self, config: Any, *, task: str, setting: str, num_episodes: int, seed: int) -> list[Episode]:
        """Return the episodes of one task; the same arguments give the same list."""
        ...

    def env_spec(self, config: Any, *, task: str, setting: str) -> EnvSpec:
        """Return what the env of this task will give, without starting a simulator."""
        ...

    def launch(self, config: Any, *, task: str, setting: str) -> WorkerLaunch:
        """Return how to start a worker for this task."""
        ...

    def departures(self, config: Any) -> list[str]:
        """Return every way in which this config departs from the protocol, one sentence each."""
        ...

    def provenance(self, config: Any) -> dict[str, str]:
        """Return versions of the simulator and its assets, for plan and run record."""
        ...


@runtime_checkable
class PacedBench(Protocol):
    """A bench whose protocol says how much of a chunk is executed; a plan that does otherwise departs from it."""

    def executed_steps(self, config: Any) -> int | None:
        """Return how many actions of a chunk are executed before the policy is asked again; None for any number."""
        ...


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that `evalkit doctor` looked at.

    Attributes:
        what: Its name.
        ok: Whether it is there.
        found: What was found: a version, a size, a reason.
        remedy: What to do if it is not there: a command, or a page.
        needed: Whether nothing runs without it.
    """

    what: str
    ok: bool
    found: str
    remedy: str
    needed: bool = True


@runtime_checkable
class ExaminedBench(Protocol):
    """A bench that needs more than `make setup` installs, and can tell what of it is there."""

    def examine(self, config: Any) -> list[Finding]:
        """Return every finding."""
        ...
