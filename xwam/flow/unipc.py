"""UniPC for flow matching (order 2, B(h) = exp(h) - 1), as pure functions on the weights of a schedule.

In: a number of steps; a state and a velocity. Out: the weights of all steps; the next state.
Read next: `sampler.py`, which takes these steps with video, actions and states.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from xwam.flow.noise import sigma_grid, timestep_grid


@dataclass(frozen=True, kw_only=True)
class UniPCGrid:
    """The numbers of a schedule of n steps; each update is a weighted sum, so the weights are enough.

    Attributes:
        sigmas: Noise levels, n + 1, the last is 0.
        timesteps: Timesteps that the network gets, n.
        correct: Per step, weights of (corrected sample before, clean guess before, the one before that, new clean
            guess); the first step has nothing to correct.
        predict: Per step, weights of (sample, clean guess, clean guess before).
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[int, ...]
    correct: tuple[tuple[float, float, float, float], ...]
    predict: tuple[tuple[float, float, float], ...]

    @property
    def num_steps(self) -> int:
        """Return n."""
        return len(self.timesteps)


@dataclass(frozen=True, kw_only=True, eq=False)
class UniPCState:
    """One modality during denoising.

    Attributes:
        x: Sample at `grid.sigmas[step_idx]`.
        step_idx: Steps taken.
        corrected: Sample of the step before, corrected. None before the first step.
        guess: Clean guess of the step before.
        older_guess: Clean guess of the step before that.
    """

    x: Tensor
    step_idx: int = 0
    corrected: Tensor | None = None
    guess: Tensor | None = None
    older_guess: Tensor | None = None


@lru_cache(maxsize=64)
def unipc_grid(num_steps: int) -> UniPCGrid:
    """Return the weights of `num_steps` steps; first and last step are of order 1, all others of order 2."""
    sigmas = sigma_grid(num_steps)
    orders = [1 if index in (0, num_steps - 1) else 2 for index in range(num_steps)]
    nothing = (0.0, 0.0, 0.0, 1.0)
    correct = [_corrector(sigmas, index, orders[index - 1]) if index else nothing for index in range(num_steps)]
    predict = [_predictor(sigmas, index, order) for index, order in enumerate(orders)]
    return UniPCGrid(
        sigmas=tuple(sigmas.tolist()),
        timesteps=tuple(timestep_grid(num_steps).tolist()),
        correct=tuple(correct),
        predict=tuple(predict),
    )


def unipc_step(grid: UniPCGrid, state: UniPCState, velocity: Tensor) -> UniPCState:
    """Return the state after one more step.

    Args:
        grid: The schedule.
        state: The present state; `state.step_idx < grid.num_steps`.
        velocity: Noise minus data, as predicted at `state.x`.
    """
    index = state.step_idx
    guess = state.x - grid.sigmas[index] * velocity
    x = state.x
    if state.corrected is not None:
        x = _mix(grid.correct[index], (state.corrected, state.guess, state.older_guess, guess))
    return UniPCState(
        x=_mix(grid.predict[index], (x, guess, state.guess)),
        step_idx=index + 1,
        corrected=x,
        guess=guess,
        older_guess=state.guess,
    )


def _mix(weights: Sequence[float], tensors: Sequence[Tensor | None]) -> Tensor:
    """Return the weighted sum; a tensor of weight 0 is not read and may be missing."""
    terms = [tensor * weight for weight, tensor in zip(weights, tensors, strict=True) if weight and tensor is not None]
    return torch.stack(terms).sum(0) if len(terms) > 2 else sum(terms[1:], terms[0])


def _log_snr(sigma: float) -> float:
    """Return log((1 - sigma) / sigma), infinite for clean data."""
    return math.inf if sigma == 0 else math.log1p(-sigma) - math.log(sigma)


def _span(sigmas: np.ndarray, start: int, stop: int) -> tuple[float, float]:
    """Return how far the log signal-to-noise ratio goes from one grid point to another, and expm1 of minus that."""
    h = _log_snr(sigmas[stop]) - _log_snr(sigmas[start])
    return h, math.expm1(-h)


def _predictor(sigmas: np.ndarray, index: int, order: int) -> tuple[float, float, float]:
    """Return the weights that lead from grid point `index` to the next."""
    h, phi = _span(sigmas, index, index + 1)
    scale = -(1 - sigmas[index + 1]) * phi
    ratio = sigmas[index + 1] / sigmas[index]
    if order == 1:
        return ratio, scale, 0.0
    back = (_log_snr(sigmas[index - 1]) - _log_snr(sigmas[index])) / h
    slope = 0.5 * scale / back
    return ratio, scale - slope, slope


def _corrector(sigmas: np.ndarray, index: int, order: int) -> tuple[float, float, float, float]:
    """Return the weights that correct the step to grid point `index` once its clean guess is known."""
    h, phi = _span(sigmas, index - 1, index)
    scale = -(1 - sigmas[index]) * phi
    ratio = sigmas[index] / sigmas[index - 1]
    if order == 1:
        return ratio, 0.5 * scale, 0.0, 0.5 * scale
    back = (_log_snr(sigmas[index - 2]) - _log_snr(sigmas[index - 1])) / h
    phi2 = phi / -h - 1
    phi3 = phi2 / -h - 0.5
    matrix = np.array([[1.0, 1.0], [back, 1.0]])
    older, new = np.linalg.solve(matrix, np.array([phi2, 2 * phi3]) / phi)
    return ratio, scale * (1 - older / back - new), scale * older / back, scale * new
