"""The bench `robosuite`: which episodes exist, what their envs give, how to start one; imports no simulator.

In: a config, a task, a setting, a seed. Out: planned episodes, env specs, launches.
Read next: `tasks.py` for the tasks, `env.py` for the env that a launch starts.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from envs.mujoco.render_probe import find_renderers
from envs.mujoco.views import choose_gl
from envs.robosuite.tasks import TASKS, env_spec
from evalkit.contracts.env import Finding, WorkerLaunch
from evalkit.contracts.errors import BadConfig, UnknownName
from evalkit.contracts.limits import ANTIALIAS_SAMPLES, IMAGE_PX, check_choice, check_range
from evalkit.contracts.recording import DEMONSTRATION_SEEDS, Replay
from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import Episode

SETTINGS = ("default", "wide", "randomized")

NUM_SEEDS = len(DEMONSTRATION_SEEDS)
"""Seeds of one block: the first is for demonstrations, and each plan's seed has a block of its own after it."""

ALSO_POSSIBLE = {"Stack": frozenset({"Lift"})}
"""Other tasks that can be done in a task's scene: Stack's holds a cube to lift."""

MAX_SEED = 2**32
"""Plans take a seed below this."""


@dataclass(frozen=True, kw_only=True)
class RobosuiteConfig:
    """Settings of the bench.

    Attributes:
        image_hw_px: Height and width of every view, each from 16 to 2048 pixels.
        antialias_samples: Samples per pixel: 0, 2, 4, 8 or 16; 0 is the protocol's and the fastest.
        mesh_cell_mm: Grid on which heavy visual meshes are thinned out before rendering; 0 keeps them whole.
        shuffle_instructions: Give each task the instruction of another one, to test whether a policy uses it.
        gl: Offscreen renderer: `egl`, `osmesa`, or `auto` for MUJOCO_GL or else the first that is installed.
    """

    image_hw_px: tuple[int, int] = (128, 128)
    antialias_samples: int = 0
    mesh_cell_mm: float = 8.0
    shuffle_instructions: bool = False
    gl: str = "auto"

    def __post_init__(self) -> None:
        """Raise BadConfig for settings with which no env can be built."""
        sizes = tuple(self.image_hw_px)
        if len(sizes) != 2:
            raise BadConfig(f"bench.robosuite.image_hw_px must be height and width, got {list(sizes)}.")
        for size in sizes:
            check_range("bench.robosuite.image_hw_px", size, *IMAGE_PX, unit="pixels each way")
        check_choice("bench.robosuite.antialias_samples", self.antialias_samples, ANTIALIAS_SAMPLES)
        check_range("bench.robosuite.mesh_cell_mm", self.mesh_cell_mm, 0, 1000, unit="mm")
        check_choice("bench.robosuite.gl", self.gl, ("auto", "egl", "osmesa"))


def evaluation_seed(seed: int, index: int) -> int:
    """Return the env seed of one episode; it depends on neither the task nor the number of episodes.

    Example:
        >>> evaluation_seed(0, 3), evaluation_seed(7, 3)
        (1000003, 8000003)
    """
    return NUM_SEEDS * (seed + 1) + index


