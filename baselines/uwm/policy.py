"""UWM as a policy, joint or marginal: a chunk of actions, and the predicted future of these actions if it is asked for.

In: requests of evalkit. Out: replies of evalkit.
Read next: `engine.py`, which does the work; `xwam/serving/plugin.py`, what the policies of all families share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from baselines.uwm.models import FAMILY
from baselines.uwm.uses import JOINT, POLICY
from evalkit.contracts.limits import check_choice, check_range
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction
from xwam.config import ModelConfig
from xwam.robots.interfaces import INTERFACES
from xwam.serving.plugin import MAX_STEPS, ModelPlugin, ModelSettings
from xwam.serving.seen import Seen

if TYPE_CHECKING:
    from baselines.uwm.engine import UwmEngine
    from xwam.checkpoints.bundle import Bundle

MARGINAL = "marginal"

USE_OF = {JOINT: JOINT, MARGINAL: POLICY}
"""The use behind each way of acting."""

PREDICTIONS = {
    JOINT: "denoised together with the actions",
    MARGINAL: "forward dynamics of the policy's own actions, denoised after them",
}


@dataclass(frozen=True)
class UwmPolicyConfig(ModelSettings):
    """Settings of the policy, in addition to those of every model.

    Attributes:
        act: `joint` denoises actions together with the next observation; `marginal` denoises actions while the next
            observation stays noise, and predicts it by forward dynamics of its actions when asked.
        num_steps: Denoising steps of video and actions alike; None for the model's own.
    """

    act: str = JOINT
    num_steps: int | None = None


class UwmPlugin(ModelPlugin["UwmPolicy"]):
    """The entry point `uwm`; its import loads no framework."""

    name = FAMILY
    family_name = FAMILY
    summary = "UWM: independent noise of video and actions, joint or marginal policy; random weights unless named"
    config_type = UwmPolicyConfig

    def check(self, config: UwmPolicyConfig) -> None:
        """Raise BadConfig unless a model can follow the settings; nothing is loaded."""
        super().check(config)
        check_choice(f"policy.{self.name}.act", config.act, tuple(USE_OF))
        if config.num_steps is not None:
            check_range(f"policy.{self.name}.num_steps", config.num_steps, 1, MAX_STEPS)

    def spec(self, config: UwmPolicyConfig) -> PolicySpec:
        """Return what the model needs and predicts, read from the metadata of its checkpoint.

        Raises:
            BadConfig: If the settings cannot be followed, or the model is one of another bench or family.
        """
        self.check(config)
        model = self.model(config)
        self.require_model_of_bench(config, model)
        interface = INTERFACES[model.bench]
        return PolicySpec(
            policy_id=f"{FAMILY}/{model.name}-{config.act}" + ("-random" if self.untrained(config) else ""),
            action_layouts=(interface.layout,),
            chunk_len=model.num_actions,
            execute_steps=self.executed(config, model.num_actions, model.execute_steps),
            views=model.views,
            image_hw_px=interface.env_image_hw_px(model),
            arms=model.arms,  # type: ignore[arg-type]
            control_hz=model.control_hz,
            predicts=("rgb", "proprio"),
            num_future_frames=model.num_future_frames,
            frame_stride=model.frame_stride,
            takes_actions=True,
        )

    def schedule_facts(self, config: UwmPolicyConfig, model: ModelConfig) -> Mapping[str, str]:
        """Return how it acts, how it predicts, and the departures from the model's own schedule."""
        steps, own = _num_steps(config, model), model.num_video_steps
        executed = self.executed(config, model.num_actions, model.execute_steps)
        departures = [f"num_steps {steps} in place of {own}"] * (steps != own)
        departures += [f"execute_steps {executed} in place of {model.execute_steps}"] * (
            executed != model.execute_steps
        )
        departures += [f"guidance {config.guidance} in place of 0"] * bool(config.guidance)
        return {
            "policy": f"{config.act}: the next observation is "
            + ("denoised with the actions" if config.act == JOINT else "held as noise while actions are denoised"),
            "denoising": f"{steps} steps for actions and video, guidance {config.guidance}",
            "predictions": PREDICTIONS[config.act],
            "predictions where actions are given": f"forward dynamics, {steps} steps",
            "execution": f"{executed} of {model.num_actions} actions of a chunk",
            "departures from the model's own schedule": ", ".join(departures) or "none",
        }

    def policy(self, config: UwmPolicyConfig, bundle: Bundle) -> UwmPolicy:
        """Return the policy."""
        return UwmPolicy(self.spec(config), _engine(config, bundle))

    def codec(self, config: UwmPolicyConfig) -> Callable[[Prediction], Prediction]:
        """Return the codec's round trip (encode, decode); the network stays where it was loaded and is not used.

        Raises:
            BadConfig: If the checkpoint cannot be used.
        """
        from xwam.checkpoints.bundle import Movable

        self.spec(config)
        bundle = self.load(replace(config, tokenizer=None))
        if isinstance(bundle.codec, Movable):
            bundle.codec.to(config.device)
        return _engine(config, bundle).round_trip


class UwmPolicy:
    """The model in memory. A reply depends only on its request."""

    def __init__(self, spec: PolicySpec, engine: UwmEngine) -> None:
        self.spec, self.engine = spec, engine

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Do nothing: the policy keeps no memory between requests."""

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply for each request; each is computed by itself, so that none changes another's actions."""
        return [self._infer_one(request) for request in requests]

    def round_trip(self, future: Prediction) -> Prediction:
        """Return a future after the round trip through the model's codec: the ceiling of its predictions."""
        return self.engine.round_trip(future)

    def _infer_one(self, request: PolicyRequest) -> PolicyReply:
        started = time.perf_counter()
        given, num_frames = request.given_actions, request.num_predicted_frames
        under_way = self.engine.begin(Seen.of(request.observation), seed=request.noise_seed, given_actions=given)
        encoded = time.perf_counter()
        actions, under_way = self.engine.act(under_way)
        done = time.perf_counter()
        return PolicyReply(
            actions=actions if given is None else given,
            timings_ms={"encode": (encoded - started) * 1e3, "denoise_actions": (done - encoded) * 1e3},
            prediction=partial(self.engine.imagine, under_way, num_frames) if num_frames else None,
        )


def _num_steps(config: UwmPolicyConfig, model: ModelConfig) -> int:
    """Return the denoising steps of a run."""
    return model.num_video_steps if config.num_steps is None else config.num_steps


def _engine(config: UwmPolicyConfig, bundle: Bundle) -> UwmEngine:
    from baselines.uwm.engine import UwmEngine

    return UwmEngine(
        bundle,
        use=USE_OF[config.act],
        num_steps=_num_steps(config, bundle.model),
        guidance=config.guidance,
        prompt_bytes=int(config.prompt_memory_gib * 2**30),
    )
