"""The bench `robotwin`: which episodes exist, what their envs give, how to start one; imports no simulator.

In: a config, a task, a setting. Out: episodes of a manifest, env specs, launches, what RoboTwin needs on this machine.
Read next: `protocols.py` and `tasks.py`, what is planned; `env.py`, the env that a launch starts in RoboTwin's own
interpreter; `install.py`, what that interpreter and the checkout hold.

RoboTwin's own top-level package is called `envs`. Its worker loads this folder's parent as `evalkit_envs`, so imports
within it are relative.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.contracts.env import PLACE, Finding, WorkerLaunch, find_interpreter
from evalkit.contracts.errors import BadConfig, UnknownName
from evalkit.contracts.limits import check_choice
from evalkit.contracts.manifest import Manifest, default_path
from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import Episode

from . import doctor, episodes, install
from .checkout import Checkout
from .install import PAGE
from .instructions import SPLITS, Split
from .planners import PLANNERS
from .protocols import FIRST_SEED, PLANNER, PROTOCOLS, RENDERER, Protocol, marked
from .rendering import DECIMATE, RENDERERS
from .source import Source, recognise
from .tasks import EXPERT_KEY, SETTINGS, STEP_LIMITS, env_spec

ROOT_VARIABLE, PYTHON_VARIABLE = "EVALKIT_ROBOTWIN_ROOT", "EVALKIT_ROBOTWIN_PYTHON"
"""Environment variables with RoboTwin's checkout and the interpreter that has its packages."""


@dataclass(frozen=True, kw_only=True)
class RobotwinConfig:
    """Settings of the bench.

    Attributes:
        protocol: `xwam`, `qpos` or `head`, see docs/robotwin.md.
        root: Folder of RoboTwin's checkout; None for EVALKIT_ROBOTWIN_ROOT.
        python: Interpreter that has RoboTwin's packages; None for EVALKIT_ROBOTWIN_PYTHON, or else the one that runs
            evalkit.
        manifest: File with the vetted episodes; None for results/manifests/robotwin.json, or
            robotwin-head.json there for the protocol `head`.
        planner: `curobo`, which needs CUDA; or `mplib` or `cpu`, with which no number is a RoboTwin score.
        renderer: `rt`, ray tracing; or `raster`, with which no number is a RoboTwin score.
        shadows: `on` or `off`.
        decimate: `none`; or `background` to hide the robot's rear arms, wheels and castors, which no camera sees.
        instructions: `seen` or `unseen`; None for the protocol's.
        expert: Whether the env runs the scripted expert first and publishes its motion to policies that request it.
    """

    protocol: str = "xwam"
    root: str | None = field(default=None, metadata=PLACE)
    python: str | None = field(default=None, metadata=PLACE)
    manifest: str | None = field(default=None, metadata=PLACE)
    planner: str = PLANNER
    renderer: str = RENDERER
    shadows: str = "on"
    decimate: str = "none"
    instructions: str | None = None
    expert: bool = False

    def __post_init__(self) -> None:
        """Raise BadConfig for settings with which no env can be built."""
        check_choice("bench.robotwin.protocol", self.protocol, tuple(PROTOCOLS))
        check_choice("bench.robotwin.planner", self.planner, PLANNERS)
        check_choice("bench.robotwin.renderer", self.renderer, RENDERERS)
        check_choice("bench.robotwin.shadows", self.shadows, ("on", "off"))
        check_choice("bench.robotwin.decimate", self.decimate, DECIMATE)
        if self.instructions is not None:
            check_choice("bench.robotwin.instructions", self.instructions, SPLITS)


