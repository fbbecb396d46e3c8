"""X-WAM as a policy: a chunk of actions as soon as they are clean, then the predicted future if it is asked for.

In: requests of evalkit. Out: replies of evalkit.
Read next: `serving/engine.py`, which does the work; `serving/plugin.py` and `serving/engine_policy.py`, what all
families share; `flow/sampler.py`, the loop behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.limits import check_choice, check_range
from evalkit.contracts.spec import Join, PolicySpec
from evalkit.contracts.types import Prediction
from xwam.checkpoints.metadata import CheckpointError
from xwam.config import LEAST_STATE_STEPS, ModelConfig
from xwam.nano.choice import FinisherChoice, choose
from xwam.serving.engine_policy import PredictingPolicy
from xwam.serving.plugin import MAX_STEPS, ModelSettings, PredictingPlugin, departures, precision_of, prompt_bytes

if TYPE_CHECKING:
    from xwam.checkpoints.bundle import Bundle
    from xwam.flow.sampler import Denoiser, Schedule
    from xwam.serving.engine import Engine

OFF, DYNAMIC = "off", "dynamic"

SERVER_DEPARTURES = (
    "noise of the CPU's generator in place of a GPU's (the same shapes, order and type; the protocol gives the seed)",
    "images, states and the weights of the VAE are not rounded to bfloat16",
)
"""Against evaluation/policy_server.py and runners/xwam_runner.py of the release, commit 72cfb86."""

MIN_GUIDED_STEPS = 4
"""Fewest denoising steps of actions from which a guided chunk stays closer to the old one than a free chunk does,
measured with nano (`results/realtime/joins.md`); in fewer steps, the gradient's last one overshoots."""


@dataclass(frozen=True)
class XwamPolicyConfig(ModelSettings):
    """Settings of the policy, in addition to those of every model.

    Attributes:
        checkpoint: Weights: a path, an id on the Hugging Face hub, `nano` for the shipped ones (robosuite),
            `random-nano`, `random-nano-robocasa` or `random-nano-robotwin` for random ones.
        num_video_steps: Denoising steps of the video; None for the model's own.
        num_action_steps: Denoising steps of actions and states, the first ones of the video; None for the model's own.
        step_cache: Which passes are skipped: `off` for none, `dynamic` for those before which the last two velocities
            of all that is still noisy were nearly parallel (`xwam/flow/step_cache.py`). A departure from the model.
        freeze_video_after: Passes after which the video stands still until the actions are clean, so that the other
            passes of the actions cost little; None for never. The video then takes as many passes more. A departure.
        camera_depth: Whether predicted depth builds on measured depth (`xwam/nano/depth_refinement.py`), for a codec
            that decodes changes of the current frame, as nano's does; else depth is the network's own. The network sees
            no depth either way.
        warp: Whether the pixel decoder of the checkpoint makes the images of static cameras
            (`xwam/nano/pixel_decoder.py`), and wrist images are reprojected with the end effector; needs
            `camera_depth`. Else RGB is the codec's.
        compile: Whether torch compiles the blocks, which takes a minute or more at the first pass of each size, and
            makes fewer kernels on CUDA. On a CPU it gains nothing.
        cuda_graphs: Whether passes are recorded once per size and replayed (`xwam/network/recorded.py`); needs CUDA.
    """

    checkpoint: str = "nano"
    num_video_steps: int | None = None
    num_action_steps: int | None = None
    step_cache: str = OFF
    freeze_video_after: int | None = None
    camera_depth: bool = True
    warp: bool = True
    compile: bool = False
    cuda_graphs: bool = False


class Pace(NamedTuple):
    """Step counts of a run."""

    num_video_steps: int
    num_action_steps: int
    execute_steps: int


