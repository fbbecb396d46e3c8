"""X-WAM as a policy: a chunk of actions as soon as they are clean, then the predicted future if it is asked for.

In: requests of evalkit. Out: replies of evalkit.
Read next: `serving/engine.py`, which does the work; `serving/plugin.py`, what the policies of all families share;
`flow/sampler.py`, the loop behind it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.limits import check_range
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction
from xwam.checkpoints.metadata import CheckpointError
from xwam.config import LEAST_STATE_STEPS, ModelConfig
from xwam.nano.choice import FinisherChoice, choose
from xwam.robots.interfaces import INTERFACES
from xwam.serving.plugin import MAX_STEPS, ModelPlugin, ModelSettings, precision_of
from xwam.serving.seen import Seen

if TYPE_CHECKING:
    from xwam.checkpoints.bundle import Bundle
    from xwam.flow.sampler import Schedule
    from xwam.serving.engine import Engine

SERVER_DEPARTURES = (
    "noise of the CPU's generator in place of a GPU's (the same shapes, order and type; the protocol gives the seed)",
    "images, states and the weights of the VAE are not rounded to bfloat16",
)
"""Against evaluation/policy_server.py and runners/xwam_runner.py of the release, commit 72cfb86."""


@dataclass(frozen=True)
class XwamPolicyConfig(ModelSettings):
    """Settings of the policy, in addition to those of every model.

    Attributes:
        checkpoint: Weights: a path, an id on the Hugging Face hub, `nano` for the shipped ones (robosuite),
            `random-nano`, `random-nano-robocasa` or `random-nano-robotwin` for random ones.
        num_video_steps: Denoising steps of the video; None for the model's own.
        num_action_steps: Denoising steps of actions and states, the first ones of the video; None for the model's own.
        camera_depth: Whether predicted depth builds on measured depth (`xwam/nano/depth_refinement.py`), for a codec
            that decodes changes of the current frame, as nano's does; else depth is the network's own. The network sees
            no depth either way.
        warp: Whether the pixel decoder of the checkpoint makes the images of static cameras
            (`xwam/nano/pixel_decoder.py`), and wrist images are reprojected with the end effector; needs
            `camera_depth`. Else RGB is the codec's.
    """

    checkpoint: str = "nano"
    num_video_steps: int | None = None
    num_action_steps: int | None = None
    camera_depth: bool = True
    warp: bool = True


class Pace(NamedTuple):
    """Step counts of a run."""

    num_video_steps: int
    num_action_steps: int
    execute_steps: int


class XwamPlugin(ModelPlugin["XwamPolicy"]):
    """The entry point `xwam`; its import loads no framework."""

    name = "xwam"
    summary = "X-WAM: video, depth, states and actions denoised together; nano unless a checkpoint is named"
    config_type = XwamPolicyConfig

    def spec(self, config: XwamPolicyConfig) -> PolicySpec:
        """Return what the model needs and predicts, read from the metadata of its checkpoint.

        Raises:
            BadConfig: If the settings cannot be followed, or the model is one of another bench.
        """
        self.check(config)
        model = self.model(config)
        self.require_model_of_bench(config, model)
        pace = self.pace(config, model)
        interface = INTERFACES[model.bench]
        depth = ("depth",) if model.network.depth != "none" else ()
        return PolicySpec(
            policy_id=f"{self.name}/{model.name}" + ("-random" if self.untrained(config) else ""),
            action_layouts=(interface.layout,),
            chunk_len=model.num_actions,
            execute_steps=pace.execute_steps,
            views=model.views,
            image_hw_px=interface.env_image_hw_px(model),
            arms=model.arms,  # type: ignore[arg-type]
            control_hz=model.control_hz,
            predicts=("rgb", *depth, "proprio"),  # type: ignore[arg-type]
            num_future_frames=model.num_future_frames,
            frame_stride=model.frame_stride,
            takes_actions=True,
        )

    def schedule_facts(self, config: XwamPolicyConfig, model: ModelConfig) -> Mapping[str, str]:
        """Return the schedule with its departures, and how predictions are finished."""
        pace = self.pace(config, model)
        facts = {
            "denoising": f"{pace.num_action_steps} steps for actions, {pace.num_video_steps} for video, "
            f"guidance {config.guidance}",
            "denoising of states where actions are given": f"{max(LEAST_STATE_STEPS, pace.num_action_steps)} steps",
            "execution": f"{pace.execute_steps} of {model.num_actions} actions of a chunk",
            "departures from the model's own schedule": ", ".join(_departures(config, pace, model)) or "none",
        }
        if self.is_released(config):
            facts["departures from the released server"] = "; ".join(_server_departures(config))
        if model.network.depth != "none":
            facts["depth scale"] = _depth_scale(model)
        return facts | _finisher(config, model).provenance()

    def policy(self, config: XwamPolicyConfig, bundle: Bundle) -> XwamPolicy:
        """Return the policy.

        Raises:
            BadConfig: If the checkpoint's decoder cannot be used.
        """
        return XwamPolicy(self.spec(config), self._engine(config, bundle))

    def codec(self, config: XwamPolicyConfig) -> Callable[[Prediction], Prediction]:
        """Return the codec's round trip (encode, decode); the network stays where it was loaded and is not used.

        Raises:
            BadConfig: If the checkpoint cannot be used.
        """
        from xwam.checkpoints.bundle import Movable

        self.spec(config)
        bundle = self.load(replace(config, tokenizer=None))
        if isinstance(bundle.codec, Movable):
            bundle.codec.to(config.device)
        return self._engine(replace(config, warp=False), bundle).round_trip

    def pace(self, config: XwamPolicyConfig, model: ModelConfig) -> Pace:
        """Return the step counts of a run; those that the settings leave open are the model's own.

        Raises:
            BadConfig: If they cannot be followed.
        """
        pace = Pace(
            *(getattr(model, name) if getattr(config, name) is None else getattr(config, name) for name in Pace._fields)
        )
        where = f"policy.{self.name}"
        check_range(f"{where}.num_video_steps", pace.num_video_steps, 1, MAX_STEPS)
        if not 1 <= pace.num_action_steps <= pace.num_video_steps:
            raise BadConfig(
                f"{where} needs at least one step, and no more for actions than for video, got "
                f"num_action_steps={pace.num_action_steps} and num_video_steps={pace.num_video_steps}."
            )
        if not 1 <= pace.execute_steps <= model.num_actions:
            raise BadConfig(f"{where}.execute_steps must be 1 to {model.num_actions}, got {pace.execute_steps}.")
        return pace

    def _engine(self, config: XwamPolicyConfig, bundle: Bundle) -> Engine:
        """Return the engine with its finisher.

        Raises:
            BadConfig: If the checkpoint's decoder cannot be used.
        """
        from xwam.serving.engine import Engine

        schedule = _schedule(self.pace(config, bundle.model), guidance=config.guidance)
        try:
            finisher = _finisher(config, bundle.model).finisher(bundle)
            return Engine(bundle, schedule, finisher, prompt_bytes=int(config.prompt_memory_gib * 2**30))
        except CheckpointError as error:
            raise BadConfig(str(error)) from error


class XwamPolicy:
    """The model in memory. A reply depends only on its request."""

    def __init__(self, spec: PolicySpec, engine: Engine) -> None:
        self.spec, self.engine = spec, engine

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Do nothing: the policy keeps no memory between requests."""

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply for each request; each is computed by itself, so that none changes another's actions."""
        return [self._infer_one(request) for request in requests]

    def round_trip(self, future: Prediction) -> Prediction:
        """Return a future after the round trip through the model's codec: the ceiling of its predictions.

        Camera motion is unknown here, so moving views keep the codec's depth, and a prediction's may be better.
        """
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


