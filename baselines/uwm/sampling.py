"""Denoising in any of the five uses: every pass moves the groups that the use denoises, and leaves the others.

In: a use, noise, what is given, a network. Out: clean tensors of the denoised groups.
Read next: `uses.py`, the table; `xwam/flow/unipc.py`, the solver; `engine.py`, the caller.

Letters: B batch, C latent channels, T latent frames, V views, H W latent rows and columns, K actions, P states,
A numbers in an action, S numbers in a state.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.uwm.network import UwmNetwork
from baselines.uwm.uses import Does, Use
from xwam.flow.guidance import guide_one, guided, split_rows
from xwam.flow.unipc import UniPCState, unipc_grid, unipc_step
from xwam.network.transformer import Denoised, TextContext


class Groups(NamedTuple):
    """Video, actions and states; their first frame and first state are the present ones.

    Attributes:
        video_BCTVHW: Latents.
        action_BKA: Normalised actions.
        proprio_BPS: Normalised states.
    """

    video_BCTVHW: Tensor
    action_BKA: Tensor
    proprio_BPS: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Denoising:
    """One request (or several in lockstep) of one use.

    Attributes:
        use: What happens to actions and observation.
        num_steps: Passes, the same for both groups.
        groups: Video, actions and states; those that are not denoised never change.
        text: The prompts.
        null_text: The empty prompts; needed for guidance.
        guidance: 0 for one conditional pass; else the weight of conditional minus unconditional velocity.
    """

    use: Use
    num_steps: int
    groups: tuple[UniPCState, UniPCState, UniPCState]
    text: TextContext
    null_text: TextContext | None = None
    guidance: float = 0.0

    @property
    def does(self) -> tuple[Does, Does, Does]:
        """Return what happens to video, actions and states."""
        return self.use.observation, self.use.action, self.use.observation

    @property
    def step_idx(self) -> int:
        """Return the passes that are done; all of them where nothing is denoised."""
        moving = [group for group, does in zip(self.groups, self.does, strict=True) if does is Does.DENOISED]
        return moving[0].step_idx if moving else self.num_steps

    @property
    def passes_left(self) -> int:
        """Return how many passes are missing."""
        return self.num_steps - self.step_idx

    @property
    def done(self) -> bool:
        """Return whether everything that the use denoises is clean."""
        return not self.passes_left

    @property
    def group(self) -> Hashable:
        """Return what states must have in common to share a pass without changing one another's bits."""
        sizes = tuple(tuple(part.shape[1:]) for part in self.values)
        return (*sizes, self.text.num_tokens, self.text.bias_BN is None)

    @property
    def values(self) -> Groups:
        """Return the tensors."""
        return Groups(*(group.x for group in self.groups))


def begin(
    use: Use,
    num_steps: int,
    noise: Groups,
    *,
    present: tuple[Tensor, Tensor],
    text: TextContext,
    given: Groups | None = None,
    null_text: TextContext | None = None,
    guidance: float = 0.0,
) -> Denoising:
    """Return the state before the first pass: noise, what is given, and the present.

    Args:
        use: A row of `USES`.
        num_steps: Passes.
        noise: Standard normal tensors.
        present: The latents of the present frame, B,C,V,H,W, and the present state, B,S.
        text: The prompts.
        given: Known tensors; only those of the groups that the use takes as given are read.
        null_text: The empty prompts; needed for guidance.
        guidance: Weight of the prompt.

    Raises:
        ValueError: If the use takes something as given that is missing, or guidance lacks the empty prompt.
    """
    if given is None and Does.GIVEN in use:
        raise ValueError(f"This use takes {', '.join(_given(use))} as given; pass `given`.")
    if guidance and null_text is None:
        raise ValueError(f"Guidance {guidance} needs the context of the empty prompt (null_text).")
    does = (use.observation, use.action, use.observation)
    start = [
        known if each is Does.GIVEN else drawn for each, drawn, known in zip(does, noise, given or noise, strict=True)
    ]
    groups = _with_present(Groups(*start), present)
    video, action, proprio = (UniPCState(x=x) for x in groups)
    return Denoising(
        use=use,
        num_steps=num_steps,
        groups=(video, action, proprio),
        text=text,
        null_text=null_text,
        guidance=guidance,
    )


