"""UWM as a policy, joint or marginal: a chunk of actions, and the predicted future of these actions if it is asked for.

In: requests of evalkit. Out: replies of evalkit.
Read next: `engine.py`, which does the work; `xwam/serving/plugin.py`, what the policies of all families share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.uwm.models import FAMILY
from baselines.uwm.uses import JOINT, POLICY
from evalkit.contracts.limits import check_choice, check_range
from evalkit.contracts.spec import PolicySpec
from xwam.config import ModelConfig
from xwam.serving.engine_policy import PredictingPolicy
from xwam.serving.plugin import MAX_STEPS, ModelSettings, PredictingPlugin, departures, prompt_bytes

if TYPE_CHECKING:
    from baselines.uwm.engine import UwmEngine
    from xwam.checkpoints.bundle import Bundle

MARGINAL = "marginal"

USE_OF = {JOINT: JOINT, MARGINAL: POLICY}
"""The use behind each way of acting."""

OWN, VIDEO_ALONE = "own", "video"

PREDICTIONS = {
    JOINT: "denoised together with the actions",
    MARGINAL: "forward dynamics of the policy's own actions as they are executed, denoised after them",
}


@dataclass(frozen=True)
class UwmPolicyConfig(ModelSettings):
    """Settings of the policy, in addition to those of every model.

    Attributes:
        act: `joint` denoises actions together with the next observation; `marginal` denoises actions while the next
            observation stays noise, and predicts it by forward dynamics of its actions when asked.
        num_steps: Denoising steps of video and actions alike; None for the model's own.
        predict: `own` predicts the outcome of the policy's own actions, or of given ones; `video` predicts what follows
            the present while the actions stay noise, whatever is done.
    """

    act: str = JOINT
    num_steps: int | None = None
    predict: str = OWN


class UwmPlugin(PredictingPlugin["UwmPolicy"]):
    """The entry point `uwm`; its import loads no framework."""

    name = FAMILY
    family_name = FAMILY
    summary = "UWM: independent noise of video and actions, joint or marginal policy; random weights unless named"
    config_type = UwmPolicyConfig

    def check(self, config: UwmPolicyConfig) -> None:
        """Raise BadConfig unless a model can follow the settings; nothing is loaded."""
        super().check(config)
        check_choice(f"policy.{self.name}.act", config.act, tuple(USE_OF))
        check_choice(f"policy.{self.name}.predict", config.predict, (OWN, VIDEO_ALONE))
        if config.num_steps is not None:
            check_range(f"policy.{self.name}.num_steps", config.num_steps, 1, MAX_STEPS)

    def spec(self, config: UwmPolicyConfig) -> PolicySpec:
        """Return what the model needs and predicts, read from the metadata of its checkpoint.

        Raises:
            BadConfig: If the settings cannot be followed, or the model is one of another bench or family.
        """
        model = self.accepted_model(config)
        return self.spec_of(
            config,
            model,
            note=f"-{config.act}" + ("" if config.predict == OWN else "-video"),
            execute_steps=self.executed(config, model.num_actions, model.execute_steps),
            predicts=("rgb", "proprio"),
            num_future_frames=model.num_future_frames,
            frame_stride=model.frame_stride,
            takes_actions=config.predict == OWN,
        )

    def schedule_facts(self, config: UwmPolicyConfig, model: ModelConfig) -> Mapping[str, str]:
        """Return how it acts, how it predicts, and the departures from the model's own schedule."""
        steps, own = _num_steps(config, model), model.num_video_steps
        executed = self.executed(config, model.num_actions, model.execute_steps)
        return {
            "policy": f"{config.act}: the next observation is "
            + ("denoised with the actions" if config.act == JOINT else "held as noise while actions are denoised"),
            "denoising": f"{steps} steps for actions and video, guidance {config.guidance}",
            **_predictions(config, steps),
            "execution": f"{executed} of {model.num_actions} actions of a chunk",
            "departures from the model's own schedule": departures(
                ("num_steps", steps, own),
                ("execute_steps", executed, model.execute_steps),
                ("guidance", config.guidance, 0),
            ),
        }

    def policy(self, config: UwmPolicyConfig, bundle: Bundle) -> UwmPolicy:
        """Return the policy."""
        return UwmPolicy(self.spec(config), self.engine(config, bundle))

    def engine(self, config: UwmPolicyConfig, bundle: Bundle) -> UwmEngine:
        """Return the engine for a model in memory."""
        from baselines.uwm.engine import UwmEngine

        return UwmEngine(
            bundle,
            use=USE_OF[config.act],
            num_steps=_num_steps(config, bundle.model),
            predict_video=config.predict == VIDEO_ALONE,
            guidance=config.guidance,
            prompt_bytes=prompt_bytes(config),
            width=config.width,
        )


class UwmPolicy(PredictingPolicy["UwmEngine"]):
    """The model in memory. A reply depends only on its request."""


def _predictions(config: UwmPolicyConfig, steps: int) -> dict[str, str]:
    """Return what predictions are, without given actions and with them."""
    if config.predict == VIDEO_ALONE:
        return {"predictions": f"the use `video`: actions held as noise, {steps} steps"}
    return {
        "predictions": PREDICTIONS[config.act],
        "predictions where actions are given": f"forward dynamics, {steps} steps",
    }


def _num_steps(config: UwmPolicyConfig, model: ModelConfig) -> int:
    """Return the denoising steps of a run."""
    return model.num_video_steps if config.num_steps is None else config.num_steps
