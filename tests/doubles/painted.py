"""A world whose outcome of every action is known: a bright square that the end effector carries over a dark wall.

In: actions of the layout `osc_delta_base`. Out: a bench in real worker processes; policies that know, ignore or turn
round what actions do.
Read next: `tests/unit/test_score_dependence.py`, which scores the policies.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evalkit.contracts.env import WorkerLaunch
from evalkit.contracts.spec import OSC_DELTA_BASE, OSC_STEP_M, CameraSpec, EnvSpec, PolicySpec
from evalkit.contracts.types import Episode, PolicyReply, PolicyRequest, Prediction
from tests.doubles.bench import planned_episodes

DIES_AT_SEED = "PAINTED_ENV_DIES_AT_SEED"
"""Environment variable with the seed of the episode in which the env's process is killed."""

SIDE_PX, SQUARE_PX, PX_PER_M = 48, 8, 40.0
CHUNK_LEN, STRIDE = 8, 4


@dataclass(frozen=True, kw_only=True)
class PaintedConfig:
    """`drift_m`: how far episodes start from where their seed puts them, so that a replay meets another scene."""

    max_steps: int = 24
    drift_m: float = 0.0


def painted_spec(task: str) -> EnvSpec:
    return EnvSpec(
        env_id=f"painted/{task}",
        cameras=(CameraSpec(name="front", kind="static"),),
        image_hw_px=(SIDE_PX, SIDE_PX),
        arms=("left",),
        action_layout=OSC_DELTA_BASE,
        control_hz=20.0,
    )


class PaintedBench:
    """Two tasks that differ by their instruction alone; no goal is ever met."""

    name = "tests.doubles.painted:PaintedBench"
    summary = "a square on a wall"
    config_type = PaintedConfig
    tasks: tuple[str, ...] = ("Slide", "Push")
    settings = ("default",)
    protocol = "painted/v1"

    def plan_episodes(
        self, config: PaintedConfig, *, task: str, setting: str, num_episodes: int, seed: int
    ) -> list[Episode]:
        rest = {"task": task, "setting": setting, "instruction": task.lower(), "max_steps": config.max_steps}
        return planned_episodes(self.name, self.protocol, num_episodes, seed, **rest)

    def env_spec(self, config: PaintedConfig, *, task: str, setting: str) -> EnvSpec:
        return painted_spec(task)

    def launch(self, config: PaintedConfig, *, task: str, setting: str) -> WorkerLaunch:
        return WorkerLaunch(target="tests.doubles.painted:PaintedEnv", kwargs={"task": task, "drift_m": config.drift_m})

    def departures(self, config: PaintedConfig) -> list[str]:
        return []

    def provenance(self, config: PaintedConfig) -> dict[str, str]:
        return {}


class PaintedEnv:
    """The end effector moves by 0.05 m times the action; y is left, z is up."""

    def __init__(self, *, task: str, drift_m: float) -> None:
        self.spec, self.about, self._drift_m = painted_spec(task), {"renderer": "none"}, drift_m

    def begin(self, *, seed: int, max_steps: int) -> bool:
        self.seed, self.position_m = seed, np.random.default_rng(seed).uniform(-0.1, 0.1, 3)
        self.position_m[1] += self._drift_m
        return False

    def advance(self, action: np.ndarray) -> bool:
        if os.environ.get(DIES_AT_SEED) == str(self.seed):
            os.kill(os.getpid(), signal.SIGKILL)
        self.position_m = moved(self.position_m, action)
        return False

    def observe(self, *, render: bool) -> dict[str, Any]:
        rgb, depth_m, proprio = painted(self.position_m)
        return {
            "rgb": rgb[None] if render else rgb[None][:0],
            "depth": depth_m[None] if render else depth_m[None][:0],
            "intrinsics": np.tile(np.array([[40.0, 0, 23.5], [0, 40.0, 23.5], [0, 0, 1]]), (int(render), 1, 1)),
            "T_base_cam": np.tile(np.eye(4), (int(render), 1, 1)),
            "proprio": proprio,
            "instruction": self.spec.env_id.partition("/")[2].lower(),
            "privileged": {},
        }

    def close(self) -> None:
        pass


def moved(position_m: np.ndarray, action: np.ndarray) -> np.ndarray:
    return np.asarray(position_m + OSC_STEP_M * np.clip(np.asarray(action[:3], np.float64), -1, 1))


def painted(position_m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the image, the depth and the state of a position; the square lies 0.2 m before the wall."""
    centre = np.clip(np.rint(SIDE_PX / 2 - PX_PER_M * position_m[[2, 1]]), SQUARE_PX, SIDE_PX - SQUARE_PX).astype(int)
    rows, columns = (slice(at - SQUARE_PX // 2, at + SQUARE_PX // 2) for at in centre)
    rgb, depth_m = np.full((SIDE_PX, SIDE_PX, 3), 40, np.uint8), np.full((SIDE_PX, SIDE_PX), 1.0, np.float32)
    rgb[rows, columns], depth_m[rows, columns] = 200, 0.8
    proprio = np.zeros(16, np.float32)
    proprio[:8] = [*position_m, 1, 0, 0, 0, 1]
    return rgb, depth_m, proprio


@dataclass(frozen=True, kw_only=True)
class PaintedPolicyConfig:
    """`sees` is the share of a given action that the prediction follows: 1 knows, 0 ignores, -1 goes the other way."""

    sees: float = 1.0


class PaintedPolicyPlugin:
    """Acts at random by the noise seed, and predicts with the dynamics of the world."""

    name = "painter"
    summary = "knows what actions do, or not"
    config_type = PaintedPolicyConfig

    def spec(self, config: PaintedPolicyConfig) -> PolicySpec:
        return PolicySpec(
            policy_id="painter",
            action_layouts=(OSC_DELTA_BASE,),
            chunk_len=CHUNK_LEN,
            execute_steps=CHUNK_LEN,
            predicts=("rgb", "depth", "proprio"),
            num_future_frames=CHUNK_LEN // STRIDE,
            frame_stride=STRIDE,
            takes_actions=True,
        )

    def provenance(self, config: PaintedPolicyConfig) -> dict[str, str]:
        return {"sees": str(config.sees)}

    def make(self, config: PaintedPolicyConfig) -> PaintedPolicy:
        return PaintedPolicy(self.spec(config), config.sees)


class PaintedPolicy:
    def __init__(self, spec: PolicySpec, sees: float) -> None:
        self.spec, self.sees = spec, sees
        self.asked: list[PolicyRequest] = []

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        pass

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        self.asked += requests
        return [self._reply(request) for request in requests]

    def _reply(self, request: PolicyRequest) -> PolicyReply:
        actions = request.given_actions
        if actions is None:
            actions = np.zeros((CHUNK_LEN, 14), np.float32)
            actions[:, 1:3] = np.random.default_rng(request.noise_seed).uniform(-0.6, 0.6, 2)
        frames, position_m = [], request.observation.proprio[:3].astype(np.float64)
        for step, action in enumerate(actions, start=1):
            position_m = moved(position_m, self.sees * action)
            frames += [painted(position_m)] if step % STRIDE == 0 else []
        rgb, depth_m, proprio = (np.stack(values) for values in zip(*frames, strict=True))
        future = Prediction(rgb=rgb[:, None], depth=depth_m[:, None], proprio=proprio)
        count = request.num_predicted_frames
        cut = replace(future, rgb=future.rgb[:count], depth=depth_m[:count, None], proprio=proprio[:count])
        return PolicyReply(actions=actions, prediction=lambda: cut)
