"""The protocols of RoboCasa's published evaluations, as data.

In: a task's rank, a seed, an index. Out: env seeds and scenes; sizes, splits, steps; versions.
Read next: `tasks.py` for step limits, which the protocols share; `scene.py`, which builds what is chosen here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from evalkit.contracts.errors import BadConfig

NUM_TASKS = 24

SCENES = ((1, 1), (2, 2), (4, 4), (6, 9), (7, 10))
"""(layout, style) of the five kitchens that every protocol uses."""

OBJECT_SPLIT = "B"
"""Object instances that demonstrations do not show."""

COSMOS_SEEDS = (195, 196, 197)

COSMOS_NOTE = "episode 0 has one kitchen, one set of objects and one sentence under the seeds 195, 196 and 197"
"""What plans and run records say, because these three episodes are no independent scenes."""

FIRST_EVALUATION_SEED = 1_000_000
"""`standard` stays at or above it."""

FIRST_DEMONSTRATION_SEED = 100_000
"""From here to `FIRST_EVALUATION_SEED` env seeds are for demonstrations; `xwam` stays below."""

_SCENE_BITS = 3
_RUN_BITS = 5
"""The low bits of a seed of `cosmos`: its env seeds are multiples of 256, so that kitchen and run fit below them."""

MUJOCO = "3.2.6"
"""What RoboCasa v0.2 accepts, and therefore every published evaluation ran with."""


class GlobalSeed(NamedTuple):
    """The state of numpy's global generator, from which robosuite up to 1.5.1 draws the robot's first joint angles."""

    seed: int
    earlier_episodes: int
    """Episodes of one process that have drawn from it since it was seeded."""


class Start(NamedTuple):
    """The choices that decide an episode's first state."""

    env_seed: int
    scenes: tuple[tuple[int, int], ...]
    """Kitchens to draw from."""
    global_seed: GlobalSeed | None = None
    """None for one that follows from the env seed."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to run the 24 tasks.

    Attributes:
        name: As plans and reports show it.
        seeds: Rule that numbers the episodes, see `episode_seed`.
        image_hw_px: Height and width of every view.
        settle_steps: Control steps with a zero action before the policy observes for the first time.
        execute_steps: Actions of a chunk that are executed before the policy is asked again.
        base_action: The numbers of an action after arm and gripper: base 3, torso 1, mode 1. Neither moves.
        robosuite: The version that draws the protocol's scenes.
        episodes_per_task: Episodes of each task for one seed; None for any number.
        observes: `current`: state and images of the moment after the step. The others read them as robosuite leaves
            them, one physics substep (2 ms) before that moment: `controller` as the robot's controllers hold them,
            `observables` as `step` returns them, where the fingers alone are those of the moment after the step.
        may_start_solved: Whether an episode whose goal is met at the start is run, and succeeds after one step.
    """

    name: str
    seeds: Literal["standard", "xwam", "cosmos"]
    image_hw_px: tuple[int, int]
    settle_steps: int
    execute_steps: int
    base_action: tuple[float, ...]
    robosuite: str
    episodes_per_task: int | None
    observes: Literal["current", "controller", "observables"]
    may_start_solved: bool

    def episode_seed(self, *, task_idx: int, seed: int, index: int, num_episodes: int) -> int:
        """Return the seed that a plan gives to an episode; `start` makes the first state of it.

        `standard`: 1,000,000 (seed + 1) + index, for every task, however many episodes are planned.
        `xwam`: rank * num_episodes + index, as the release counts: its worker of rank r runs task r mod 24, so the
        ranks of a task are task_idx + 24 seed; the release launches those of seed 0. More episodes are other episodes.
        `cosmos`: seed * index * 256 is the env seed; kitchens change every ten episodes. Below it stand the kitchen's
        number and 8 (seed - 195): the env seed of index 0 is 0 for each seed, and only the joint noise differs.

        Raises:
            BadConfig: If the protocol has no such seed, or under `xwam` if the env seed belongs to demonstrations.

        Example:
            >>> PROTOCOLS["xwam"].episode_seed(task_idx=2, seed=0, index=3, num_episodes=100)
            203
            >>> PROTOCOLS["cosmos"].episode_seed(task_idx=2, seed=195, index=10, num_episodes=50)  # scene 1
            499201
        """
        if self.seeds == "standard":
            return FIRST_EVALUATION_SEED * (seed + 1) + index
        if self.seeds == "xwam":
            return self._rank_seed((task_idx + NUM_TASKS * seed) * num_episodes + index)
        if seed not in COSMOS_SEEDS:
            raise BadConfig(f"{self.name} runs the seeds 195, 196 and 197, 50 episodes a task each; got --seed {seed}.")
        run, scene = COSMOS_SEEDS.index(seed), (index // 10) % len(SCENES)
        return ((seed * index << _RUN_BITS) + run << _SCENE_BITS) + scene

    def _rank_seed(self, env_seed: int) -> int:
        if env_seed >= FIRST_DEMONSTRATION_SEED:
            raise BadConfig(
                f"{self.name} evaluates on env seeds below {FIRST_DEMONSTRATION_SEED:,}, because demonstrations use "
                f"those above; this plan needs {env_seed:,}. Give a smaller --seed (the release has 0) or fewer "
                "--episodes (the release has 100)."
            )
        return env_seed

    def noise_key(self, *, task_idx: int, seed: int, index: int) -> str | None:
        """Return the episode's part of the seed of a policy's noise; None where the protocol leaves it open.

        `xwam`: the release seeds each request with "rank_rollout_step".

        Example:
            >>> PROTOCOLS["xwam"].noise_key(task_idx=13, seed=1, index=3)
            '37_3'
        """
        return f"{task_idx + NUM_TASKS * seed}_{index}" if self.seeds == "xwam" else None

    def start(self, episode_seed: int) -> Start:
        """Return the choices that an episode's seed stands for.

        Raises:
            ValueError: If `episode_seed` gives no such seed.

        Example:
            >>> PROTOCOLS["cosmos"].start(499201)
            Start(env_seed=499200, scenes=((2, 2),), global_seed=GlobalSeed(seed=195, earlier_episodes=10))
        """
        if self.seeds == "cosmos":
            rest, scene = divmod(episode_seed, 1 << _SCENE_BITS)
            product, run = divmod(rest, 1 << _RUN_BITS)
            if scene >= len(SCENES) or run >= len(COSMOS_SEEDS):
                raise ValueError(f"{episode_seed} is no seed of {self.name}: it plans its own (`episode_seed`).")
            index = product // COSMOS_SEEDS[run]
            return Start(product << 8, (SCENES[scene],), GlobalSeed(COSMOS_SEEDS[run], index))
        return Start(env_seed=episode_seed, scenes=SCENES)


_XWAM = Protocol(
    name="robocasa-24/xwam",
    seeds="xwam",
    image_hw_px=(256, 256),
    settle_steps=0,
    execute_steps=32,
    base_action=(0.0, 0.0, 0.0, 0.0, 0.0),
    robosuite="1.5.2",
    episodes_per_task=100,
    observes="controller",
    may_start_solved=True,
)

PROTOCOLS: dict[str, Protocol] = {
    "standard": replace(
        _XWAM,
        name="robocasa-24/standard",
        seeds="standard",
        episodes_per_task=None,
        observes="current",
        may_start_solved=False,
    ),
    "xwam": _XWAM,
    "cosmos": Protocol(
        name="robocasa-24/cosmos",
        seeds="cosmos",
        image_hw_px=(224, 224),
        settle_steps=10,
        execute_steps=16,
        base_action=(0.0, 0.0, 0.0, 0.0, -1.0),
        robosuite="1.5.1",
        episodes_per_task=50,
        observes="observables",
        may_start_solved=True,
    ),
}