class RobotwinBench:
    """The 50 two-arm tasks of RoboTwin 2.0 with aloha-agilex arms; satisfies `contracts.env.VettableBench`."""

    name = "robotwin"
    summary = "RoboTwin 2.0, 50 two-arm tasks; needs a checkout and an interpreter of its own (docs/robotwin.md)"
    config_type = RobotwinConfig
    tasks = tuple(STEP_LIMITS)
    settings = tuple(SETTINGS)
    protocol = PROTOCOLS[RobotwinConfig.protocol].name
    state_settings: Mapping[str, str] = {EXPERT_KEY: "bench.robotwin.expert=true"}
    episode_reader = "envs.robotwin.hdf5:RobotwinEpisodes"

    def plan_episodes(
        self, config: RobotwinConfig, *, task: str, setting: str, num_episodes: int, seed: int
    ) -> list[Episode]:
        """Return the first episodes of one task in the manifest, with their sentences.

        Raises:
            UnknownName: For a task or setting that does not exist.
            BadManifest: Without a manifest, or if it has fewer episodes or is of another protocol.
        """
        self._check_names(task, setting)
        protocol, split = _protocol(config), _split(config, setting)
        name = marked(
            protocol.name,
            planner=config.planner,
            renderer=config.renderer,
            shadows=config.shadows,
            decimate=config.decimate,
            instructions=None if split == protocol.instructions[setting] else split,
            expert=config.expert,
            sapien=install.sapien_version(python(config)),
        )
        path = self.manifest_path(config)
        manifest = episodes.load(path, protocol)
        chosen = episodes.choose(manifest, path, setting=setting, task=task, split=split, count=num_episodes)
        return [
            Episode(
                bench=self.name,
                setting=setting,
                protocol=name,
                task=task,
                index=index,
                seed=vetting.seed,
                instruction=vetting.instructions[split],
                max_steps=STEP_LIMITS[task],
                noise_key=protocol.noise_key(seed=seed, index=index),
                first_state_sha256=vetting.first_state_sha256,
            )
            for index, vetting in enumerate(chosen)
        ]

    def env_spec(self, config: RobotwinConfig, *, task: str, setting: str) -> EnvSpec:
        """Return what the env of this task will give; the wrist cameras' poses come from the arms' files.

        Raises:
            UnknownName: For a task or setting that does not exist.
            EvalkitError: Without a checkout of the protocol's commit.
        """
        self._check_names(task, setting)
        return env_spec(
            task,
            layout=_protocol(config).action_layout,
            T_ee_cams=Checkout.at(_root(config)).wrist_cameras(setting),
            expert=config.expert,
        )

    def launch(self, config: RobotwinConfig, *, task: str, setting: str) -> WorkerLaunch:
        """Return how to start a worker for this task: in RoboTwin's folder, whose `envs` keeps its name.

        Raises as `env_spec` does.
        """
        self._check_names(task, setting)
        root = _root(config)
        return WorkerLaunch(
            target="evalkit_envs.robotwin.env:RobotwinEnv",
            kwargs={
                "task": task,
                "setting": setting,
                "root": str(root),
                "layout": _protocol(config).action_layout,
                "planner": config.planner,
                "renderer": config.renderer,
                "shadows": config.shadows == "on",
                "decimate": config.decimate,
                "expert": config.expert,
                "split": _split(config, setting),
            },
            python=python(config),
            environ=install.WORKER_ENVIRON,
            packages={"envs": str(root / "envs"), "evalkit_envs": str(Path(__file__).parents[1])},
            cwd=str(root),
            fatal_output=install.DENOISER_ERRORS if config.renderer == RENDERER else (),
        )

    def dataset_axes(self) -> Any:
        """Return how RoboTwin's world and end effectors lie in the frames of the released data sets."""
        from evalkit.dataset.axes import ROBOTWIN_AXES  # imports scipy, which evaluation does without

        return ROBOTWIN_AXES

    def executed_steps(self, config: RobotwinConfig) -> int | None:
        """Return how many actions of a chunk the protocol executes."""
        return _protocol(config).execute_steps

    def episodes_per_task(self, config: RobotwinConfig) -> int | None:
        """Return how many episodes of each task the protocol has."""
        return _protocol(config).episodes_per_task

    def success_after_steps(self, config: RobotwinConfig) -> int:
        """Return 0: the first success counts, and whether it still holds after settling is recorded next to it."""
        return _protocol(config).success_after_steps

    def seed_departures(self, config: RobotwinConfig, *, seed: int) -> list[str]:
        """Return the departure of a seed that no published evaluation has; scenes come from the manifest."""
        if seed == 0:
            return []
        noise = "the same scenes with another noise" if _protocol(config).fixes_noise else "the same scenes"
        return [f"--seed {seed} instead of 0: {noise}; scenes come from the manifest."]

    def vetting_protocol(self, config: RobotwinConfig) -> str:
        """Return the name of the seeds in a manifest; protocols of one commit share them."""
        return _protocol(config).seeds

    def first_vetted_seed(self, config: RobotwinConfig) -> int:
        """Return the first seed that RoboTwin's evaluation tries."""
        return FIRST_SEED

    def departures(self, config: RobotwinConfig) -> list[str]:
        """Return one sentence for each setting or version that differs from the protocol."""
        return [
            *_setting_departures(config),
            *install.source_departures(_source(config)),
            *install.departures(python(config)),
        ]

    def provenance(self, config: RobotwinConfig) -> dict[str, str]:
        """Return commit and versions; the env processes state hashes of the assets that they use."""
        return {"robotwin": _source(config).text, **install.look(python(config))}

    def manifest_path(self, config: RobotwinConfig) -> Path:
        """Return the file of the vetted episodes: the one that is named, or the default one of the protocol's seeds."""
        return Path(config.manifest) if config.manifest else default_path(_protocol(config).manifest)

    def vetting_departures(self, config: RobotwinConfig, planned: Sequence[Episode]) -> list[str]:
        """Return how the vetting of planned episodes departs from the protocol's, one sentence each."""
        return episodes.departures(self._vetted(config, planned), _protocol(config))

    def vetting_provenance(self, config: RobotwinConfig, planned: Sequence[Episode]) -> dict[str, str]:
        """Return the hash of the planned episodes' vettings, and who vetted them."""
        vetted = self._vetted(config, planned)
        return {"manifest": f"{vetted.sha256[:16]}, {episodes.vetted_by(vetted)}"}

    def glance(self, config: RobotwinConfig) -> list[Finding]:
        """Return whether a checkout and an interpreter are named and exist; `examine` checks them."""
        root = named_root(config)
        checkout = Finding(
            what="checkout",
            ok=root is not None and root.is_dir(),
            found="none is named" if root is None else str(root),
            remedy=f"set {ROOT_VARIABLE} (docs/robotwin.md)",
        )
        interpreter = find_interpreter(python(config), "sapien", remedy=f"set {PYTHON_VARIABLE} (docs/robotwin.md)")
        return [checkout, interpreter]

    def examine(self, config: RobotwinConfig) -> list[Finding]:
        """Return what RoboTwin needs and whether it is there."""
        request = doctor.Request(
            root=named_root(config),
            python=python(config),
            protocol=_protocol(config),
            planner=config.planner,
            renderer=config.renderer,
            manifest=self.manifest_path(config),
        )
        findings = doctor.examine(request)
        if config.decimate != "none" and all(finding.ok or not finding.needed for finding in findings):
            findings.append(self._hiding(config))
        return findings

    def _hiding(self, config: RobotwinConfig) -> Finding:
        """Return what `decimate` hides and changes, in a scene of a task without assets of its own."""
        launch = self.launch(config, task="stack_blocks_two", setting="clean")
        return doctor.hiding(launch, self.env_spec(config, task="stack_blocks_two", setting="clean"))

    def read_vetted_list(self, path: Path) -> Manifest:
        """Return the vettings in a list that others publish for RoboTwin."""
        from .vetted_lists import read_vetted_list

        return read_vetted_list(path)

    def _vetted(self, config: RobotwinConfig, planned: Sequence[Episode]) -> Manifest:
        """Return the vettings of planned episodes, without those of others in the file."""
        return episodes.select(episodes.load(self.manifest_path(config), _protocol(config)), planned)

    def _check_names(self, task: str, setting: str) -> None:
        if task not in STEP_LIMITS:
            raise UnknownName("task", task, STEP_LIMITS, see="evalkit list --bench robotwin")
        if setting not in SETTINGS:
            raise UnknownName("setting", setting, SETTINGS, see="evalkit list --bench robotwin")


