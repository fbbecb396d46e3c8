"""The sampler: denoises video, actions and states asynchronously, from noise to data.

In: a state of denoising and a network. Out: the next state; nothing is changed in place.
Read next: `unipc.py` for a step, `guidance.py` for the pass without a prompt, `noise.py` for the grids,
`xwam/serving/engine.py` for the caller.

A caller may hold many states at different steps and pass any of them to one `advance`: they share the forward pass,
because every request has its own timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from xwam.config import LATENT_STRIDES, Geometry
from xwam.flow.frozen import freezes, frozen_velocities
from xwam.flow.guidance import guide_one, guided, split_rows
from xwam.flow.joining import joined
from xwam.flow.realtime_chunking import Commitment
from xwam.flow.step_cache import History, StepCache, cosine_of
from xwam.flow.unipc import UniPCState, unipc_grid, unipc_step
from xwam.network.frozen import KeepingKeys, VideoKeys
from xwam.network.transformer import Denoised, TextContext, Timesteps, XwamNetwork, with_clean_actions


class Denoiser(Protocol):
    """The network as the sampler calls it: `XwamNetwork`, or another implementation of the same."""

    def geometry(self, video_BCTVHW: Tensor, num_actions: int, num_proprios: int) -> Geometry:
        """Return the tokens behind tensors of these sizes."""

    def timesteps(self, t_video_B: Tensor, t_action_B: Tensor, geometry: Geometry) -> Timesteps:
        """Return which tokens stand at which timestep."""

    def parameters(self) -> Iterator[Tensor]:
        """Return the weights."""

    def __call__(
        self,
        video_BCTVHW: Tensor,
        action_BKA: Tensor,
        proprio_BPS: Tensor,
        times: Timesteps,
        text: TextContext,
        *,
        depth: bool = False,
    ) -> Denoised:
        """Return velocities; with `depth`, clean depth latents too."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Numbers of passes of each modality.

    Attributes:
        num_video_steps: Passes until the video is clean.
        num_action_steps: Passes until actions and states are clean; equal for synchronous denoising.
        guidance: 0 for one conditional pass; else the weight of conditional minus unconditional velocity.
        step_cache: Which passes run; None for all.
        freeze_video_after: Whole passes after which the video stands still until the actions are clean; None for never.
    """

    num_video_steps: int
    num_action_steps: int
    guidance: float = 0.0
    step_cache: StepCache | None = None
    freeze_video_after: int | None = None

    def __post_init__(self) -> None:
        if self.freeze_video_after is not None and (self.guidance or self.step_cache):
            raise ValueError("A frozen video can be combined neither with guidance nor with a step cache.")
        if not 1 <= self.num_action_steps <= self.num_video_steps:
            raise ValueError(
                f"Actions need 1 to {self.num_video_steps} steps (those of the video), got {self.num_action_steps}."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenActions:
    """Known actions, B,K,A, normalised, and the noise that is mixed into them during the action phase."""

    clean_BKA: Tensor
    noise_BKA: Tensor

    def at(self, sigma: float, step_idx: int) -> UniPCState:
        """Return the actions at a noise level."""
        return UniPCState(x=(1 - sigma) * self.clean_BKA + sigma * self.noise_BKA, step_idx=step_idx)


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplerState:
    """One request (or several in lockstep) during denoising.

    Attributes:
        schedule: Step counts and guidance.
        video: B,C,T,V,H,W; with sequence or channel concatenation, the channels of depth follow those of the video.
        action: B,K,A.
        proprio: B,P,S.
        seen_latent_BCVHW: The first latent frame, clean.
        seen_proprio_BS: The first state, clean.
        text: The prompt.
        null_text: The empty prompt, which guidance needs.
        depth_BCTVHW: Clean depth latents of the last pass with the depth branch.
        commitment: Actions of the previous chunk that this one must join; None without real-time chunking.
        free_action_BKA: Clean actions before the committed ones took the place of the first; None without guidance.
        given: Known actions, which are not denoised; None if the model acts.
        history: The passes so far, for the step cache.
        video_keys: Keys and values of the video while it stands still; else None.
    """

    schedule: Schedule
    video: UniPCState
    action: UniPCState
    proprio: UniPCState
    seen_latent_BCVHW: Tensor
    seen_proprio_BS: Tensor
    text: TextContext
    null_text: TextContext | None = None
    depth_BCTVHW: Tensor | None = None
    commitment: Commitment | None = None
    free_action_BKA: Tensor | None = None
    given: GivenActions | None = None
    history: History[Denoised] = field(default_factory=History)
    video_keys: VideoKeys | None = None

    @property
    def num_clean(self) -> int:
        """Return how many first actions the next pass gets clean while the others are noisy."""
        commitment = self.commitment
        return commitment.delay if commitment and commitment.as_prefix and not self.actions_clean else 0

    @property
    def actions_clean(self) -> bool:
        """Return whether the actions are clean."""
        return self.action.step_idx == self.schedule.num_action_steps

    @property
    def done(self) -> bool:
        """Return whether the video is clean too."""
        return self.video.step_idx == self.schedule.num_video_steps

    @property
    def passes_to_actions(self) -> int:
        """Return how many passes are missing until the actions are clean."""
        return self.schedule.num_action_steps - self.action.step_idx

    @property
    def passes_to_video(self) -> int:
        """Return how many passes are missing until the video is clean too; those of a frozen video come on top."""
        with_actions = self.passes_to_actions
        if self.schedule.freeze_video_after is not None and self.given is None and self.commitment is None:
            whole = self.schedule.freeze_video_after - self.video.step_idx
            with_actions = min(with_actions, max(0, whole))
        return self.schedule.num_video_steps - self.video.step_idx + self.passes_to_actions - with_actions

    @property
    def joining(self) -> bool:
        """Return whether the next pass pulls its actions towards a commitment, which takes gradients."""
        return self.commitment is not None and not self.commitment.as_prefix and not self.actions_clean

    @property
    def group(self) -> Hashable:
        """Return what states must have in common to share a pass without changing one another's bits."""
        frozen = self.video_keys is not None
        return (*_sizes(self).values(), self.text.num_tokens, self.text.bias_BN is None, self.joining, frozen)


