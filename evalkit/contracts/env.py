"""The members that a bench and its envs must have.

In: a bench's name, its config, a planned episode. Out: physics steps and observations.
Read next: `recording.py`, the further members of benches whose episodes are in data sets; `worker/server.py`, the
process in which an env lives; `envs/robosuite/env.py`, the embedded default.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import Episode

if TYPE_CHECKING:
    from evalkit.contracts.manifest import Manifest


class Env(Protocol):
    """One task of one simulator, alone in its worker process; it can begin many episodes there.

    Physics and rendering are separate calls, because an image costs more than a step and is not needed at every step.
    `envs/gymnasium_env.py` makes a gymnasium env of any such env.
    """

    spec: EnvSpec

    @property
    def about(self) -> Mapping[str, str]:
        """What only the running env knows, for the run record, for example its renderer."""
        ...

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


class SceneEnv(Protocol):
    """An env that says which scene its episode met, so that two runs can show that they met the same one.

    `evalkit.testing.check_bench` requires it of every bench. Records of an env without it hold no scene and no hash of
    the first state.
    """

    @property
    def scene(self) -> Mapping[str, Any]:
        """What the seed drew, for readers: JSON values, lengths in metres; read once, right after `begin`."""
        ...

    def state(self) -> Mapping[str, np.ndarray]:
        """Return all that the seed decides, by name: the simulator's full state and what was drawn into its model.

        It is read right after `begin`, and hashed. The same seed gives the same values to the bit, in any process and
        after any other episode; two seeds give different ones. It does not depend on image sizes or other settings
        of the renderer.
        """
        ...


class HoldingEnv(Protocol):
    """An env whose robot needs another action than `spec.settling_action` to stand still."""

    def hold_action(self, last: np.ndarray) -> np.ndarray:
        """Return the action, 14 float32, that stops the robot after the action `last` and leaves its grippers alone."""
        ...


class CountingEnv(Protocol):
    """An env that counts what happens during an episode and is no result, for example plans that failed."""

    def counters(self) -> Mapping[str, int]:
        """Return the counts since `begin`, by name, for example `{"failed_plans": 2}`; read after each chunk."""
        ...


class RewardingEnv(Protocol):
    """An env that gives a reward for each step; `run.steps` writes it into the step rows."""

    def reward(self) -> float:
        """Return the reward of the last action; read after each step."""
        ...


class InstructedEnv(Protocol):
    """An env whose scene does not decide the instruction: the plan does."""

    def instruct(self, instruction: str) -> None:
        """Take the planned instruction of the episode that has just begun; later observations hold it.

        It is called right after `begin`, before the first observation, unless the plan leaves the instruction open.

        Raises:
            ValueError: If the sentence cannot be said of the scene; the episode is an `error` of the env.
        """
        ...


class VettingEnv(Protocol):
    """An env that can say whether an expert solves the episode of a seed."""

    def vet(self, seed: int, instructions: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        """Return the verdict of the expert: the JSON values of an `evalkit.contracts.manifest.Vetting`.

        An expert that fails is a verdict, not an error. The same seed gives the same verdict, in any process and after
        any other seed.

        Args:
            seed: Seed of the scene.
            instructions: Sentence by split that others fixed for this seed. The verdict then draws none: it holds those
                that their own split gives in the scene, and leaves the others out.

        Raises:
            MissingAssets: If the scene needs a file that is not installed.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class WorkerLaunch:
    """How to start the process of an env.

    Attributes:
        target: `module:function` that the worker imports; called with `kwargs`, returns an `Env`.
        kwargs: JSON values.
        python: Interpreter; another one than ours if a simulator needs other versions of packages.
        environ: Environment variables set on top of the harness's own.
        packages: Folder of each top-level package that must come from there, whatever else has its name, for example
            `{"envs": "/opt/RoboTwin/envs"}`. Within a package of ours that gets another name, imports are relative.
        cwd: Working directory; None for the harness's own. Nothing in it hides a package.
        fatal_output: Regular expressions. A line of the worker's output in which one is found ends the episode as an
            `error`; for faults of a simulator that are printed and not raised.
    """

    target: str
    kwargs: Mapping[str, Any]
    python: str = sys.executable
    environ: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    fatal_output: tuple[str, ...] = ()


class Bench(Protocol):
    """A plugin of the entry-point group `evalkit.envs`; it imports no simulator.

    The properties are class attributes in every bench: `tasks = ("Lift", "Door")`.
    """

    @property
    def name(self) -> str:
        """What `--bench` takes."""
        ...

    @property
    def summary(self) -> str:
        """One line for `evalkit list`."""
        ...

    @property
    def config_type(self) -> type[Any]:
        """Frozen dataclass of the settings, all with defaults; overridden as `bench.<name>.<field>=value`."""
        ...

    @property
    def tasks(self) -> Sequence[str]:
        """Task names in report order."""
        ...

    @property
    def settings(self) -> Sequence[str]:
        """Setting names; the first is the default."""
        ...

    @property
    def protocol(self) -> str:
        """Name and version of the choices that plans make with default settings; episodes state which they follow."""
        ...

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
        """Return versions of the simulator, for plan and run record; an env states in `about` what only it knows."""
        ...


