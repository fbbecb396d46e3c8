"""A policy that keeps its contract, but for one fault that its settings name.

In: a fault. Out: a policy plugin for `evalkit check policy`.
Read next: `tests/unit/test_testing_policies.py`, which has a verdict for each fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from evalkit.contracts.env import Finding
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.spec import EE_POSE_BASE, OSC_DELTA_BASE, EnvSpec, PolicySpec
from evalkit.contracts.types import ACTION_DIM, GRIPPER, PolicyReply, PolicyRequest, Prediction


@dataclass(frozen=True, kw_only=True)
class FaultyConfig:
    """`fault` is one of the names in `FaultyPolicy`; `none` for a policy without one. `reads`: states of the env."""

    fault: str = "none"
    reads: tuple[str, ...] = ()


class FaultyPlugin:
    """The plugin."""

    name = "faulty"
    summary = "a double that breaks one promise"
    config_type = FaultyConfig

    def spec(self, config: FaultyConfig) -> PolicySpec:
        spec = PolicySpec(
            policy_id="faulty",
            action_layouts=(EE_POSE_BASE if config.fault == "millimetres" else OSC_DELTA_BASE,),
            chunk_len=4,
            execute_steps=4,
            image_hw_px=(128, 128) if config.fault != "any_size" else None,
            arms=("left",),
            predicts=("rgb", "depth", "proprio"),
            num_future_frames=2,
            frame_stride=2,
            takes_actions=True,
            past_frame_stride=2,
            privileged_keys=config.reads,
        )
        return replace(spec, env_ids=("nowhere/Lift",)) if config.fault == "nowhere" else spec

    def provenance(self, config: FaultyConfig) -> dict[str, str]:
        return {"weights": "none"}

    def examine(self, config: FaultyConfig) -> list[Finding]:
        return [Finding(what="weights", ok=config.fault != "absent", found="", remedy="download them")]

    def make(self, config: FaultyConfig) -> FaultyPolicy:
        if config.fault == "load":
            raise RuntimeError("size mismatch for blocks.0.weight")
        spec = self.spec(config)
        return FaultyPolicy(config.fault, replace(spec, chunk_len=8) if config.fault == "other_spec" else spec)


class FaultyPolicy:
    """Its actions depend on the seed, the chunks before and the past frames, as those of a network with a cache."""

    def __init__(self, fault: str, spec: PolicySpec) -> None:
        self.spec = spec
        self._fault = fault
        self._memory: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._last: PolicyRequest | None = None

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        if self._fault != "no_reset":
            self._memory[episode_id] = 0.0
        self._memory.setdefault(episode_id, 0.0)

    def __getattribute__(self, name: str) -> Any:
        if name in ("infer", "reset") and object.__getattribute__(self, "_fault") == f"no_{name}_method":
            raise AttributeError(f"'FaultyPolicy' object has no attribute '{name}'")
        return object.__getattribute__(self, name)

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        return [self._reply(request, len(requests)) for request in requests]

    def _reply(self, request: PolicyRequest, batch: int) -> PolicyReply:
        seen, fault = request.observation, self._fault
        before, self._last = self._last, request
        if not np.isfinite(seen.proprio).all():
            if fault == "poisoned":
                self._memory["poison"] = 0.5
            raise BadConfig("The state is not finite.")
        if fault == "any_size" and seen.rgb.shape[2] != 24:
            raise ValueError("cannot reshape array")
        seed = request.noise_seed if fault != "global_noise" else None
        noise = np.random.rand() if seed is None else np.random.default_rng(seed).random()  # noqa: NPY002
        value = 0.1 * noise + self._memory[request.episode_id] + self._memory.get("poison", 0.0)
        if request.past_rgb is not None and fault != "blind":
            value += 0.1 * float(request.past_rgb.mean()) / 255 if len(request.past_rgb) else 0.0
        value += {"batch": 0.1 * (batch - 1), "id": 0.01 * (hash(request.episode_id) % 7)}.get(fault, 0.0)
        if fault == "last_request" and request.chunk_idx and before is not None:
            value += 0.1 * float(before.observation.proprio[0])
        if fault == "first_seen":
            value += 0.1 * self._first.setdefault(request.episode_id, float(seen.proprio[0]))
        value += 0.1 * (request.num_predicted_frames == 0) if fault == "frames_change_actions" else 0.0
        self._memory[request.episode_id] += 0.1
        actions = np.zeros((4, ACTION_DIM), np.float32)
        actions[:, :3] = {"millimetres": 1000, "fast": 500}.get(fault, 1) * value
        actions[:, GRIPPER] = 300 if fault == "gripper" else 1
        if request.given_actions is not None and fault != "own_actions":
            actions = request.given_actions
        if fault == "nan":
            actions[1, 2] = np.nan
        if fault == "shape":
            actions = np.zeros((8, 13), np.float32)
        return PolicyReply(
            actions=actions.astype(np.float64) if fault == "float64" else actions,
            prediction=partial(self._predicted, request, batch),
        )

    def _predicted(self, request: PolicyRequest, batch: int) -> Prediction:
        if self._fault == "late" and self._last is not None:
            request = replace(self._last, num_predicted_frames=request.num_predicted_frames)
        count, seen = request.num_predicted_frames, request.observation
        if self._fault == "all_frames":
            count = 2
        if self._fault == "prediction_acts":
            self._memory["poison"] = self._memory.get("poison", 0.0) + 0.1
        rgb = np.repeat(seen.rgb[None], count, axis=0)
        rgb = rgb + np.uint8(batch - 1) if self._fault == "batch_future" else rgb
        scale = {"depth_mm": 1000.0, "depth_below_0": -1.0}.get(self._fault, 1.0)
        state = seen.proprio.copy()
        state[3:7] *= -1 if self._fault == "w_below_0" else 1
        state[0] += 300 if self._fault == "state_mm" else 0
        depth_m = np.float32(scale) * np.repeat(seen.depth[None], count, axis=0)
        if self._fault == "depth_nan":
            depth_m[:] = np.nan
        return Prediction(
            rgb=rgb // 255 if self._fault == "rgb_01" else rgb,
            depth=depth_m,
            proprio=np.repeat(state[None], count, axis=0),
        )