class Latents(NamedTuple):
    """Clean latents, B,C,T,V,H,W each; the first latent frame of the video is the present. None without depth."""

    video_BCTVHW: Tensor
    depth_BCTVHW: Tensor | None

    def first(self, num_frames: int) -> Latents:
        """Return the latents of the present and of the first future frames, which is all that decoding those takes."""
        end = 1 + math.ceil(num_frames / LATENT_STRIDES[0])
        return Latents(*(None if latent is None else latent[:, :, :end] for latent in self))  # type: ignore[arg-type]


def latents_of(state: SamplerState) -> Latents:
    """Return the latents of a state; a network that denoises video and depth together has both in one tensor."""
    video, channels = state.video.x, state.seen_latent_BCVHW.shape[1]
    if video.shape[1] == 2 * channels:
        return Latents(*video.chunk(2, dim=1))
    return Latents(video, state.depth_BCTVHW)


def begin(
    schedule: Schedule,
    *,
    noise_video_BCTVHW: Tensor,
    noise_action_BKA: Tensor,
    noise_proprio_BPS: Tensor,
    seen_latent_BCVHW: Tensor,
    seen_proprio_BS: Tensor,
    text: TextContext,
    null_text: TextContext | None = None,
    commitment: Commitment | None = None,
    given_action_BKA: Tensor | None = None,
) -> SamplerState:
    """Return the state before the first pass: noise, except for the present and given actions."""
    given = None
    if given_action_BKA is not None:
        if commitment is not None:
            raise ValueError("Given actions cannot be combined with real-time chunking; leave out `commitment`.")
        given = GivenActions(clean_BKA=given_action_BKA, noise_BKA=noise_action_BKA)
    first_sigma = unipc_grid(schedule.num_action_steps).sigmas[0]
    state = SamplerState(
        schedule=schedule,
        video=UniPCState(x=_with_seen_latent(noise_video_BCTVHW, seen_latent_BCVHW)),
        action=UniPCState(x=noise_action_BKA) if given is None else given.at(first_sigma, 0),
        proprio=UniPCState(x=_with_seen_proprio(noise_proprio_BPS, seen_proprio_BS)),
        seen_latent_BCVHW=seen_latent_BCVHW,
        seen_proprio_BS=seen_proprio_BS,
        text=text,
        null_text=null_text,
        commitment=commitment,
        given=given,
    )
    if schedule.guidance:
        _null_text(state)
    return state


