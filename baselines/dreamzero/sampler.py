"""Denoises one block, frames and actions, against a cache of observed frames that it only reads.

In: caches, the present state, noise, a schedule. Out: states of denoising; nothing is changed in place.
Read next: `xwam/flow/unipc.py` for a step, `xwam/flow/step_cache.py` for skipped passes, `engine.py` for the
caller.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.dreamzero.network import DreamZeroNetwork, Flows, FrameCache
from xwam.flow.guidance import guided
from xwam.flow.step_cache import History, StepCache, cosine_of
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
    history: History[Flows] = field(default_factory=History)

    @property
    def actions_clean(self) -> bool:
        """Return whether the actions are clean."""
        return self.action.step_idx == self.schedule.num_action_steps

    @property
    def done(self) -> bool:
        """Return whether the frames are clean too."""
        return self.video.step_idx == self.schedule.num_video_steps

    @property
    def passes_to_actions(self) -> int:
        """Return how many passes are missing until the actions are clean, if none is skipped by its velocities."""
        return self._passes(self.video.step_idx + self.schedule.num_action_steps - self.action.step_idx)

    @property
    def passes_to_video(self) -> int:
        """Return how many passes are missing until the frames are clean too, if none is skipped by its velocities."""
        return self._passes(self.schedule.num_video_steps)

    @property
    def group(self) -> Hashable:
        """Return what states must have in common to share a pass without changing one another's bits."""
        sizes = tuple(tuple(tensor.shape[1:]) for tensor in (self.video.x, self.action.x, self.proprio_BNS))
        text = self.seen.text
        return (*sizes, self.seen.cache.num_frames, text.num_tokens, text.bias_BN is None)

    def _passes(self, end: int) -> int:
        """Return how many of the steps up to `end` run."""
        cache, steps = self.schedule.step_cache, range(self.video.step_idx, end)
        return len(steps) if cache is None or cache.run_steps is None else len(set(steps) & set(cache.run_steps))


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
        (state,) = advance(network, [state])
    return state


def advance(network: DreamZeroNetwork, states: Sequence[BlockState]) -> list[BlockState]:
    """Return the states after a pass that they share, and after the steps whose passes are skipped behind it.

    So a skipped pass never takes a row of a shared one: the next pass of every state is one that runs.

    Args:
        network: The model.
        states: Requests that are not done, of one `group`.
    """
    return [
        _skipping(_step(replace(state, history=state.history.after_run(flows)), flows))
        for state, flows in zip(states, flows_of(network, states), strict=True)
    ]


def _skipping(state: BlockState) -> BlockState:
    """Return the state after the steps whose passes are skipped: they take the velocities of the last pass."""
    cache = state.schedule.step_cache
    while cache is not None and not state.done:
        runs, history = cache.decide(state.video.step_idx, state.history, likeness)
        if runs:
            return state
        assert history.last is not None, "the first pass runs in every schedule"
        state = _step(replace(state, history=history), history.last)
    return state


def likeness(one: Flows, two: Flows) -> float:
    """Return the cosine of two video velocities."""
    return cosine_of(one.video_BCTVHW, two.video_BCTVHW)


def flows_of(network: DreamZeroNetwork, states: Sequence[BlockState]) -> list[Flows]:
    """Return the velocities of each state in one pass: the video's guided, the actions' conditional."""

    def seeing(rows: Sequence[BlockState]) -> list[Flows]:
        return _denoise(network, rows, [row.seen for row in rows])

    def blind(rows: Sequence[BlockState]) -> list[Flows]:
        return _denoise(network, rows, [_blind(row) for row in rows])

    return guided(seeing, blind, states, [state.schedule.guidance for state in states], guide_video)


def guide_video(seen: Flows, blind: Flows, weight: float) -> Flows:
    """Return the guided velocity of the video, and that of the actions under the prompt."""
    return seen._replace(video_BCTVHW=blind.video_BCTVHW + weight * (seen.video_BCTVHW - blind.video_BCTVHW))


def _blind(state: BlockState) -> Context:
    assert state.blind is not None, "`begin` refuses guidance without it"
    return state.blind


def timesteps_of(state: BlockState) -> tuple[float, float]:
    """Return the timesteps of frames and actions in the coming pass; clean actions stand at 0."""
    schedule = state.schedule
    video = unipc_grid(schedule.num_video_steps).timesteps[state.video.step_idx]
    if state.actions_clean:
        return float(video), 0.0
    return float(video), float(unipc_grid(schedule.num_action_steps).timesteps[state.action.step_idx])


def _denoise(network: DreamZeroNetwork, states: Sequence[BlockState], contexts: Sequence[Context]) -> list[Flows]:
    counts = [len(state.video.x) for state in states]
    video, action, proprio = (
        torch.cat(parts) for parts in zip(*((s.video.x, s.action.x, s.proprio_BNS) for s in states), strict=True)
    )
    t_video_B, t_action_B = (
        torch.cat([torch.full((count,), t, device=video.device) for count, t in zip(counts, ts, strict=True)])
        for ts in zip(*map(timesteps_of, states), strict=True)
    )
    caches, texts = zip(*contexts, strict=True)
    flows = network.denoise(
        video, action, proprio, t_video_B, t_action_B, FrameCache.cat(caches), TextContext.cat(texts)
    )
    return [Flows(*parts) for parts in zip(*(field.split(counts) for field in flows), strict=True)]


def _step(state: BlockState, flows: Flows) -> BlockState:
    schedule = state.schedule
    video = unipc_step(unipc_grid(schedule.num_video_steps), state.video, flows.video_BCTVHW)
    if state.actions_clean:
        return replace(state, video=video)
    action = unipc_step(unipc_grid(schedule.num_action_steps), state.action, flows.action_BKA)
    return replace(state, video=video, action=action)
