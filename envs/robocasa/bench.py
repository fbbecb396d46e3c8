"""The bench `robocasa`: which episodes exist, what their envs give, how to start one; imports no simulator.

In: a config, a task, a seed. Out: planned episodes, env specs, launches, what RoboCasa needs on this machine.
Read next: `protocols.py` and `tasks.py`, what is planned; `env.py`, the env that a launch starts in RoboCasa's own
interpreter; `install.py`, what that interpreter holds.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from envs.mujoco.views import choose_gl
from envs.robocasa import install
from envs.robocasa.protocols import COSMOS_NOTE, FIRST_DEMONSTRATION_SEED, NUM_TASKS, PROTOCOLS, Protocol
from envs.robocasa.tasks import TASKS, env_spec
from evalkit.contracts.env import Finding, WorkerLaunch, find_interpreter
from evalkit.contracts.errors import BadConfig, UnknownName
from evalkit.contracts.limits import ANTIALIAS_SAMPLES, IMAGE_PX, check_choice, check_range
from evalkit.contracts.recording import Replay
from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import Episode

PYTHON_VARIABLE = "EVALKIT_ROBOCASA_PYTHON"
"""Environment variable with the interpreter that has RoboCasa; better than the setting, which goes into the plan."""

PLACEHOLDER_MARK = "+placeholder-art"
"""Ends the protocol's name, and so stands in plans, run folders, records, reports and comparisons."""

MAX_SEED = 2**32


@dataclass(frozen=True, kw_only=True)
class RobocasaConfig:
    """Settings of the bench.

    Attributes:
        protocol: `standard`, `xwam` or `cosmos`, see docs/robocasa.md.
        art: `real`; or `placeholder` for stand-ins of textures and meshes, which only tests that a policy runs.
        python: Interpreter that has RoboCasa; None for EVALKIT_ROBOCASA_PYTHON, or else the one that runs evalkit.
        image_px: Height and width of every view, 16 to 2048; None for the protocol's.
        antialias_samples: Samples per pixel: 0, 2, 4, 8 or 16; RoboCasa renders with 4.
        gl: Offscreen renderer: `egl`, `osmesa`, or `auto` for MUJOCO_GL or else the first that is installed.
    """

    protocol: str = "standard"
    art: str = "real"
    python: str | None = None
    image_px: int | None = None
    antialias_samples: int = 4
    gl: str = "auto"

    def __post_init__(self) -> None:
        """Raise BadConfig for settings with which no env can be built."""
        check_choice("bench.robocasa.protocol", self.protocol, tuple(PROTOCOLS))
        check_choice("bench.robocasa.art", self.art, ("real", "placeholder"))
        check_choice("bench.robocasa.gl", self.gl, ("auto", "egl", "osmesa"))
        check_choice("bench.robocasa.antialias_samples", self.antialias_samples, ANTIALIAS_SAMPLES)
        if self.image_px is not None:
            check_range("bench.robocasa.image_px", self.image_px, *IMAGE_PX, unit="pixels")


