"""Classifier-free guidance in a pass that several requests share.

In: a pass over some rows, the guidance of each. Out: the velocities of each row.
Read next: `sampler.py`, `baselines/uwm/sampling.py` and `baselines/dreamzero/sampler.py`, the callers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

from xwam.network.transformer import Denoised

AnyRow = TypeVar("AnyRow")
Velocities = TypeVar("Velocities")


def guide(with_text: Denoised, without: Denoised, weight_B: Tensor) -> Denoised:
    """Return without + weight * (with - without) of every velocity; depth is that of the prompt.

    Args:
        with_text: What a pass with the prompt gave.
        without: What a pass with the empty prompt gave.
        weight_B: The guidance of each request.
    """

    def mix(seen: Tensor, blind: Tensor) -> Tensor:
        return blind + weight_B.view(-1, *[1] * (blind.dim() - 1)) * (seen - blind)

    video, action, proprio = (mix(*pair) for pair in zip(with_text[:3], without[:3], strict=True))
    return Denoised(video, action, proprio, with_text.depth_BCTVHW)


def guided(
    seeing: Callable[[Sequence[AnyRow]], list[Velocities]],
    blind: Callable[[Sequence[AnyRow]], list[Velocities]],
    rows: Sequence[AnyRow],
    weights: Sequence[float],
    mix: Callable[[Velocities, Velocities, float], Velocities],
) -> list[Velocities]:
    """Return the velocities of each row; those of weight 0 are only in the conditional pass.

    The pass with the empty prompt has as many rows as the other one, however many are guided: the first of them fills
    it up.

    Args:
        seeing: Runs the pass in which each row has its own prompt.
        blind: Runs the pass with the empty prompt.
        rows: Requests.
        weights: The guidance of each.
        mix: Makes the velocities of one row from those with its prompt, those without, and its weight.
    """
    velocities = seeing(rows)
    chosen = [index for index, weight in enumerate(weights) if weight]
    if not chosen:
        return velocities
    filled = [rows[index] for index in [*chosen, *chosen[:1] * (len(rows) - len(chosen))]]
    for index, without in zip(chosen, blind(filled), strict=False):
        velocities[index] = mix(velocities[index], without, weights[index])
    return velocities


def guide_one(with_text: Denoised, without: Denoised, weight: float) -> Denoised:
    """Return `guide` with one weight for all rows."""
    return guide(with_text, without, without.action_BKA.new_full(without.action_BKA.shape[:1], weight))


def split_rows(out: Denoised, counts: Sequence[int]) -> list[Denoised]:
    """Return the output of a pass in parts of so many rows."""
    parts = [[None] * len(counts) if field is None else field.split(list(counts)) for field in out]
    return [Denoised(*fields) for fields in zip(*parts, strict=True)]
