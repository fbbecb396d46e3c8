"""DreamZero as a policy: one block of actions from a cache of observed frames, and its images if they are asked for.

In: requests of evalkit, with the frames between them. Out: replies of evalkit.
Read next: `engine.py`, which does the work; `memory.py`, what is remembered of an episode;
`xwam/serving/plugin.py`, what the policies of all families share.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from baselines.dreamzero.config import network_of
from baselines.dreamzero.models import FAMILY
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.limits import check_range
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.text import count_of
from evalkit.contracts.types import PolicyReply, PolicyRequest
from xwam.config import ModelConfig
from xwam.serving.engine_policy import EngineJob, PredictingPolicy
from xwam.serving.plugin import MAX_MEMORY_GIB, MAX_STEPS, ModelSettings, PredictingPlugin, departures, prompt_bytes

if TYPE_CHECKING:
    from baselines.dreamzero.engine import DreamZeroEngine
    from baselines.dreamzero.memory import Past
    from baselines.dreamzero.sampler import BlockSchedule
    from baselines.dreamzero.window import Step
    from xwam.checkpoints.bundle import Bundle
    from xwam.flow.step_cache import StepCache

OFF, DYNAMIC, STATIC = "off", "dynamic", "static-"
STATIC_OF_STEPS = 16
STATIC_SCHEDULES: Mapping[int, tuple[int, ...]] = {
    5: (0, 1, 2, 7, 12),
    6: (0, 1, 5, 10, 14, 15),
    7: (0, 1, 2, 6, 10, 14, 15),
    8: (0, 1, 2, 6, 10, 13, 14, 15),
}
"""The steps of 16 that run, by their number: official code (wan_flow_matching_action_tf.py, commit ab790c1)."""

STEP_CACHES = (OFF, DYNAMIC, *(f"{STATIC}{count}" for count in STATIC_SCHEDULES))


@dataclass(frozen=True)
class DreamZeroPolicyConfig(ModelSettings):
    """Settings of the policy, in addition to those of every model.

    Attributes:
        num_video_steps: Denoising steps of the frames; None for the model's own.
        num_action_steps: Denoising steps of the actions; None for the model's own. Fewer than those of the frames only
            for a Flash model.
        guidance: Weight of conditional minus unconditional velocity of the video; None for the model's own. Actions are
            never guided.
        step_cache: Passes that are skipped: `dynamic` by the cosine of the last two video velocities, `static-5` to
            `static-8` run so many of 16 steps, `off` runs all.
        cache_memory_gib: Largest memory of the cached frames of all episodes; those that do not fit are computed again.
    """

    num_video_steps: int | None = None
    num_action_steps: int | None = None
    guidance: float | None = None  # type: ignore[assignment]
    step_cache: str = DYNAMIC
    cache_memory_gib: float = 4.0


class Pace(NamedTuple):
    """Numbers of a run."""

    num_video_steps: int
    num_action_steps: int
    execute_steps: int
    guidance: float


class DreamZeroPlugin(PredictingPlugin["DreamZeroPolicy"]):
    """The entry point `dreamzero`; its import loads no framework."""

    name = FAMILY
    family_name = FAMILY
    summary = "DreamZero: a block of video and actions after another, from a cache of observed frames; RGB only"
    config_type = DreamZeroPolicyConfig

    def spec(self, config: DreamZeroPolicyConfig) -> PolicySpec:
        """Return what the model needs and predicts, read from the metadata of its checkpoint.

        Raises:
            BadConfig: If the settings cannot be followed, or the model is one of another bench.
        """
        model = self.accepted_model(config)
        network = network_of(model)
        return self.spec_of(
            config,
            model,
            chunk_len=network.actions_per_block,
            execute_steps=self._pace(config, model).execute_steps,
            predicts=("rgb",),
            num_future_frames=network.frames_per_block,
            frame_stride=model.frame_stride,
            takes_actions=network.independent_levels,
            past_frame_stride=model.frame_stride,
        )

    def check(self, config: DreamZeroPolicyConfig) -> None:
        """Raise BadConfig unless a model can follow the settings; nothing is loaded."""
        super().check(replace(config, guidance=config.guidance or 0.0))
        check_range(f"policy.{self.name}.cache_memory_gib", config.cache_memory_gib, 0, MAX_MEMORY_GIB)
        if config.step_cache not in STEP_CACHES:
            raise BadConfig(
                f"policy.{self.name}.step_cache must be one of {', '.join(STEP_CACHES)}, got {config.step_cache}."
            )

    def schedule_facts(self, config: DreamZeroPolicyConfig, model: ModelConfig) -> Mapping[str, str]:
        """Return passes, step caching, window and departures."""
        pace, network = self._pace(config, model), network_of(model)
        own = Pace(model.num_video_steps, model.num_action_steps, model.execute_steps, network.guidance)
        return {
            "denoising": f"{pace.num_action_steps} steps for actions, {pace.num_video_steps} for video, "
            f"guidance {pace.guidance} of the video, step caching {config.step_cache}",
            "window": f"first frame and at most {network.window_blocks} blocks of {network.frames_per_block} frames",
            "execution": f"{pace.execute_steps} of {network.actions_per_block} actions of a chunk",
            "departures from the model's own schedule": departures(*zip(Pace._fields, pace, own, strict=True)),
        }

    def policy(self, config: DreamZeroPolicyConfig, bundle: Bundle) -> DreamZeroPolicy:
        """Return the policy."""
        return DreamZeroPolicy(self.spec(config), self.engine(config, bundle))

    def engine(self, config: DreamZeroPolicyConfig, bundle: Bundle) -> DreamZeroEngine:
        """Return the engine for a model in memory."""
        from baselines.dreamzero.engine import DreamZeroEngine
        from xwam.text.memory import GIB

        return DreamZeroEngine(
            bundle,
            self._schedule(config, bundle.model),
            cache_bytes=int(config.cache_memory_gib * GIB),
            prompt_bytes=prompt_bytes(config),
            width=config.width,
        )

    def _schedule(self, config: DreamZeroPolicyConfig, model: ModelConfig) -> BlockSchedule:
        from baselines.dreamzero.sampler import BlockSchedule

        pace = self._pace(config, model)
        return BlockSchedule(
            num_video_steps=pace.num_video_steps,
            num_action_steps=pace.num_action_steps,
            guidance=pace.guidance,
            step_cache=step_cache_of(config.step_cache),
        )

    def _pace(self, config: DreamZeroPolicyConfig, model: ModelConfig) -> Pace:
        """Return the numbers of a run; those that the settings leave open are the model's own.

        Raises:
            BadConfig: If they cannot be followed.
        """
        network, where = network_of(model), f"policy.{self.name}"
        steps = model.num_video_steps if config.num_video_steps is None else config.num_video_steps
        own_action_steps = min(model.num_action_steps, steps) if network.independent_levels else steps
        action_steps = own_action_steps if config.num_action_steps is None else config.num_action_steps
        check_range(f"{where}.num_video_steps", steps, 1, MAX_STEPS)
        least = 1 if network.independent_levels else steps
        if not least <= action_steps <= steps:
            reason = "1 to" if network.independent_levels else "those of the video, as this model shares their levels:"
            raise BadConfig(f"{where}.num_action_steps must be {reason} {steps}, got {action_steps}.")
        if config.step_cache.startswith(STATIC) and steps != STATIC_OF_STEPS:
            raise BadConfig(
                f"{where}.step_cache={config.step_cache} is a schedule of {STATIC_OF_STEPS} steps, the run has {steps}"
                f"; give {where}.num_video_steps={STATIC_OF_STEPS} or another step_cache."
            )
        executed = self.executed(config, network.actions_per_block, model.execute_steps)
        self._check_executed(executed, model)
        guidance = network.guidance if config.guidance is None else config.guidance
        return Pace(steps, action_steps, executed, guidance)

    def _check_executed(self, executed: int, model: ModelConfig) -> None:
        """Raise BadConfig unless the frames that a request then observes fill a block when they are repeated.

        A single frame does not: on one, the window starts again, as in the official code, so that a run would never
        have more than its first frame.
        """
        per_block, stride = network_of(model).frames_per_block, model.frame_stride
        fitting = [stride * count for count in range(2, per_block + 1) if per_block % count == 0]
        if executed not in fitting:
            raise BadConfig(
                f"policy.{self.name}.execute_steps={executed} observes no part of a block of {per_block} frames "
                f"{count_of(stride, 'step')} apart that continues a window; give one of {', '.join(map(str, fitting))}."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockJob(EngineJob):
    """A request under way, and its place in its episode.

    Attributes:
        episode_id: The episode.
        chunk_idx: The request's number in it.
        before: The episode up to the request.
        step: The window of the request.
    """

    episode_id: str
    chunk_idx: int
    before: Past
    step: Step


class DreamZeroPolicy(PredictingPolicy["DreamZeroEngine"]):
    """The model in memory, and the window of every episode. A reply depends on the requests of its episode alone."""

    def __init__(self, spec: PolicySpec, engine: DreamZeroEngine) -> None:
        from baselines.dreamzero.memory import EpisodeMemory

        super().__init__(spec, engine)
        self._memory = EpisodeMemory()

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Forget what was remembered under this id."""
        self._memory.reset(episode_id)

    def prepare(self, request: PolicyRequest) -> BlockJob:
        """Return the job of a request before its first pass; nothing of it is remembered yet."""
        started = time.perf_counter()
        seen, num_frames = request.observation, request.num_predicted_frames
        before = self._memory.before(request.episode_id, request.chunk_idx)
        step = self.engine.windows.after(before.window, seen.rgb, request.past_rgb, seen.instruction)
        given = request.given_actions
        block = self.engine.begin(
            step.window, seen.proprio, seed=request.noise_seed, given_actions=given, predict=num_frames > 0
        )
        return BlockJob(
            under_way=block,
            given=given,
            num_frames=num_frames,
            encode_ms=(time.perf_counter() - started) * 1e3,
            episode_id=request.episode_id,
            chunk_idx=request.chunk_idx,
            before=before,
            step=step,
        )

    def actions(self, job: EngineJob) -> PolicyReply:
        """Return the reply of a job whose actions are clean; from now on the episode remembers its request."""
        assert isinstance(job, BlockJob), "`prepare` makes the jobs"
        after = job.before.after(job.step, job.under_way.runs_to_act)
        self._memory.remember(job.episode_id, job.chunk_idx, job.before, after)
        return replace(super().actions(job), details=after.details())


def step_cache_of(name: str) -> StepCache | None:
    """Return the step caching of that name, one of `STEP_CACHES`."""
    from xwam.flow.step_cache import StepCache

    if name == OFF:
        return None
    return StepCache() if name == DYNAMIC else StepCache(run_steps=STATIC_SCHEDULES[int(name.removeprefix(STATIC))])
