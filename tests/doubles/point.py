"""A robot that is one point, an expert for it, and a policy that acts in chunks.

In: nothing. Out: an env and two policies for tests of recording.
Read next: `tests/unit/test_record_demonstrate.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evalkit.contracts.spec import OSC_DELTA_BASE, CameraSpec, EnvSpec, PolicySpec
from evalkit.contracts.types import Episode, Observation, PolicyReply, PolicyRequest

GOAL_M = np.array([0.3, -0.2, 0.1])


EPISODE = Episode(
    bench="point", setting="default", protocol="point/v1", task="Go", index=0, seed=7, instruction="go", max_steps=60
)


class PointEnv:
    """A point that moves by 0.05 m times the action; met within 3 cm of the goal."""

    spec = EnvSpec(
        env_id="point/Go",
        cameras=(CameraSpec(name="z_front", kind="static"), CameraSpec(name="wrist", kind="wrist", arm="left")),
        image_hw_px=(32, 32),
        arms=("left",),
        action_layout=OSC_DELTA_BASE,
        control_hz=20.0,
        privileged_keys=("goal", "unasked"),
    )

    def __init__(self, task: str = "Go") -> None:
        self.about = {"simulator": "none"}
        self.spec = replace(self.spec, env_id=f"point/{task}")

    def begin(self, *, seed: int, max_steps: int) -> bool:
        self.position_m, self.num_steps = np.zeros(3), 0
        return False

    def advance(self, action: np.ndarray) -> bool:
        self.position_m = self.position_m + 0.05 * action[:3]
        self.num_steps += 1
        return bool(np.linalg.norm(self.position_m - GOAL_M) < 0.03)

    def observe(self, *, render: bool) -> dict[str, Any]:
        proprio = np.zeros(16, np.float32)
        proprio[:4] = [*self.position_m, 1.0]
        return {
            "rgb": np.full((2 * render, 32, 32, 3), self.num_steps, np.uint8),
            "depth": np.full((2 * render, 32, 32), 0.5, np.float32),
            "intrinsics": np.zeros((2, 3, 3)),
            "T_base_cam": np.zeros((2, 4, 4)),
            "proprio": proprio,
            "instruction": "go",
            "privileged": {"goal": GOAL_M, "unasked": GOAL_M},
        }

    def close(self) -> None:
        pass


class PointExpert:
    """Goes straight and is given no images."""

    def __init__(self) -> None:
        self.asked = 0

    def act(self, observation: Observation) -> np.ndarray:
        assert observation.rgb.shape[0] == 0
        self.asked += 1
        action = np.zeros(14, np.float32)
        action[:3] = np.clip((GOAL_M - observation.proprio[:3]) / 0.05, -1, 1)
        action[6] = 1.0
        return action


class ChunkPolicy:
    """Goes straight on for a chunk of five, three of them executed; `step_idx` is checked against the env's clock."""

    spec = PolicySpec(
        policy_id="chunks",
        action_layouts=(OSC_DELTA_BASE,),
        chunk_len=5,
        execute_steps=3,
        privileged_keys=("goal",),
    )

    def __init__(self, env: PointEnv, *, speed: float = 1.0) -> None:
        self.env, self.speed = env, speed
        self.chunks: list[tuple[int, int, int]] = []

    def reset(self, episode_id: str, env: Any) -> None:
        self.chunks = []

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        (request,) = requests
        self.chunks.append((request.chunk_idx, request.step_idx, self.env.num_steps))
        assert request.observation.rgb.shape[0] == 2
        assert set(request.observation.privileged) == {"goal"}
        actions = np.zeros((5, 14), np.float32)
        actions[:, :3] = self.speed * np.clip((GOAL_M - request.observation.proprio[:3]) / 0.15, -1, 1)
        return [PolicyReply(actions=actions)]