def python(config: RobotwinConfig) -> str:
    """Return the interpreter that has RoboTwin's packages."""
    return config.python or os.environ.get(PYTHON_VARIABLE, "") or sys.executable


def named_root(config: RobotwinConfig) -> Path | None:
    """Return the folder that setting or environment name as RoboTwin's; it may not be there."""
    named = config.root or os.environ.get(ROOT_VARIABLE, "")
    return Path(named).expanduser().absolute() if named else None


def _root(config: RobotwinConfig) -> Path:
    """Return the root of a checkout that the protocol can run on.

    Raises:
        BadConfig: If none is named, the named folder holds none, or it holds another commit.
    """
    root, protocol = named_root(config), _protocol(config)
    if root is None:
        raise BadConfig(
            f"RoboTwin is not here: clone it, check out {protocol.commit.short}, install its packages and assets "
            f"({PAGE}), export {ROOT_VARIABLE}=<its folder> and {PYTHON_VARIABLE}=<its python>, and run this again; "
            "`evalkit doctor robotwin` says what is missing."
        )
    install.check_root(root, protocol)
    return root


def _source(config: RobotwinConfig) -> Source:
    return recognise(_root(config))


def _protocol(config: RobotwinConfig) -> Protocol:
    return PROTOCOLS[config.protocol]


def _split(config: RobotwinConfig, setting: str) -> Split:
    """Return which of an episode's two sentences the policy is given."""
    chosen: Split = config.instructions or _protocol(config).instructions[setting]  # type: ignore[assignment]
    return chosen


def _setting_departures(config: RobotwinConfig) -> list[str]:
    """Return one sentence for each setting of the bench that is not the protocol's."""
    sentences = []
    if config.planner != PLANNER:
        sentences.append(
            f"The planner is {config.planner} instead of {PLANNER}: it moves the arms, so this is no RoboTwin score."
        )
    if config.renderer != RENDERER:
        sentences.append("Images are rasterised instead of ray-traced, so this is no RoboTwin score.")
    if config.shadows == "off":
        sentences.append("Shadows are off.")
    if config.decimate != "none":
        sentences.append(
            "Parts of the robot that no camera sees are hidden (rear arms, wheels, castors); collision is untouched."
        )
    protocol = _protocol(config)
    other = [name for name, split in protocol.instructions.items() if config.instructions not in (None, split)]
    if other:
        sentences.append(
            f"Instructions are '{config.instructions}' instead of '{protocol.instructions[other[0]]}' "
            f"({', '.join(other)})."
        )
    if config.expert:
        sentences.append("The env runs the scripted expert first and publishes its motion.")
    return sentences
