"""Video in training only, as a policy: actions from the present frame, and no prediction.

In: requests of evalkit. Out: replies of evalkit, none with a prediction.
Read next: `engine.py`, which does the work; `acting.py` for the passes; `xwam/serving/plugin.py` for what the policies
of all families share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.limits import check_range
from evalkit.contracts.spec import PolicySpec
from xwam.config import ModelConfig
from xwam.serving.engine_policy import EnginePolicy
from xwam.serving.plugin import MAX_STEPS, ModelPlugin, ModelSettings, departures, prompt_bytes

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
        model = self.accepted_model(config)
        self._num_steps(config, model)
        return self.spec_of(config, model, execute_steps=self.executed(config, model.num_actions, model.execute_steps))

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
        return {
            "denoising": f"{steps} steps for actions; no video: the future has no tokens, and nothing is predicted",
            "execution": f"{executed} of {model.num_actions} actions of a chunk",
            "departures from the model's own schedule": departures(
                ("num_action_steps", steps, model.num_action_steps), ("execute_steps", executed, model.execute_steps)
            ),
        }

    def policy(self, config: VideoInTrainingPolicyConfig, bundle: Bundle) -> VideoInTrainingPolicy:
        """Return the policy."""
        return VideoInTrainingPolicy(self.spec(config), self.engine(config, bundle))

    def engine(self, config: VideoInTrainingPolicyConfig, bundle: Bundle) -> ActingEngine:
        """Return the engine for a model in memory."""
        from baselines.video_in_training.engine import ActingEngine
        from xwam.flow.sampler import Schedule

        steps = self._num_steps(config, bundle.model)
        schedule = Schedule(num_video_steps=steps, num_action_steps=steps)
        return ActingEngine(bundle, schedule, prompt_bytes=prompt_bytes(config), width=config.width)

    def _num_steps(self, config: VideoInTrainingPolicyConfig, model: ModelConfig) -> int:
        """Return the denoising steps of a run.

        Raises:
            BadConfig: If they cannot be followed.
        """
        steps = model.num_action_steps if config.num_action_steps is None else config.num_action_steps
        check_range(f"policy.{FAMILY}.num_action_steps", steps, 1, MAX_STEPS)
        return steps


class VideoInTrainingPolicy(EnginePolicy["ActingEngine"]):
    """The model in memory. A reply depends only on its request."""