class XwamPlugin(PredictingPlugin["XwamPolicy"]):
    """The entry point `xwam`; its import loads no framework."""

    name = "xwam"
    summary = "X-WAM: video, depth, states and actions denoised together; nano unless a checkpoint is named"
    config_type = XwamPolicyConfig

    def spec(self, config: XwamPolicyConfig) -> PolicySpec:
        """Return what the model needs and predicts, read from the metadata of its checkpoint.

        Raises:
            BadConfig: If the settings cannot be followed, or the model is one of another bench.
        """
        model = self.accepted_model(config)
        if config.cuda_graphs and not config.device.startswith("cuda"):
            raise BadConfig(
                f"policy.{self.name}.cuda_graphs=true needs policy.{self.name}.device=cuda, got {config.device}."
            )
        depth = ("depth",) if model.network.depth != "none" else ()
        pace = self.pace(config, model)
        return self.spec_of(
            config,
            model,
            execute_steps=pace.execute_steps,
            predicts=("rgb", *depth, "proprio"),
            num_future_frames=model.num_future_frames,
            frame_stride=model.frame_stride,
            takes_actions=True,
            joins=self._joins(pace, model),
        )

    def _joins(self, pace: Pace, model: ModelConfig) -> tuple[Join, ...]:
        """Return how chunks can be joined: by guidance if there are enough steps, by a prefix if trained for it."""
        fewest = MIN_GUIDED_STEPS
        enough = {"num_action_steps": fewest, "num_video_steps": max(fewest, pace.num_video_steps)}
        refusal = (
            f"guidance needs {fewest} denoising steps of actions, and there are {pace.num_action_steps}. Guided "
            f"chunks of nano join worse in fewer steps: their distance from the old chunk is 0.21 against 0.09 of free "
            f"ones in 2 steps, 0.11 against 0.10 in 3, and 0.10 against 0.11 in {fewest}. Add "
            + " ".join(f"policy.{self.name}.{name}={count}" for name, count in enough.items())
        )
        few = pace.num_action_steps < fewest
        return (
            Join(strategy="guided", refusal=refusal if few else ""),
            Join(strategy="prefix", max_delay=model.prefix_actions_max),
        )

    def schedule_facts(self, config: XwamPolicyConfig, model: ModelConfig) -> Mapping[str, str]:
        """Return the schedule with its departures, and how predictions are finished."""
        pace = self.pace(config, model)
        facts = {
            "denoising": f"{pace.num_action_steps} steps for actions, {pace.num_video_steps} for video, "
            f"guidance {config.guidance}",
            "denoising of states where actions are given": f"{max(LEAST_STATE_STEPS, pace.num_action_steps)} steps",
            "execution": f"{pace.execute_steps} of {model.num_actions} actions of a chunk",
            "departures from the model's own schedule": departures(
                *((name, value, getattr(model, name)) for name, value in pace._asdict().items()),
                ("guidance", config.guidance, 0),
                ("step_cache", config.step_cache, OFF),
                ("freeze_video_after", config.freeze_video_after, None),
            ),
        }
        if self.is_released(config):
            facts["departures from the released server"] = "; ".join(_server_departures(config))
        if (passes := _passes(config)) is not None:
            facts["passes"] = passes
        if model.network.depth != "none":
            facts["depth scale"] = _depth_scale(model)
        return facts | _finisher(config, model).provenance()

    def policy(self, config: XwamPolicyConfig, bundle: Bundle) -> XwamPolicy:
        """Return the policy.

        Raises:
            BadConfig: If the checkpoint's decoder cannot be used.
        """
        return XwamPolicy(self.spec(config), self.engine(config, bundle))

    def codec(self, config: XwamPolicyConfig) -> Callable[[Prediction], Prediction]:
        """Return the codec's round trip, without the pixel decoder."""
        return super().codec(replace(config, warp=False, compile=False, cuda_graphs=False))

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
        self._check_departures(config, pace)
        return pace

    def _check_departures(self, config: XwamPolicyConfig, pace: Pace) -> None:
        """Raise BadConfig unless the options that save passes can be followed."""
        where, frozen = f"policy.{self.name}", config.freeze_video_after
        check_choice(f"{where}.step_cache", config.step_cache, (OFF, DYNAMIC))
        if frozen is None:
            return
        if not 1 <= frozen < pace.num_action_steps:
            raise BadConfig(
                f"{where}.freeze_video_after must be less than the {pace.num_action_steps} steps of the actions and at "
                f"least 1, got {frozen}; give more num_action_steps, or leave it out."
            )
        unfit = {
            "guidance": config.guidance,
            "step_cache": config.step_cache != OFF,
            "cuda_graphs": config.cuda_graphs,
            "the second stream of this family": self.family_name != XwamPlugin.family_name,
        }
        if any(unfit.values()):
            names = ", ".join(name for name, is_set in unfit.items() if is_set)
            raise BadConfig(f"{where}.freeze_video_after cannot be combined with {names}; leave one of them out.")

    def engine(self, config: XwamPolicyConfig, bundle: Bundle) -> Engine:
        """Return the engine with its finisher.

        Raises:
            BadConfig: If the checkpoint's decoder cannot be used.
        """
        from xwam.serving.engine import Engine

        schedule = _schedule(self.pace(config, bundle.model), config)
        try:
            return Engine(
                bundle,
                schedule,
                _finisher(config, bundle.model).finisher(bundle),
                prompt_bytes=prompt_bytes(config),
                width=config.width,
                denoiser=_denoiser(config, bundle),
                few_sizes=_passes(config) is not None,
            )
        except CheckpointError as error:
            raise BadConfig(str(error)) from error


class XwamPolicy(PredictingPolicy["Engine"]):
    """The model in memory. A reply depends only on its request."""


def _schedule(pace: Pace, config: XwamPolicyConfig) -> Schedule:
    """Return the denoising steps of a run."""
    from xwam.flow.sampler import Schedule
    from xwam.flow.step_cache import StepCache

    return Schedule(
        num_video_steps=pace.num_video_steps,
        num_action_steps=pace.num_action_steps,
        guidance=config.guidance,
        step_cache=StepCache() if config.step_cache == DYNAMIC else None,
        freeze_video_after=config.freeze_video_after,
    )


def _passes(config: XwamPolicyConfig) -> str | None:
    """Return how passes are computed; None for the usual way, operation by operation."""
    ways = ["blocks compiled by torch"] * config.compile + ["recorded and replayed as CUDA graphs"] * config.cuda_graphs
    return ", ".join(ways) or None


def _denoiser(config: XwamPolicyConfig, bundle: Bundle) -> Denoiser:
    """Return what makes the passes."""
    from xwam.network.recorded import RecordedNetwork, compile_blocks

    if config.compile:
        compile_blocks(bundle.network)
    return RecordedNetwork(bundle.network) if config.cuda_graphs else bundle.network  # type: ignore[no-any-return]


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