PLACE: Mapping[str, bool] = {"evalkit.place": True}
"""Metadata of a config's field that says where something lies on this machine; plans leave the field out."""


@runtime_checkable
class PacedBench(Protocol):
    """A bench whose protocol fixes how many actions of a chunk are executed; other plans depart from it."""

    def executed_steps(self, config: Any) -> int | None:
        """Return how many actions of a chunk are executed before the policy is asked again; None for any number."""
        ...


@runtime_checkable
class CountedBench(Protocol):
    """A bench whose protocol fixes how many episodes each task has; other plans depart from it."""

    def episodes_per_task(self, config: Any) -> int | None:
        """Return how many episodes of each task a plan has for one seed; None for any number."""
        ...


@runtime_checkable
class StatedBench(Protocol):
    """A bench of which a setting adds simulator state that policies may request."""

    @property
    def state_settings(self) -> Mapping[str, str]:
        """The setting that adds a state, for example `bench.robotwin.expert=true`, by the name of the state."""
        ...


@runtime_checkable
class SettledBench(Protocol):
    """A bench whose protocol may count a success only if the goal is still met after the scene has settled."""

    def success_after_steps(self, config: Any) -> int:
        """Return the control steps without action after which the goal must still be met; 0: the first success counts.

        A plan states them, and a run takes them in place of `run.settle_steps`.
        """
        ...


@runtime_checkable
class SeededBench(Protocol):
    """A bench whose protocol fixes the seeds of plans; plans with other seeds depart from it."""

    def seed_departures(self, config: Any, *, seed: int) -> list[str]:
        """Return how a plan with this seed departs from the protocol, one sentence each."""
        ...


@runtime_checkable
class VettableBench(Protocol):
    """A bench that evaluates only seeds which an expert solves; its envs are `VettingEnv`s, see `evalkit vet`."""

    def vetting_protocol(self, config: Any) -> str:
        """Return the name under which a manifest states the protocol whose seeds it holds."""
        ...

    def first_vetted_seed(self, config: Any) -> int:
        """Return the seed with which the vetting of a task begins; it goes on with the next larger ones."""
        ...

    def episodes_per_task(self, config: Any) -> int | None:
        """Return how many accepted seeds a task needs; see `CountedBench`."""
        ...

    def manifest_path(self, config: Any) -> Path:
        """Return the manifest's file, which plans read and vettings write unless another one is named."""
        ...

    def vetting_departures(self, config: Any, episodes: Sequence[Episode]) -> list[str]:
        """Return how the vetting of planned episodes departs from the protocol's, one sentence each."""
        ...

    def vetting_provenance(self, config: Any, episodes: Sequence[Episode]) -> dict[str, str]:
        """Return what identifies the vettings of planned episodes; vettings of others make no difference."""
        ...

    def read_vetted_list(self, path: Path) -> Manifest:
        """Return the vettings in a file, or a folder of files, that others publish for this bench.

        Raises:
            BadManifest: If it cannot be read, or holds something else.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One requirement that `evalkit doctor` checked.

    Attributes:
        what: Its name.
        ok: Whether it is met.
        found: The version or size that was found, or the reason why not.
        remedy: Command or page that helps if it is not met.
        needed: Whether nothing runs without it.
    """

    what: str
    ok: bool
    found: str
    remedy: str
    needed: bool = True


@runtime_checkable
class ExaminedBench(Protocol):
    """A bench that can tell which of its requirements are met on this machine."""

    def examine(self, config: Any) -> list[Finding]:
        """Return every finding."""
        ...


@runtime_checkable
class GlancedPlugin(Protocol):
    """A bench or a policy that can tell at once what it needs and whether it is here, for `evalkit list`."""

    def glance(self, config: Any) -> list[Finding]:
        """Return findings that start no process, import no framework and ask no network; weights among them."""
        ...


def find_interpreter(python: str, package: str, *, remedy: str) -> Finding:
    """Return whether an interpreter exists; of the one that runs this, also whether it has the simulator's package.

    Args:
        python: Path of the interpreter.
        package: A package of the simulator.
        remedy: What helps where it is missing.
    """
    if python == sys.executable:
        here = find_spec(package) is not None
        found = f"evalkit's own, {'with' if here else 'without'} {package}"
        return Finding(what="interpreter", ok=here, found=found, remedy=remedy)
    return Finding(what="interpreter", ok=Path(python).is_file(), found=python, remedy=remedy)