class RobocasaBench:
    """The 24 atomic tasks of RoboCasa v0.2 with a PandaOmron; satisfies `contracts.recording.RecordableBench`."""

    name = "robocasa"
    summary = "RoboCasa v0.2, 24 kitchen tasks; needs an interpreter of its own (docs/robocasa.md)"
    config_type = RobocasaConfig
    tasks = tuple(TASKS)
    settings = ("default",)
    protocol = PROTOCOLS[RobocasaConfig.protocol].name
    episodes_per_process = 4  # an episode takes half a minute
    must_choose = ("art",)
    replay = Replay(
        target="envs.robocasa.replay:RobocasaReplay",
        robots=("PandaOmron", "PandaMobile"),
        gripper="PandaGripper",
        version="1.5",
    )

    def plan_episodes(
        self, config: RobocasaConfig, *, task: str, setting: str, num_episodes: int, seed: int
    ) -> list[Episode]:
        """Return the episodes of one task; their instructions are known after reset.

        Raises:
            UnknownName: For a task or setting that does not exist.
            BadConfig: For a seed that the protocol does not have.
        """
        self._check_names(task, setting)
        if not 0 <= seed < MAX_SEED:
            raise BadConfig(f"Episodes of 'robocasa' need a seed from 0 to {MAX_SEED - 1}, got {seed}.")
        protocol, task_idx = _protocol(config), self.tasks.index(task)
        return [
            Episode(
                bench=self.name,
                setting=setting,
                protocol=_protocol_name(config),
                task=task,
                index=index,
                seed=protocol.episode_seed(task_idx=task_idx, seed=seed, index=index, num_episodes=num_episodes),
                instruction=None,
                max_steps=TASKS[task].max_steps,
                noise_key=protocol.noise_key(task_idx=task_idx, seed=seed, index=index),
            )
            for index in range(num_episodes)
        ]

    def env_spec(self, config: RobocasaConfig, *, task: str, setting: str) -> EnvSpec:
        """Return what the env of this task will give."""
        self._check_names(task, setting)
        return env_spec(task, image_hw_px=_image_hw_px(config))

    def launch(self, config: RobocasaConfig, *, task: str, setting: str) -> WorkerLaunch:
        """Return how to start a worker for this task."""
        self._check_names(task, setting)
        return WorkerLaunch(
            target="envs.robocasa.env:RobocasaEnv",
            kwargs={
                "task": task,
                "protocol": config.protocol,
                "art": config.art,
                "image_hw_px": list(_image_hw_px(config)),
                "antialias_samples": config.antialias_samples,
            },
            python=python(config),
            environ={"MUJOCO_GL": _gl(config)},
        )

    def executed_steps(self, config: RobocasaConfig) -> int | None:
        """Return how many actions of a chunk the protocol executes."""
        return _protocol(config).execute_steps

    def episodes_per_task(self, config: RobocasaConfig) -> int | None:
        """Return how many episodes of each task the protocol has for one seed."""
        return _protocol(config).episodes_per_task

    def seed_departures(self, config: RobocasaConfig, *, seed: int) -> list[str]:
        """Return the departure of a seed whose episodes the published evaluation does not run."""
        if config.protocol != "xwam" or seed == 0:
            return []
        return [f"--seed {seed} instead of 0: episodes of ranks that the release does not launch (it has 0 to 23)."]

    def departures(self, config: RobocasaConfig) -> list[str]:
        """Return one sentence for each setting or version that changes what policies meet, see or do."""
        protocol, size = _protocol(config), _image_hw_px(config)
        sentences = install.departures(python(config), protocol)
        if config.art == "placeholder":
            sentences.append(
                "Placeholder art: flat colours and primitive shapes stand in for RoboCasa's textures and meshes, so "
                "this is no RoboCasa score."
            )
        if size != protocol.image_hw_px:
            ours, theirs = (f"{height}x{width}" for height, width in (size, protocol.image_hw_px))
            sentences.append(f"Images have {ours} pixels instead of {theirs}.")
        if config.antialias_samples != RobocasaConfig.antialias_samples:
            sentences.append(
                f"Pixels take {config.antialias_samples} samples instead of {RobocasaConfig.antialias_samples}."
            )
        return sentences

    def provenance(self, config: RobocasaConfig) -> dict[str, str]:
        """Return what RoboCasa's interpreter holds: versions, the source's hash, which art."""
        found = install.look(python(config))
        art = "placeholder" if config.art == "placeholder" else found.pop("art")
        note = {"scenes": COSMOS_NOTE} if config.protocol == "cosmos" else {}
        return found | {"art": art} | note

    def glance(self, config: RobocasaConfig) -> list[Finding]:
        """Return whether an interpreter is named for RoboCasa and exists; `examine` checks what it holds."""
        return [find_interpreter(python(config), "robocasa", remedy=f"set {PYTHON_VARIABLE} (docs/robocasa.md)")]

    def examine(self, config: RobocasaConfig) -> list[Finding]:
        """Return what RoboCasa needs and whether it is there."""
        return install.examine(
            python(config),
            protocol=config.protocol,
            art=config.art,
            gl=_gl(config),
            python_variable=PYTHON_VARIABLE,
        )

    def is_published_seed(self, seed: int) -> bool:
        """Return whether `xwam` or `cosmos` evaluates on a seed; see `protocols.py`."""
        return seed < FIRST_DEMONSTRATION_SEED or seed % 256 == 0

    def possible_tasks(self, config: RobocasaConfig, *, task: str) -> None:
        """Return that it is unknown: a kitchen allows many tasks."""
        return None

    def dataset_axes(self) -> Any:
        """Return how the end effector's axes lie in those of the released data sets."""
        from evalkit.dataset.axes import ROBOCASA_AXES  # imports scipy, which evaluation does without

        return ROBOCASA_AXES

    def _check_names(self, task: str, setting: str) -> None:
        if task not in TASKS:
            raise UnknownName("task", task, TASKS, see="evalkit list --bench robocasa")
        if setting not in self.settings:
            raise UnknownName("setting", setting, self.settings, see="evalkit list --bench robocasa")


def python(config: RobocasaConfig) -> str:
    """Return the interpreter that has RoboCasa."""
    return config.python or os.environ.get(PYTHON_VARIABLE, "") or sys.executable


def _protocol(config: RobocasaConfig) -> Protocol:
    return PROTOCOLS[config.protocol]


def _protocol_name(config: RobocasaConfig) -> str:
    return _protocol(config).name + (PLACEHOLDER_MARK if config.art == "placeholder" else "")


def _image_hw_px(config: RobocasaConfig) -> tuple[int, int]:
    return _protocol(config).image_hw_px if config.image_px is None else (config.image_px, config.image_px)


def _gl(config: RobocasaConfig) -> str:
    return choose_gl() if config.gl == "auto" else config.gl


assert len(TASKS) == NUM_TASKS
