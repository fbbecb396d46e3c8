"""A bench without physics, whose env fails on demand in every way that simulators do.

In: which fault, and in which episodes. Out: a bench plugin that the real harness runs in real worker processes.
Read next: `policy.py`, the policy for it; `tests/unit/test_runner.py`, which uses both.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.contracts.env import WorkerLaunch
from evalkit.contracts.errors import EvalkitError, MissingAssets
from evalkit.contracts.recording import DEMONSTRATION_SEEDS
from evalkit.contracts.spec import OSC_DELTA_BASE, CameraSpec, EnvSpec
from evalkit.contracts.types import Episode
from evalkit.dataset.axes import SAME_AXES, Axes

SIZE_PX = (16, 24)
LEAK_BYTES = 40 * 2**20
"""Memory that each episode of the fault `leak` keeps."""
CAMERAS = (
    CameraSpec(name="left", kind="static"),
    CameraSpec(name="right", kind="static"),
    CameraSpec(name="wrist", kind="wrist", arm="left", T_ee_cam=tuple(map(tuple, np.eye(4).tolist()))),
)


@dataclass(frozen=True, kw_only=True)
class FakeBenchConfig:
    """`fault` happens in the episodes whose seed is `fault_seed`, or in all if that is below 0."""

    fault: str = "none"
    fault_seed: int = 1
    step_s: float = 0.0
    max_steps: int = 20


def fake_spec(task: str) -> EnvSpec:
    return EnvSpec(
        env_id=f"fake/{task}",
        cameras=CAMERAS,
        image_hw_px=SIZE_PX,
        arms=("left",),
        action_layout=OSC_DELTA_BASE,
        control_hz=20.0,
        privileged_keys=("goal",),
    )


def planned_episodes(bench: str, protocol: str, count: int, seed: int, **rest: Any) -> list[Episode]:
    """Return episodes whose seeds count up from a hundred times the seed of the plan."""
    return [
        Episode(bench=bench, protocol=protocol, index=index, seed=100 * seed + index, **rest) for index in range(count)
    ]


class FakeBench:
    """Two tasks on a line: the goal is met when the summed x motion reaches it."""

    name = "fake"
    summary = "a double without physics"
    config_type = FakeBenchConfig
    tasks: tuple[str, ...] = ("Near", "Far")
    settings = ("default", "other")
    protocol = "fake-2/v1"

    def plan_episodes(
        self, config: FakeBenchConfig, *, task: str, setting: str, num_episodes: int, seed: int
    ) -> list[Episode]:
        rest = {"task": task, "setting": setting, "instruction": f"go {task}", "max_steps": config.max_steps}
        return planned_episodes(self.name, self.protocol, num_episodes, seed, **rest)

    def env_spec(self, config: FakeBenchConfig, *, task: str, setting: str) -> EnvSpec:
        return fake_spec(task)

    def launch(self, config: FakeBenchConfig, *, task: str, setting: str) -> WorkerLaunch:
        return WorkerLaunch(
            target="tests.doubles.bench:FakeEnv",
            kwargs={"task": task, "fault": config.fault, "fault_seed": config.fault_seed, "step_s": config.step_s},
            fatal_output=(r"denoiser: .*(failed|invalid)",),
        )

    def departures(self, config: FakeBenchConfig) -> list[str]:
        return []

    def provenance(self, config: FakeBenchConfig) -> dict[str, str]:
        return {"fake": "1"}


class FakeEnv:
    """A point on a line, and the faults that simulators have."""

    def __init__(self, *, task: str, fault: str, fault_seed: int, step_s: float) -> None:
        if fault == "start_sleep":
            time.sleep(3600)
        if fault == "start_raise":
            raise ImportError("no module named 'simulator'")
        if fault == "start_lacks":
            raise EvalkitError("no CUDA device; give bench.fake.fault=none.")
        if fault == "start_kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "start_stop":
            stop_process()
        if fault == "start_no_assets" and task == "Near":
            raise MissingAssets("objects/048_stapler", advice="Download the assets.")
        self.spec = fake_spec(task) if fault != "other_spec" else fake_spec(task + "er")
        self.about = {"renderer": "none"}
        self._goal = 4.0 if task == "Near" else 12.0
        self._fault, self._fault_seed, self._step_s = fault, fault_seed, step_s
        self._leaked: list[np.ndarray] = []

    def begin(self, *, seed: int, max_steps: int) -> bool:
        self._seed, self._x, self._step, self._solved_before = seed, 0.0, 0, False
        self._steps_back = 0
        if self._now("begin_raise"):
            raise RuntimeError("the kitchen burns")
        if self._now("leak"):
            self._leaked.append(np.ones(LEAK_BYTES, np.uint8))
        if self._now("begin_stop"):
            stop_process()
        if self._now("no_assets"):
            raise MissingAssets("textures/7.png", advice="Download the assets.")
        return self._now("solved")

    @property
    def scene(self) -> dict[str, Any]:
        return {"goal_m": self._goal} if not self._now("scene_array") else {"goal_m": np.array([self._goal])}

    def state(self) -> dict[str, np.ndarray]:
        return {"x": np.array([self._x]), "seed": np.array([self._seed])}

    def advance(self, action: np.ndarray) -> bool:
        time.sleep(self._step_s)
        self._step += 1
        self._x += float(action[0])
        self._steps_back += self._step % 4 == 0
        if self._step == 3 and self._now("sleep"):
            time.sleep(3600)
        if self._step == 3 and self._now("stop"):
            stop_process()
        if self._step == 3 and self._now("stop_child"):
            stop_child()
        if self._step == 3 and self._now("print_fatal"):
            print("[render] denoiser: OptiX failed with error 7804")
        if self._step == 3 and self._now("raise"):
            raise RuntimeError("mj_step: unstable simulation")
        if self._step == 3 and self._now("die"):
            os._exit(11)
        if self._solved_before:
            self._fail_while_settling()
        met = self._x >= self._goal + 0.01 * self._seed
        self._solved_before |= met
        return met

    def _fail_while_settling(self) -> None:
        if self._now("fall"):
            self._x = 0.0
        if self._now("settle_raise"):
            raise FloatingPointError("the cubes explode")
        if self._now("settle_die"):
            os._exit(11)

    def reward(self) -> float:
        return -abs(self._goal - self._x)

    def counters(self) -> dict[str, int]:
        return {"steps_back": self._steps_back} if not self._now("no_counts") else {"steps_back": -1}

    def observe(self, *, render: bool) -> dict[str, Any]:
        if render and self._now("no_renderer"):
            raise OSError("no OpenGL library")
        views = len(CAMERAS) if render else 0
        height, width = SIZE_PX
        if self._now("wrong_size") and self._step >= 3:
            height += 2
        rng = np.random.default_rng([self._seed, self._step])
        privileged: dict[str, Any] = {"goal": np.array([self._goal])}
        if self._now("unsendable"):
            privileged["goal"] = object()
        if self._now("no_state"):
            privileged = {}
        proprio = np.zeros(16, np.float32)
        proprio[:8] = [self._x, 0, 0, 1, 0, 0, 0, 1]
        if self._now("nan") and self._step >= 3:
            proprio[0] = np.nan
        return {
            "rgb": rng.integers(0, 256, (views, height, width, 3), dtype=np.uint8),
            "depth": rng.uniform(0.5, 2.0, (views, height, width)).astype(np.float32),
            "intrinsics": np.tile(np.array([[20.0, 0, 11.5], [0, 20.0, 7.5], [0, 0, 1]]), (views, 1, 1)),
            "T_base_cam": np.tile(np.eye(4), (views, 1, 1)),
            "proprio": proprio,
            "instruction": f"go {self.spec.env_id.partition('/')[2]}",
            "privileged": privileged,
        }

    def close(self) -> None:
        pass

    def _now(self, fault: str) -> bool:
        return self._fault == fault and self._fault_seed in (self._seed, -1)


def stop_process() -> None:
    """Stop this process as a renderer that hangs: no Python code runs any more, no signal but SIGKILL ends it.

    Once per run folder only, so that the next attempt goes on: the worker's log says so.
    """
    if "stopping\n" not in Path("/proc/self/fd/1").read_text():
        os.write(1, b"stopping\n")
        os.kill(os.getpid(), signal.SIGSTOP)


def stop_child() -> None:
    """Wait for a stopped child, once per run folder: a renderer's helper process that hangs."""
    if "stopping" not in Path("/proc/self/fd/1").read_text():
        child = subprocess.Popen(["sleep", "3600"])
        os.write(1, f"stopping child {child.pid}\n".encode())
        child.send_signal(signal.SIGSTOP)
        child.wait()


