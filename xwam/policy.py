"""X-WAM as a policy: a chunk of actions as soon as they are clean, and the imagined future for who wants it.

In: requests of evalkit. Out: replies of evalkit. This is the only file here that imports evalkit.
Read next: `engine.py`, which does the work; `sampler.py`, the loop behind it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.spec import OSC_DELTA_BASE, EnvSpec, PolicySpec
from evalkit.contracts.types import Episode, PolicyReply, PolicyRequest, Prediction
from xwam.config import NANO, ModelConfig, count_parameters
from xwam.header import CheckpointError, read_model

if TYPE_CHECKING:
    from xwam.engine import Engine, Request

ACTION_LAYOUT = {"robosuite": OSC_DELTA_BASE}
"""In which layout a model made for a bench answers."""


@dataclass(frozen=True)
class XwamPolicyConfig:
    """Settings of the policy.

    Attributes:
        checkpoint: Weights; None for random ones.
        init_seed: Seed of random weights.
        num_video_steps: Denoising steps of the video.
        num_action_steps: Denoising steps of actions and states, the first ones of the video.
        execute_steps: Actions of a chunk that are executed before the next one is asked for.
        guidance: 0 for one conditional pass a step; else the weight of the prompt's velocity.
        threads: CPU threads of a forward pass.
    """

    checkpoint: str | None = None
    init_seed: int = 0
    num_video_steps: int = 10
    num_action_steps: int = 4
    execute_steps: int = 8
    guidance: float = 0.0
    threads: int = 1


class XwamPlugin:
    """The entry point `xwam`; importing it loads no framework."""

    name = "xwam"
    summary = "X-WAM: video, depth, states and actions denoised together; nano size unless a checkpoint says otherwise"
    config_type = XwamPolicyConfig

    def spec(self, config: XwamPolicyConfig) -> PolicySpec:
        """Return what the model needs and gives, read from its checkpoint's header."""
        model = _model(config)
        depth = ("depth",) if model.network.depth != "none" else ()
        return PolicySpec(
            policy_id=f"xwam/{model.name}" + ("" if config.checkpoint else "-random"),
            action_layouts=(ACTION_LAYOUT[model.bench],),
            chunk_len=model.num_actions,
            execute_steps=config.execute_steps,
            views=model.views,
            image_hw_px=model.image_hw_px,
            arms=model.arms,  # type: ignore[arg-type]
            control_hz=model.control_hz,
            predicts=("rgb", *depth, "proprio"),  # type: ignore[arg-type]
            num_future_frames=model.num_future_frames,
            frame_stride=model.frame_stride,
        )

    def provenance(self, config: XwamPolicyConfig) -> dict[str, str]:
        """Return hash and size of the weights and the schedule."""
        model = _model(config)
        weights = f"random, init_seed {config.init_seed}: an untrained network"
        if config.checkpoint is not None:
            weights = f"sha256 {_sha256(Path(config.checkpoint))}"
        return {
            "model": model.name,
            "weights": weights,
            "parameters": str(sum(count_parameters(model.network))),
            "denoising": f"{config.num_action_steps} steps for actions, {config.num_video_steps} for video, "
            f"guidance {config.guidance}",
        }

    def make(self, config: XwamPolicyConfig) -> XwamPolicy:
        """Return the policy with its weights in memory.

        Raises:
            BadConfig: If checkpoint or step counts cannot be used.
        """
        import torch

        from xwam import checkpoints
        from xwam.engine import Engine
        from xwam.sampler import Schedule

        torch.set_num_threads(config.threads)
        try:
            model = _model(config)
            schedule = Schedule(
                num_video_steps=config.num_video_steps,
                num_action_steps=config.num_action_steps,
                guidance=config.guidance,
            )
            if config.checkpoint is None:
                network = checkpoints.fresh_network(model.network, seed=config.init_seed)
            else:
                network, model = checkpoints.load_checkpoint(Path(config.checkpoint))
        except ValueError as error:
            raise BadConfig(str(error)) from error
        return XwamPolicy(config, self.spec(config), Engine(model, network, schedule))


class XwamPolicy:
    """The model in memory. A reply depends on nothing but its request."""

    def __init__(self, config: XwamPolicyConfig, spec: PolicySpec, engine: Engine) -> None:
        self.config, self.spec, self.engine = config, spec, engine

    def reset(self, episode: Episode, env: EnvSpec) -> None:
        """Do nothing: no memory is kept from request to request."""

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply a request; each is computed by itself, so that company changes no action."""
        return [self._infer_one(request) for request in requests]

    def _infer_one(self, request: PolicyRequest) -> PolicyReply:
        started = time.perf_counter()
        seen = request.observation
        under_way = self.engine.begin(seen.rgb, seen.proprio, seen.instruction, seed=_seed(request))
        encoded = time.perf_counter()
        actions, under_way = self.engine.act(under_way)
        done = time.perf_counter()
        return PolicyReply(
            actions=np.clip(actions, -1.0, 1.0),
            timings_ms={"encode": (encoded - started) * 1e3, "denoise_actions": (done - encoded) * 1e3},
            prediction=self._prediction(under_way) if request.want_prediction else None,
        )

    def _prediction(self, under_way: Request) -> Callable[[], Prediction]:
        """Return what finishes the video of a request whose actions have left."""

        def finish() -> Prediction:
            future = self.engine.imagine(under_way)
            return Prediction(rgb=future.rgb, depth=future.depth, proprio=future.proprio)

        return finish


def _seed(request: PolicyRequest) -> int:
    """Return the seed of a request's noise: the episode's identity and the chunk, nothing else."""
    from xwam.noise import request_seed

    episode = request.episode
    return request_seed(
        episode.bench, episode.setting, episode.task, episode.index, episode.seed, f"chunk{request.chunk_idx}"
    )


def _model(config: XwamPolicyConfig) -> ModelConfig:
    """Return the configuration of the model that will be loaded, without loading it.

    Raises:
        BadConfig: If the checkpoint cannot be used.
    """
    if config.checkpoint is None:
        return NANO
    try:
        return read_model(Path(config.checkpoint))
    except CheckpointError as error:
        raise BadConfig(str(error)) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
