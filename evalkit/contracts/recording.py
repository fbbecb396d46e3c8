"""The members that a bench and its envs have in addition where data sets hold their episodes.

In: recorded states, or files with images. Out: what `evalkit record` and `evalkit replay` need of a bench.
Read next: `env.py`, the members of every bench; `evalkit/record/` and `evalkit/replay/`, which use these.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from evalkit.contracts.env import Bench
from evalkit.contracts.spec import EnvSpec

REPLAY_STATE = ("ee_world_m", "base_world_m", "base_world_rotation")
"""Privileged state of a `PlayableEnv`, float64: positions of end effector and robot base in the world frame, 3 each;
rotation from the axes of the base to those of the world, 3,3."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How a bench replays recorded demonstrations, and whose.

    Attributes:
        target: `module:class` of a `PlayableEnv`; it takes the arguments of the bench's env and a demonstration's
            `model_file` and `ep_meta`.
        robots: Names of the bench's robot, as files state it.
        gripper: Name of its gripper.
        version: Series of robosuite that wrote the model files, for example `1.5`.
    """

    target: str
    robots: tuple[str, ...]
    gripper: str
    version: str


class PlayableEnv(Protocol):
    """An env of one recorded demonstration: it is put into recorded states and executes no actions.

    It begins, observes and closes as an `Env` does; its privileged state is `REPLAY_STATE`. A ValueError means that the
    demonstration cannot be replayed anywhere; any other error, that this machine lacks something.
    """

    spec: EnvSpec
    about: Mapping[str, str]

    def begin(self, *, seed: int, max_steps: int) -> bool:
        """Build the demonstration's model; return False.

        Raises:
            ValueError: If the model is not one of the env's task and robot.
        """
        ...

    def play(self, state: np.ndarray) -> None:
        """Put the simulation into a recorded state.

        Args:
            state: X float64, as the simulator's model lays it out.

        Raises:
            ValueError: If the state does not fit the model.
        """
        ...

    def observe(self, *, render: bool) -> dict[str, Any]:
        """Return the fields of an `Observation`, as `Env.observe` does."""
        ...

    def close(self) -> None:
        """Free the simulator; calling it twice is fine."""
        ...


DEMONSTRATION_SEEDS = range(1_000_000)
"""Env seeds for demonstrations and training; evaluations take larger ones, except under published protocols."""


@runtime_checkable
class DataSetBench(Protocol):
    """A bench whose episodes are in data sets."""

    def dataset_axes(self) -> Any:
        """Return the `evalkit.dataset.axes.Axes` between the bench's frames and those of the released data sets."""
        ...


@runtime_checkable
class ImportableBench(DataSetBench, Protocol):
    """A bench whose simulator records episodes with images, so that `evalkit replay` imports them without it."""

    @property
    def episode_reader(self) -> str:
        """`module:class` of an `evalkit.dataset.recorded.EpisodeReader`; built without arguments."""
        ...


@runtime_checkable
class RecordableBench(Bench, DataSetBench, Protocol):
    """A bench whose episodes `evalkit record` and `evalkit replay` can write as a data set.

    It must be picklable, because their worker processes are given the bench with its settings.
    """

    @property
    def episodes_per_process(self) -> int:
        """Episodes that one process records before a fresh one takes over."""
        ...

    @property
    def must_choose(self) -> Sequence[str]:
        """Settings that the user must give, because a data set is of no use without knowing them."""
        ...

    @property
    def replay(self) -> Replay | None:
        """How recorded demonstrations are replayed; None if the bench cannot replay states."""
        ...

    def is_published_seed(self, seed: int) -> bool:
        """Return whether a published protocol evaluates on one of `DEMONSTRATION_SEEDS`, so that none is recorded."""
        ...

    def possible_tasks(self, config: Any, *, task: str) -> Collection[str] | None:
        """Return the tasks that can be done in the scene of a task, itself among them; None where this is unknown.

        Raises:
            BadConfig: If the tasks do not have their own instructions under this config.
        """
        ...
