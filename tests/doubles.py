"""Doubles: a bench without physics, and policies that fail in every way; they stand for what cannot be had on demand.

In: which fault, and when. Out: plugins that the real harness runs in real worker processes.
Read next: `tests/unit/test_runner.py`, which uses them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evalkit.contracts.env import WorkerLaunch
from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.spec import OSC_DELTA_BASE, CameraSpec, EnvSpec, PolicySpec
from evalkit.contracts.types import ACTION_DIM, Episode, PolicyReply, PolicyRequest, Prediction

SIZE_PX = (16, 24)
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


class FakeBench:
    """Two tasks on a line: the goal is met when the summed x motion reaches it."""

    name = "fake"
    summary = "a double without physics"
    config_type = FakeBenchConfig
    tasks = ("Near", "Far")
    settings = ("default", "other")
    protocol = "fake-2/v1"

    def plan_episodes(
        self, config: FakeBenchConfig, *, task: str, setting: str, num_episodes: int, seed: int
    ) -> list[Episode]:
        return [
            Episode(
                bench=self.name,
                setting=setting,
                protocol=self.protocol,
                task=task,
                index=index,
                seed=100 * seed + index,
                instruction=f"go {task}",
                max_steps=config.max_steps,
            )
            for index in range(num_episodes)
        ]

    def env_spec(self, config: FakeBenchConfig, *, task: str, setting: str) -> EnvSpec:
        return fake_spec(task)

    def launch(self, config: FakeBenchConfig, *, task: str, setting: str) -> WorkerLaunch:
        return WorkerLaunch(
            target="tests.doubles:FakeEnv",
            kwargs={"task": task, "fault": config.fault, "fault_seed": config.fault_seed, "step_s": config.step_s},
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
        self.spec = fake_spec(task) if fault != "other_spec" else fake_spec(task + "er")
        self.about = {"renderer": "none"}
        self._goal = 4.0 if task == "Near" else 12.0
        self._fault, self._fault_seed, self._step_s = fault, fault_seed, step_s

    def begin(self, *, seed: int, max_steps: int) -> bool:
        self._seed, self._x, self._step = seed, 0.0, 0
        if self._now("begin_raise"):
            raise RuntimeError("the kitchen burns")
        return self._now("solved")

    def advance(self, action: np.ndarray) -> bool:
        time.sleep(self._step_s)
        self._step += 1
        self._x += float(action[0])
        if self._step == 3 and self._now("sleep"):
            time.sleep(3600)
        if self._step == 3 and self._now("raise"):
            raise RuntimeError("mj_step: unstable simulation")
        if self._step == 3 and self._now("die"):
            os._exit(11)
        return self._x >= self._goal + 0.01 * self._seed

    def observe(self, *, render: bool) -> dict[str, Any]:
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


@dataclass(frozen=True, kw_only=True)
class FakePolicyConfig:
    """`fault` happens in every episode of seed `fault_seed`, or in all if that is below 0."""

    fault: str = "none"
    fault_seed: int = 1
    infer_s: float = 0.0


class FakePolicyPlugin:
    """A policy that goes straight and imagines noise."""

    name = "fake"
    summary = "a double that goes straight"
    config_type = FakePolicyConfig

    def spec(self, config: FakePolicyConfig) -> PolicySpec:
        return PolicySpec(
            policy_id="fake",
            action_layouts=(OSC_DELTA_BASE,),
            chunk_len=8,
            execute_steps=8,
            views=("static", "static", "wrist"),
            predicts=("rgb", "depth", "proprio"),
            num_future_frames=2,
            frame_stride=4,
        )

    def provenance(self, config: FakePolicyConfig) -> dict[str, str]:
        return {"weights": "none"}

    def make(self, config: FakePolicyConfig) -> FakePolicy:
        return FakePolicy(config, self.spec(config))


class FakePolicy:
    """Actions depend on the episode and the chunk alone."""

    def __init__(self, config: FakePolicyConfig, spec: PolicySpec) -> None:
        self.spec = spec
        self._config = config

    def reset(self, episode: Episode, env: EnvSpec) -> None:
        if self._config.fault == "refuse":
            raise EvalkitError("This policy refuses.")

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        replies = [self._reply(request) for request in requests]
        if self._config.fault == "no_reply":
            return None  # type: ignore[return-value]
        return replies

    def _reply(self, request: PolicyRequest) -> PolicyReply:
        time.sleep(self._config.infer_s)
        fault = self._config.fault if self._config.fault_seed in (request.episode.seed, -1) else "none"
        if fault == "raise":
            raise ValueError("CUDA out of memory on [/dev/nvidia0], say")
        rng = np.random.default_rng([request.episode.seed, request.chunk_idx])
        actions = np.zeros((8, ACTION_DIM), np.float32)
        actions[:, 0] = rng.uniform(0.5, 1.0, 8)
        if fault == "nan":
            actions[2, 0] = np.nan
        if fault == "wrong_shape":
            actions = actions[:, :7]
        if fault == "absent_arm":
            actions[:, 9] = 0.1
        size = SIZE_PX if fault != "wrong_prediction" else (8, 8)
        prediction = Prediction(
            rgb=rng.integers(0, 256, (2, 3, *size, 3), dtype=np.uint8),
            depth=rng.uniform(0.5, 2.0, (2, 3, *size)).astype(np.float32),
            proprio=np.zeros((2, 16), np.float32),
        )
        if fault == "no_prediction":
            return PolicyReply(actions=actions, prediction=lambda: None)  # type: ignore[arg-type,return-value]
        details = {"loss": float("nan")} if fault == "nan_details" else {"object": np.float32(1)}
        return PolicyReply(
            actions=actions,
            prediction=(lambda: prediction) if request.want_prediction else None,
            details=details if "details" in fault else {},
        )
