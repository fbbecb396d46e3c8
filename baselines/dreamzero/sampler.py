"""Denoises one block, frames and actions, against a cache of observed frames that it only reads.

In: caches, the present state, noise, a schedule. Out: states of denoising; nothing is changed in place.
Read next: `xwam/flow/unipc.py` for a step, `step_cache.py` for skipped passes, `engine.py` for the caller.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.dreamzero.network import DreamZeroNetwork, Flows, FrameCache
from baselines.dreamzero.step_cache import History, StepCache
from xwam.flow.unipc import UniPCState, unipc_grid, unipc_step
from xwam.network.transformer import TextContext


@dataclass(frozen=True, kw_only=True)
class BlockSchedule:
    """Numbers of passes, and which of them run.

    Attributes:
        num_video_steps: Passes until the frames are clean.
        num_action_steps: Passes until the actions are; fewer only for a network trained with independent levels.
        guidance: 0 for the conditional pass alone; else the weight of conditional minus unconditional velocity of the
            video. Actions always have the conditional velocity.
        step_cache: Which passes run; None for all.
    """

    num_video_steps: int
    num_action_steps: int
    guidance: float = 0.0
    step_cache: StepCache | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.num_action_steps <= self.num_video_steps:
            raise ValueError(
                f"Actions need 1 to {self.num_video_steps} steps (those of the video), got {self.num_action_steps}."
            )


class Context(NamedTuple):
    """What a pass reads: the observed frames, and the prompt under which they were cached."""

    cache: FrameCache
    text: TextContext


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockState:
    """One block during denoising.

    Attributes:
        schedule: Passes and guidance.
        video: Its latent frames, B,C,T,V,H,W.
        action: Its actions, B,K,A.
        proprio_BNS: The state at its start, B,1,S.
        seen: Cache and prompt.
        blind: The same for the empty prompt; needed for guidance.
        history: The passes so far.
    """

    schedule: BlockSchedule
    video: UniPCState
    action: UniPCState
    proprio_BNS: Tensor
    seen: Context
    blind: Context | None = None
    history: History = field(default_factory=History)

    @property
    def actions_clean(self) -> bool:
        """Return whether the actions are clean."""
        return self.action.step_idx == self.schedule.num_action_steps

    @property
    def done(self) -> bool:
        """Return whether the frames are clean too."""
        return self.video.step_idx == self.schedule.num_video_steps


def begin(
    schedule: BlockSchedule,
    *,
    noise_video_BCTVHW: Tensor,
    noise_action_BKA: Tensor,
    proprio_BNS: Tensor,
    seen: Context,
    blind: Context | None = None,
    given_action_BKA: Tensor | None = None,
) -> BlockState:
    """Return the state before the first pass.

    Args:
        schedule: Passes and guidance.
        noise_video_BCTVHW: Noise of the frames.
        noise_action_BKA: Noise of the actions.
        proprio_BNS: The present state.
        seen: Cache and prompt.
        blind: Those of the empty prompt.
        given_action_BKA: Known actions, which stand at t = 0 in every pass: only for a network trained with independent
            levels, which has seen clean actions next to noisy frames.

    Raises:
        ValueError: If guidance lacks the empty prompt.
    """
    if schedule.guidance and blind is None:
        raise ValueError(f"Guidance {schedule.guidance} needs the cache of the empty prompt (blind).")
    action = UniPCState(x=noise_action_BKA)
    if given_action_BKA is not None:
        action = UniPCState(x=given_action_BKA, step_idx=schedule.num_action_steps)
    return BlockState(
        schedule=schedule,
        video=UniPCState(x=noise_video_BCTVHW),
        action=action,
        proprio_BNS=proprio_BNS,
        seen=seen,
        blind=blind,
    )


def run(network: DreamZeroNetwork, state: BlockState, *, stop_after_actions: bool = False) -> BlockState:
    """Return the state when everything is clean, or when the actions are."""
    while not (state.done or (stop_after_actions and state.actions_clean)):
        state = advance(network, state)
    return state


def advance(network: DreamZeroNetwork, state: BlockState) -> BlockState:
    """Return the state after one more step, whose pass may be skipped."""
    cache, step_idx = state.schedule.step_cache, state.video.step_idx
    runs, history = (True, state.history) if cache is None else cache.decide(step_idx, state.history)
    if runs:
        history = history.after_run(flows_of(network, state))
    assert history.last is not None, "the first pass runs in every schedule"
    return _step(replace(state, history=history), history.last)


def flows_of(network: DreamZeroNetwork, state: BlockState) -> Flows:
    """Return the velocities of one pass: the video's guided, the actions' conditional."""
    seen = _denoise(network, state, state.seen)
    if not state.schedule.guidance:
        return seen
    assert state.blind is not None
    blind = _denoise(network, state, state.blind).video_BCTVHW
    return seen._replace(video_BCTVHW=blind + state.schedule.guidance * (seen.video_BCTVHW - blind))


def timesteps_of(state: BlockState) -> tuple[float, float]:
    """Return the timesteps of frames and actions in the coming pass; clean actions stand at 0."""
    schedule = state.schedule
    video = unipc_grid(schedule.num_video_steps).timesteps[state.video.step_idx]
    if state.actions_clean:
        return float(video), 0.0
    return float(video), float(unipc_grid(schedule.num_action_steps).timesteps[state.action.step_idx])


def _denoise(network: DreamZeroNetwork, state: BlockState, context: Context) -> Flows:
    video, action = state.video.x, state.action.x
    t_video_B, t_action_B = (torch.full((len(video),), t, device=video.device) for t in timesteps_of(state))
    return network.denoise(video, action, state.proprio_BNS, t_video_B, t_action_B, context.cache, context.text)


def _step(state: BlockState, flows: Flows) -> BlockState:
    schedule = state.schedule
    video = unipc_step(unipc_grid(schedule.num_video_steps), state.video, flows.video_BCTVHW)
    if state.actions_clean:
        return replace(state, video=video)
    action = unipc_step(unipc_grid(schedule.num_action_steps), state.action, flows.action_BKA)
    return replace(state, video=video, action=action)