class RobosuiteBench:
    """Seven robosuite tasks with a Panda or two; satisfies `evalkit.contracts.recording.RecordableBench`."""

    name = "robosuite"
    summary = "Seven robosuite tasks (MuJoCo), rendered in software; the embedded default"
    config_type = RobosuiteConfig
    tasks = tuple(TASKS)
    settings = SETTINGS
    protocol = "robosuite-7/standard-v2"
    episodes_per_process = 20
    must_choose: tuple[str, ...] = ()
    replay = Replay(
        target="envs.robosuite.replay:RobosuiteReplay", robots=("Panda",), gripper="PandaGripper", version="1.5"
    )

    def plan_episodes(
        self, config: RobosuiteConfig, *, task: str, setting: str, num_episodes: int, seed: int
    ) -> list[Episode]:
        """Return the episodes of one task.

        Raises:
            UnknownName: For a task or setting that does not exist.
            BadConfig: For a seed or count that would run into other seeds.
        """
        _check_names(task, setting)
        if not 0 <= seed < MAX_SEED or not 0 <= num_episodes <= NUM_SEEDS:
            raise BadConfig(
                f"Episodes of 'robosuite' need a seed from 0 to {MAX_SEED - 1} and at most "
                f"{NUM_SEEDS} episodes a task, got seed {seed} and {num_episodes} episodes."
            )
        return [
            Episode(
                bench=self.name,
                setting=setting,
                protocol=self.protocol,
                task=task,
                index=index,
                seed=evaluation_seed(seed, index),
                instruction=_instruction(config, task),
                max_steps=TASKS[task].max_steps,
            )
            for index in range(num_episodes)
        ]

    def env_spec(self, config: RobosuiteConfig, *, task: str, setting: str) -> EnvSpec:
        """Return what the env of this task will give."""
        _check_names(task, setting)
        return env_spec(task, image_hw_px=_image_hw_px(config))

    def launch(self, config: RobosuiteConfig, *, task: str, setting: str) -> WorkerLaunch:
        """Return how to start a worker for this task."""
        _check_names(task, setting)
        return WorkerLaunch(
            target="envs.robosuite.env:RobosuiteEnv",
            kwargs={
                "task": task,
                "setting": setting,
                "image_hw_px": list(_image_hw_px(config)),
                "antialias_samples": config.antialias_samples,
                "mesh_cell_m": config.mesh_cell_mm / 1000,
                "instruction": _instruction(config, task),
            },
            environ={"MUJOCO_GL": choose_gl() if config.gl == "auto" else config.gl},
        )

    def departures(self, config: RobosuiteConfig) -> list[str]:
        """Return one sentence for each setting that changes what policies see."""
        standard = RobosuiteConfig()
        sentences = []
        size, standard_size = _image_hw_px(config), standard.image_hw_px
        if size != standard_size:
            sentences.append(
                f"Images have {size[0]}x{size[1]} pixels instead of {standard_size[0]}x{standard_size[1]}."
            )
        if config.antialias_samples != standard.antialias_samples:
            sentences.append(f"Pixels take {config.antialias_samples} samples instead of {standard.antialias_samples}.")
        if config.mesh_cell_mm != standard.mesh_cell_mm:
            sentences.append(
                f"Visual meshes are thinned to {config.mesh_cell_mm} mm instead of {standard.mesh_cell_mm} mm."
            )
        if config.shuffle_instructions:
            sentences.append("Each task has the instruction of another one.")
        return sentences

    def provenance(self, config: RobosuiteConfig) -> dict[str, str]:
        """Return the versions that decide physics and images; robosuite's wheel holds its assets."""
        return {package: metadata.version(package) for package in ("robosuite", "mujoco")}

    def glance(self, config: RobosuiteConfig) -> list[Finding]:
        """Return whether robosuite and MuJoCo are installed."""
        return [*map(_package, ("mujoco", "robosuite"))]

    def examine(self, config: RobosuiteConfig) -> list[Finding]:
        """Return whether robosuite, MuJoCo and a renderer are there."""
        return [*map(_package, ("mujoco", "robosuite")), *find_renderers(sys.executable)]

    def is_published_seed(self, seed: int) -> bool:
        """Return False: every evaluation uses seeds above those of demonstrations."""
        return False

    def possible_tasks(self, config: RobosuiteConfig, *, task: str) -> frozenset[str]:
        """Return the tasks that can be done in a task's scene.

        Raises:
            BadConfig: If instructions are shuffled.
        """
        if config.shuffle_instructions:
            raise BadConfig("Refusals need each task's own instruction: leave shuffle_instructions out.")
        return ALSO_POSSIBLE.get(task, frozenset()) | {task}

    def dataset_axes(self) -> Any:
        """Return that the frames are those of the released data sets."""
        from evalkit.dataset.axes import SAME_AXES  # imports scipy, which evaluation does without

        return SAME_AXES


def _package(name: str) -> Finding:
    try:
        return Finding(what=name, ok=True, found=metadata.version(name), remedy="make setup")
    except metadata.PackageNotFoundError:
        return Finding(what=name, ok=False, found="", remedy="make setup")


def _image_hw_px(config: RobosuiteConfig) -> tuple[int, int]:
    """Return the image size as a tuple; config loaders may have made a list of it."""
    height, width = config.image_hw_px
    return height, width


def _instruction(config: RobosuiteConfig, task: str) -> str:
    """Return a task's instruction: its own, or that of the next task with as many arms if they are shuffled."""
    if config.shuffle_instructions:
        alike = [name for name, info in TASKS.items() if info.num_arms == TASKS[task].num_arms]
        task = alike[(alike.index(task) + 1) % len(alike)]
    return TASKS[task].instruction


def _check_names(task: str, setting: str) -> None:
    if task not in TASKS:
        raise UnknownName("task", task, TASKS, see="evalkit list --bench robosuite")
    if setting not in SETTINGS:
        raise UnknownName("setting", setting, SETTINGS, see="evalkit list --bench robosuite")