def _departures(config: XwamPolicyConfig, pace: Pace, model: ModelConfig) -> list[str]:
    """Return the departures from the schedule with which the authors evaluate the model, one phrase each."""
    changed = [name for name in Pace._fields if getattr(pace, name) != getattr(model, name)]
    phrases = [f"{name} {getattr(pace, name)} in place of {getattr(model, name)}" for name in changed]
    return phrases + ([f"guidance {config.guidance} in place of 0"] if config.guidance else [])


def _schedule(pace: Pace, *, guidance: float) -> Schedule:
    """Return the denoising steps of a run."""
    from xwam.flow.sampler import Schedule

    num_video_steps, num_action_steps, _ = pace
    return Schedule(num_video_steps=num_video_steps, num_action_steps=num_action_steps, guidance=guidance)


def _finisher(config: XwamPolicyConfig, model: ModelConfig) -> FinisherChoice:
    """Return how predictions are finished."""
    return choose(model, camera_depth=config.camera_depth, warp=config.warp)


def _depth_scale(model: ModelConfig) -> str:
    """Return the map from predicted depth to metres, and whether it is known."""
    r = model.depth_range
    scale = f"inverse depth from {r.near_m} m to {r.far_m} m, offset {r.offset_m} m"
    if model.depth_known:
        return f"{scale}; the map of its training"
    return f"assumed {scale}; the released map is not published, so metres are a guess"


def _server_departures(config: XwamPolicyConfig) -> list[str]:
    """Return the departures from how the released server computes, one phrase each."""
    precision = precision_of(config)
    return [*SERVER_DEPARTURES, *[f"{precision} in place of bfloat16"] * (precision != "bfloat16")]
