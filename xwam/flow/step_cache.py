"""Step caching: passes that are skipped because the last velocities still serve.

In: what a schedule says, and the velocities of the passes that ran. Out: whether the next pass runs.
Read next: `sampler.py` and `baselines/dreamzero/sampler.py`, which ask after every pass.

Facts: DreamZero's official code (wan_flow_matching_action_tf.py, commit ab790c1), `should_run_model` and
`dit_step_mask`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch.nn.functional as F
from torch import Tensor

THRESHOLDS = ((0.95, 4), (0.93, 2))
"""(cosine of the last two velocities, passes that are skipped if it is exceeded)."""

LEAST_RUNS = 2
"""Passes that always run first."""

Velocities = TypeVar("Velocities")
"""What a pass gives for one request."""


@dataclass(frozen=True, eq=False)
class History(Generic[Velocities]):
    """The passes of one request.

    Attributes:
        last: Velocities of the last pass that ran.
        previous: Those of the one before.
        num_runs: Passes that ran.
        to_skip: Passes still to skip; 0 if the next one must run, None if the velocities decide.
    """

    last: Velocities | None = None
    previous: Velocities | None = None
    num_runs: int = 0
    to_skip: int | None = None

    def after_run(self, velocities: Velocities) -> History[Velocities]:
        """Return the history after a pass that ran."""
        return History(velocities, self.last, self.num_runs + 1)


@dataclass(frozen=True, kw_only=True)
class StepCache:
    """Which passes run.

    Attributes:
        run_steps: The steps that run; None if the velocities decide.
        thresholds: See `THRESHOLDS`; the highest cosine comes first.
    """

    run_steps: tuple[int, ...] | None = None
    thresholds: tuple[tuple[float, int], ...] = THRESHOLDS

    def decide(
        self, step_idx: int, history: History[Velocities], likeness: Callable[[Velocities, Velocities], float]
    ) -> tuple[bool, History[Velocities]]:
        """Return whether a pass runs, and the history that says how many more are skipped.

        Args:
            step_idx: The step of the pass.
            history: The passes before it.
            likeness: The cosine of the velocities of two passes.
        """
        if self.run_steps is not None:
            return step_idx in self.run_steps, history
        if history.num_runs < LEAST_RUNS or history.to_skip == 0:
            return True, history
        to_skip = self._skips(history, likeness) if history.to_skip is None else history.to_skip
        if to_skip == 0:
            return True, history
        return False, History(history.last, history.previous, history.num_runs, to_skip - 1)

    def _skips(self, history: History[Velocities], likeness: Callable[[Velocities, Velocities], float]) -> int:
        """Return how many passes the last two velocities allow to skip."""
        assert history.last is not None
        assert history.previous is not None
        cosine = likeness(history.last, history.previous)
        return next((count for threshold, count in self.thresholds if cosine > threshold), 0)


def cosine_of(one: Tensor, two: Tensor) -> float:
    """Return the cosine between two velocities, the mean over the batch.

    Example:
        >>> import torch
        >>> cosine_of(torch.tensor([[3.0, 4.0]]), torch.tensor([[6.0, 8.0]]))
        1.0
    """
    left, right = (velocity.flatten(1).float() for velocity in (one, two))
    return float(F.cosine_similarity(left, right, dim=1).mean())