def timestep_of(does: Does, step_idx: int, num_steps: int) -> float:
    """Return the timestep of a group in a pass.

    Example:
        >>> [timestep_of(does, 1, 4) for does in Does]
        [937.0, 999.0, 0.0]
    """
    timesteps = unipc_grid(num_steps).timesteps
    return float({Does.DENOISED: timesteps[step_idx], Does.NOISE: timesteps[0], Does.GIVEN: 0}[does])


def advance(network: UwmNetwork, states: Sequence[Denoising]) -> list[Denoising]:
    """Return the states after one more pass, which they share; each has its own use and step."""
    return [_step(state, out) for state, out in zip(states, _velocities(network, states), strict=True)]


def _step(state: Denoising, velocities: Denoised) -> Denoising:
    """Return the state after the velocities of one pass."""
    grid, before = unipc_grid(state.num_steps), state.values
    moved = tuple(
        unipc_step(grid, group, velocity) if does is Does.DENOISED else group
        for does, group, velocity in zip(state.does, state.groups, velocities[:3], strict=True)
    )
    present = before.video_BCTVHW[:, :, 0], before.proprio_BPS[:, 0]
    kept = _with_present(Groups(*(group.x for group in moved)), present)
    video, action, proprio = (replace(group, x=x) for group, x in zip(moved, kept, strict=True))
    return replace(state, groups=(video, action, proprio))


def run(network: UwmNetwork, state: Denoising) -> Denoising:
    """Return the state after all passes."""
    while not state.done:
        (state,) = advance(network, [state])
    return state


def _velocities(network: UwmNetwork, states: Sequence[Denoising]) -> list[Denoised]:
    """Return the velocities of all groups of each state in the coming pass."""

    def seeing(rows: Sequence[Denoising]) -> list[Denoised]:
        return _pass(network, rows, [row.text for row in rows])

    def blind(rows: Sequence[Denoising]) -> list[Denoised]:
        return _pass(network, rows, [_null_text(row) for row in rows])

    return guided(seeing, blind, states, [state.guidance for state in states], guide_one)


def _null_text(state: Denoising) -> TextContext:
    assert state.null_text is not None, "`begin` refuses guidance without it"
    return state.null_text


def _pass(network: UwmNetwork, states: Sequence[Denoising], texts: Sequence[TextContext]) -> list[Denoised]:
    video, action, proprio = (torch.cat(parts) for parts in zip(*(state.values for state in states), strict=True))
    geometry = network.geometry(video, action.shape[1], proprio.shape[1])
    counts = [len(state.values.action_BKA) for state in states]
    t_video_B, t_action_B = (
        torch.cat([action.new_full((count,), t) for count, t in zip(counts, ts, strict=True)])
        for ts in zip(*map(timesteps_of, states), strict=True)
    )
    times = network.timesteps(t_video_B, t_action_B, geometry)
    return split_rows(network(video, action, proprio, times, TextContext.cat(texts)), counts)


def timesteps_of(state: Denoising) -> tuple[float, float]:
    """Return the timesteps of observation and actions in the coming pass."""
    observation, action = (
        timestep_of(does, state.step_idx, state.num_steps) for does in (state.use.observation, state.use.action)
    )
    return observation, action


def _with_present(groups: Groups, present: tuple[Tensor, Tensor]) -> Groups:
    """Return groups whose first frame and first state are the present ones."""
    seen_BCVHW, proprio_BS = present
    return Groups(
        torch.cat([seen_BCVHW[:, :, None], groups.video_BCTVHW[:, :, 1:]], dim=2),
        groups.action_BKA,
        torch.cat([proprio_BS[:, None], groups.proprio_BPS[:, 1:]], dim=1),
    )


def _given(use: Use) -> list[str]:
    return [name for name, does in zip(("actions", "the next observation"), use, strict=True) if does is Does.GIVEN]