class RecordableFakeBench(FakeBench):
    """The same bench, whose episodes can be recorded; it evaluates on other seeds than those of demonstrations."""

    episodes_per_process = 2
    must_choose = ()
    replay = None

    def plan_episodes(
        self, config: FakeBenchConfig, *, task: str, setting: str, num_episodes: int, seed: int
    ) -> list[Episode]:
        planned = super().plan_episodes(config, task=task, setting=setting, num_episodes=num_episodes, seed=seed)
        return [replace(episode, seed=DEMONSTRATION_SEEDS.stop + episode.seed) for episode in planned]

    def is_published_seed(self, seed: int) -> bool:
        return False

    def possible_tasks(self, config: FakeBenchConfig, *, task: str) -> None:
        return None

    def dataset_axes(self) -> Axes:
        return SAME_AXES


class SettledFakeBench(FakeBench):
    """The same bench under a protocol that counts what still holds after some steps."""

    protocol = "fake-2/settled"

    def success_after_steps(self, config: FakeBenchConfig) -> int:
        return 25


def env_without(*, member: str, **kwargs: Any) -> Any:
    """Return the fake env without a member."""
    names = [name for name in vars(FakeEnv) if name != member and not (name.startswith("__") and name != "__init__")]
    return type("Lacking", (), {name: vars(FakeEnv)[name] for name in names})(**kwargs)