def advance(network: Denoiser, states: Sequence[SamplerState], *, depth: bool = False) -> list[SamplerState]:
    """Return the states after one more pass, which they share.

    Args:
        network: The model.
        states: Requests that are not done, at any step; of the same tensor sizes. Guidance may differ.
        depth: Whether the depth branch runs in this pass.

    Raises:
        ValueError: If a state is done, or its tensors have other sizes than those of the first.
    """
    _check(states)
    if states[0].video_keys is not None:
        levels = [timesteps_of(state) for state in states]
        velocities = frozen_velocities(cast(XwamNetwork, network), states, levels)
        return [_step(state, out) for state, out in zip(states, velocities, strict=True)]
    keeping = KeepingKeys(cast(XwamNetwork, network)) if any(freezes(state) for state in states) else None
    velocities = _velocities(network if keeping is None else keeping, states, depth=depth)
    stepped = [_skipping(_step(state, out), out) for state, out in zip(states, velocities, strict=True)]
    if keeping is None:
        return stepped
    return [
        replace(after, video_keys=keeping.of_row(row)) if freezes(before) else after
        for row, (before, after) in enumerate(zip(states, stepped, strict=True))
    ]


def _velocities(network: Denoiser, states: Sequence[SamplerState], *, depth: bool) -> list[Denoised]:
    """Return the velocities of each state in a pass that they share."""
    velocities_of = partial(_guided, network, depth=depth)
    if any(state.joining for state in states):
        return joined(network.parameters(), states, velocities_of)
    return velocities_of(states)


def _skipping(state: SamplerState, out: Denoised) -> SamplerState:
    """Return a state after the steps behind a pass that its step cache skips: they take the velocities of the pass.

    The last step is never skipped: its pass predicts depth. Neither is one that joins a chunk.
    """
    cache = state.schedule.step_cache
    if cache is None:
        return state
    state = replace(state, history=state.history.after_run(out._replace(depth_BCTVHW=None)))
    while state.passes_to_video > 1 and not state.joining:
        runs, history = cache.decide(state.video.step_idx, state.history, partial(_likeness, state))
        if runs:
            break
        assert history.last is not None, "a pass has just run"
        state = _step(replace(state, history=history), history.last)
    return state


def _likeness(state: SamplerState, one: Denoised, two: Denoised) -> float:
    """Return the least cosine between the velocities of two passes, of all that is still noisy."""
    noisy = [(one.video_BCTVHW, two.video_BCTVHW)]
    if not state.actions_clean:
        noisy += [(one.action_BKA, two.action_BKA), (one.proprio_BPS, two.proprio_BPS)]
    return min(cosine_of(*pair) for pair in noisy)


def _check(states: Sequence[SamplerState]) -> None:
    """Refuse states that cannot share a pass."""
    if not states:
        raise ValueError("A pass needs at least one state, got none.")
    first = _sizes(states[0])
    for index, state in enumerate(states):
        if state.done:
            raise ValueError(
                f"State {index} of {len(states)} is done after {state.schedule.num_video_steps} passes; leave it out."
            )
        for name, size in _sizes(state).items():
            if size != first[name]:
                raise ValueError(
                    f"State {index} of {len(states)} has {name} of {size}, state 0 of {first[name]}; run states "
                    f"of different sizes in separate passes."
                )


def _sizes(state: SamplerState) -> dict[str, tuple[int, ...]]:
    """Return what states of one pass have in common: sizes without the number of requests, and clean actions."""
    parts = {"video": state.video, "actions": state.action, "states": state.proprio}
    return {name: tuple(part.x.shape[1:]) for name, part in parts.items()} | {"clean actions": (state.num_clean,)}


def run(
    network: Denoiser, state: SamplerState, *, stop_after_actions: bool = False, depth: bool = True
) -> SamplerState:
    """Return the state when everything is clean, or when the actions are.

    Args:
        network: The model.
        state: The first state.
        stop_after_actions: Stop as soon as the actions are clean.
        depth: Whether the last pass also predicts depth; no other pass needs it.
    """
    while left := state.passes_to_actions if stop_after_actions else state.passes_to_video:
        (state,) = advance(network, [state], depth=depth and left == 1)
    return state


def _guided(network: Denoiser, states: Sequence[SamplerState], *, depth: bool) -> list[Denoised]:
    """Return the velocities of each state."""

    def seeing(rows: Sequence[SamplerState]) -> list[Denoised]:
        return _forward(network, rows, [row.text for row in rows], depth=depth)

    def blind(rows: Sequence[SamplerState]) -> list[Denoised]:
        return _forward(network, rows, [_null_text(row) for row in rows], depth=False)

    return guided(seeing, blind, states, [state.schedule.guidance for state in states], guide_one)


