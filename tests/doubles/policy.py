"""A policy without a network, which fails on demand in every way that policies do.

In: which fault, and in which episodes. Out: a policy plugin that the real harness loads and asks.
Read next: `bench.py`, the bench that it acts on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.spec import EPISODE, OSC_DELTA_BASE, EnvSpec, PolicySpec
from evalkit.contracts.types import ACTION_DIM, Episode, PolicyReply, PolicyRequest, Prediction
from tests.doubles.bench import SIZE_PX


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
            privileged_keys=(EPISODE,),
        )

    def provenance(self, config: FakePolicyConfig) -> dict[str, str]:
        return {"weights": "none"}

    def make(self, config: FakePolicyConfig) -> FakePolicy:
        if config.fault == "make":
            raise RuntimeError("size mismatch for blocks.0.weight")
        return FakePolicy(config, self.spec(config))


class SlowPolicyPlugin(FakePolicyPlugin):
    """The same, which takes an hour to load."""

    def make(self, config: FakePolicyConfig) -> FakePolicy:
        os.write(1, b"loading\n")
        time.sleep(3600)
        return super().make(config)


class FakePolicy:
    """Actions depend on the episode and the chunk alone."""

    def __init__(self, config: FakePolicyConfig, spec: PolicySpec) -> None:
        self.spec = spec
        self._config = config

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        if self._config.fault == "refuse":
            raise EvalkitError("This policy refuses.")

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        replies = [self._reply(request) for request in requests]
        if self._config.fault == "no_reply":
            return None  # type: ignore[return-value]
        return replies

    def _reply(self, request: PolicyRequest) -> PolicyReply:
        time.sleep(self._config.infer_s)
        fault = self._config.fault if self._config.fault_seed in (_episode(request).seed, -1) else "none"
        if fault.partition("_")[0] in ("hang", "die") and self._now(fault, request):
            hang_or_die(fault)
        if fault == "raise":
            raise ValueError("CUDA out of memory on [/dev/nvidia0], say")
        rng = np.random.default_rng([_episode(request).seed, request.chunk_idx])
        actions = np.zeros((8, ACTION_DIM), np.float32)
        actions[:, 0] = rng.uniform(0.5, 1.0, 8)
        if fault == "nan":
            actions[2, 0] = np.nan
        if fault == "wrong_shape":
            actions = actions[:, :7]
        if fault == "absent_arm":
            actions[:, 9] = 0.1
        num_frames = request.num_predicted_frames
        size = SIZE_PX if fault != "wrong_prediction" else (8, 8)
        states = np.zeros((num_frames, 16), np.float32)
        states[:, 3] = 1
        prediction = Prediction(
            rgb=rng.integers(0, 256, (2, 3, *size, 3), dtype=np.uint8)[:num_frames],
            depth=rng.uniform(0.5, 2.0, (2, 3, *size)).astype(np.float32)[:num_frames],
            proprio=states,
        )
        if fault == "no_prediction":
            return PolicyReply(actions=actions, prediction=lambda: None)  # type: ignore[arg-type,return-value]
        details = {"loss": float("nan")} if fault == "nan_details" else {"object": np.float32(1)}
        return PolicyReply(
            actions=actions,
            prediction=(lambda: prediction) if num_frames else None,
            details=details if "details" in fault else {},
        )

    def _now(self, fault: str, request: PolicyRequest) -> bool:
        """Return whether to hang or to die: in the second chunk; where the fault ends in `_once`, once per log."""
        log = Path("/proc/self/fd/1")
        return request.chunk_idx == 1 and not (fault.endswith("_once") and FAILING in log.read_text())


FAILING = "failing on purpose"


def hang_or_die(fault: str) -> None:
    """Hang, or end the process without a word, after a line in its output."""
    os.write(1, f"{FAILING}\n".encode())
    if fault.startswith("hang"):
        time.sleep(3600)
    os._exit(7)


def _episode(request: PolicyRequest) -> Episode:
    assert request.episode is not None
    return request.episode
