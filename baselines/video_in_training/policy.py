"""Video in training only, as a policy: actions from the present frame, and no prediction.

In: requests of evalkit. Out: replies of evalkit, none with a prediction.
Read next: `engine.py`, which does the work; `acting.py` for the passes; `xwam/serving/plugin.py` for what the policies
of all families share.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.limits import check_range
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest
from xwam.config import ModelConfig
from xwam.robots.interfaces import INTERFACES
from xwam.serving.plugin import MAX_STEPS, ModelPlugin, ModelSettings
from xwam.serving.seen import Seen

if TYPE_CHECKING:
    from baselines.video_in_training.engine import ActingEngine
    from xwam.checkpoints.bundle import Bundle

FAMILY = "video_in_training"


@dataclass(frozen=True)
class VideoInTrainingPolicyConfig(ModelSettings):
    """Settings of the policy, in addition to those of every model.

    Attributes:
        num_action_steps: Denoising steps of actions and states; None for the model's own.
        guidance: Must be 0: the keys of the present frame are those of one prompt.
    """

    num_action_steps: int | None = None


class VideoInTrainingPlugin(ModelPlugin["VideoInTrainingPolicy"]):
    """The entry point `video_in_training`; its import loads no framework."""

    name = FAMILY
    family_name = FAMILY
    summary = "Video in training only: acts without imagining; random weights unless a checkpoint is named"
    config_type = VideoInTrainingPolicyConfig

    def spec(self, config: VideoInTrainingPolicyConfig) -> PolicySpec:
        """Return what the model needs, read from the metadata of its checkpoint; it predicts nothing.

        Raises:
            BadConfig: If the settings cannot be followed, or the model is one of another bench.
        """
        self.check(config)
        model = self.model(config)
        self.require_model_of_bench(config, model)
        self._num_steps(config, model)
        interface = INTERFACES[model.bench]
        return PolicySpec(
            policy_id=f"{FAMILY}/{model.name}" + ("-random" if self.untrained(config) else ""),
            action_layouts=(interface.layout,),
            chunk_len=model.num_actions,
            execute_steps=self.executed(config, model.num_actions, model.execute_steps),
            views=model.views,
            image_hw_px=interface.env_image_hw_px(model),
            arms=model.arms,  # type: ignore[arg-type]
            control_hz=model.control_hz,
        )

    def check(self, config: VideoInTrainingPolicyConfig) -> None:
        """Raise BadConfig unless a model can follow the settings; nothing is loaded."""
        super().check(config)
        if config.guidance:
            raise BadConfig(
                f"policy.{FAMILY}.guidance must be 0, got {config.guidance}: this policy reads the present frame once, "
                "with one prompt."
            )

    def schedule_facts(self, config: VideoInTrainingPolicyConfig, model: ModelConfig) -> Mapping[str, str]:
        """Return the schedule, its departures, and that nothing is imagined."""
        steps, executed = self._num_steps(config, model), self.executed(config, model.num_actions, model.execute_steps)
        pairs = (
            ("num_action_steps", steps, model.num_action_steps),
            ("execute_steps", executed, model.execute_steps),
        )
        changed = [f"{name} {value} in place of {own}" for name, value, own in pairs if value != own]
        return {
            "denoising": f"{steps} steps for actions; no video: the future has no tokens, and nothing is predicted",
            "execution": f"{executed} of {model.num_actions} actions of a chunk",
            "departures from the model's own schedule": ", ".join(changed) or "none",
        }

    def policy(self, config: VideoInTrainingPolicyConfig, bundle: Bundle) -> VideoInTrainingPolicy:
        """Return the policy."""
        from baselines.video_in_training.engine import ActingEngine
        from xwam.flow.sampler import Schedule
        from xwam.text.memory import GIB

        steps = self._num_steps(config, bundle.model)
        schedule = Schedule(num_video_steps=steps, num_action_steps=steps)
        engine = ActingEngine(bundle, schedule, prompt_bytes=int(config.prompt_memory_gib * GIB))
        return VideoInTrainingPolicy(self.spec(config), engine)

    def _num_steps(self, config: VideoInTrainingPolicyConfig, model: ModelConfig) -> int:
        """Return the denoising steps of a run.

        Raises:
            BadConfig: If they cannot be followed.
        """
        steps = model.num_action_steps if config.num_action_steps is None else config.num_action_steps
        check_range(f"policy.{FAMILY}.num_action_steps", steps, 1, MAX_STEPS)
        return steps


class VideoInTrainingPolicy:
    """The model in memory. A reply depends only on its request."""

    def __init__(self, spec: PolicySpec, engine: ActingEngine) -> None:
        self.spec, self.engine = spec, engine

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Do nothing: the policy keeps no memory between requests."""

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply for each request; each is computed by itself, so that none changes another's actions."""
        return [self._infer_one(request) for request in requests]

    def _infer_one(self, request: PolicyRequest) -> PolicyReply:
        started = time.perf_counter()
        under_way = self.engine.begin(Seen.of(request.observation), seed=request.noise_seed)
        encoded = time.perf_counter()
        actions, _ = self.engine.act(under_way)
        done = time.perf_counter()
        return PolicyReply(
            actions=actions,
            timings_ms={"encode": (encoded - started) * 1e3, "denoise_actions": (done - encoded) * 1e3},
        )