def _null_text(state: SamplerState) -> TextContext:
    if state.null_text is None:
        raise ValueError(f"Guidance {state.schedule.guidance} needs the context of the empty prompt (null_text).")
    return state.null_text


def _forward(
    network: Denoiser, states: Sequence[SamplerState], texts: Sequence[TextContext], *, depth: bool
) -> list[Denoised]:
    """Return what the network says of each state."""
    video = torch.cat([state.video.x for state in states])
    action = torch.cat([_with_prefix(state) for state in states])
    proprio = torch.cat([state.proprio.x for state in states])
    counts = [state.video.x.shape[0] for state in states]
    levels = [timesteps_of(state) for state, count in zip(states, counts, strict=True) for _ in range(count)]
    t_video, t_action = torch.tensor(levels).unbind(1)
    geometry = network.geometry(video, action.shape[1], proprio.shape[1])
    times = network.timesteps(t_video.to(video.device), t_action.to(video.device), geometry)
    if states[0].num_clean:
        times = with_clean_actions(times, geometry, states[0].num_clean)
    out = network(video, action, proprio, times, TextContext.cat(texts), depth=depth)
    return split_rows(out, counts)


def timesteps_of(state: SamplerState) -> tuple[float, float]:
    """Return the timesteps of video and actions in the coming pass; clean actions stand at 0."""
    video = unipc_grid(state.schedule.num_video_steps).timesteps[state.video.step_idx]
    if state.actions_clean:
        return float(video), 0.0
    return float(video), float(unipc_grid(state.schedule.num_action_steps).timesteps[state.action.step_idx])


def _step(state: SamplerState, out: Denoised) -> SamplerState:
    """Return the state after the velocities of one pass, with the present frame and state restored."""
    video = state.video
    if state.video_keys is None:
        video = unipc_step(unipc_grid(state.schedule.num_video_steps), video, out.video_BCTVHW)
        video = replace(video, x=_with_seen_latent(video.x, state.seen_latent_BCVHW))
    depth = state.depth_BCTVHW if out.depth_BCTVHW is None else out.depth_BCTVHW
    if state.actions_clean:
        return replace(state, video=video, depth_BCTVHW=depth)
    grid = unipc_grid(state.schedule.num_action_steps)
    proprio = unipc_step(grid, state.proprio, out.proprio_BPS)
    action = unipc_step(grid, state.action, out.action_BKA)
    free = action.x if state.joining and action.step_idx == grid.num_steps else None
    if state.commitment is not None and (state.commitment.as_prefix or free is not None):
        action = replace(action, x=_with_committed(action.x, state.commitment))
    if state.given is not None:
        action = state.given.at(grid.sigmas[action.step_idx], action.step_idx)
    return replace(
        state,
        video=video,
        action=action,
        proprio=replace(proprio, x=_with_seen_proprio(proprio.x, state.seen_proprio_BS)),
        depth_BCTVHW=depth,
        free_action_BKA=free,
        video_keys=None if action.step_idx == grid.num_steps else state.video_keys,
    )


def _with_seen_latent(video_BCTVHW: Tensor, seen_BCVHW: Tensor) -> Tensor:
    """Return the video with the present as its first latent frame; depth channels stay as they are."""
    video = video_BCTVHW.clone()
    video[:, : seen_BCVHW.shape[1], 0] = seen_BCVHW
    return video


def _with_prefix(state: SamplerState) -> Tensor:
    """Return the actions as the next pass gets them: the first ones clean where they are a prefix."""
    if state.num_clean == 0 or state.commitment is None:
        return state.action.x
    return _with_committed(state.action.x, state.commitment)


def _with_committed(action_BKA: Tensor, commitment: Commitment) -> Tensor:
    """Return actions that begin with the committed ones, clean."""
    committed = commitment.action_BKA[:, : commitment.delay].to(action_BKA)
    return torch.cat([committed, action_BKA[:, commitment.delay :]], dim=1)


def _with_seen_proprio(proprio_BPS: Tensor, seen_BS: Tensor) -> Tensor:
    return torch.cat([seen_BS[:, None], proprio_BPS[:, 1:]], dim=1)
