"""How many rows a pass should have on this machine: measured, not guessed.

In: a policy for each width, a request. Out: seconds and rows per second of a pass by width, and the width to take.
Read next: `evalkit/contracts/stepped.py` for what the width means.

The width is fixed for the life of a host: a request's last bits depend on it, and on nothing else of its company.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evalkit.contracts.stepped import Phase, SteppedPolicy
from evalkit.contracts.types import PolicyRequest

NEAR_BEST_FRAC = 0.05
"""A width whose rows per second are this close to the best is as good; the smallest such width is taken, because an
action waits for whole passes."""

ROUNDS = 3
"""Requests that are timed from their first pass to their last, after one that is not."""


@dataclass(frozen=True, kw_only=True)
class TimedWidth:
    """The passes of one width.

    Attributes:
        width: Rows of a pass.
        pass_s: Median seconds of a pass with all rows in use.
        actions_s: Median seconds of all passes until the actions are clean.
    """

    width: int
    pass_s: float
    actions_s: float

    @property
    def rows_per_s(self) -> float:
        """Return how many rows are computed in a second."""
        return self.width / self.pass_s


def time_width(policy: SteppedPolicy, request: PolicyRequest, *, rounds: int = ROUNDS) -> TimedWidth:
    """Return how long the passes of a policy take when every row is in use."""
    job = policy.prepare(request)
    passes_s: list[float] = []
    actions_s: list[float] = []
    for round_idx in range(rounds + 1):
        jobs, until_actions_s = [job] * policy.width, 0.0
        while jobs[0].phase is not Phase.DONE:
            acting, began_s = jobs[0].phase is Phase.ACTIONS, time.perf_counter()
            jobs = policy.step(jobs)
            seconds = time.perf_counter() - began_s
            until_actions_s += seconds if acting else 0.0
            if round_idx:
                passes_s.append(seconds)
        if round_idx:
            actions_s.append(until_actions_s)
    return TimedWidth(width=policy.width, pass_s=statistics.median(passes_s), actions_s=statistics.median(actions_s))


def choose_width(
    policy_of: Callable[[int], SteppedPolicy],
    request: PolicyRequest,
    widths: Sequence[int] = (1, 2, 4, 8, 16),
    *,
    max_actions_s: float | None = None,
) -> tuple[TimedWidth, list[TimedWidth]]:
    """Return the width to take, and the measurements of all widths.

    Args:
        policy_of: Returns the policy with passes of so many rows.
        request: The request whose passes are timed.
        widths: The widths to try, smallest first.
        max_actions_s: Longest time that the passes of a request's actions may take together; None for no bound. If no
            width keeps it, the fastest one is taken.

    Raises:
        ValueError: If there is no width to try.
    """
    if not widths:
        raise ValueError("There is no width to try.")
    timed = [time_width(policy_of(width), request) for width in widths]
    return best_width(timed, max_actions_s=max_actions_s), timed


def best_width(timed: Sequence[TimedWidth], *, max_actions_s: float | None = None) -> TimedWidth:
    """Return the smallest width within `NEAR_BEST_FRAC` of the most rows per second among those that keep the bound.

    Example:
        >>> rows = [TimedWidth(width=w, pass_s=s, actions_s=2 * s) for w, s in ((1, 0.015), (4, 0.046), (8, 0.090))]
        >>> best_width(rows).width, best_width(rows, max_actions_s=0.05).width
        (4, 1)
    """
    allowed = [each for each in timed if max_actions_s is None or each.actions_s <= max_actions_s]
    if not allowed:
        return min(timed, key=lambda each: each.actions_s)
    most = max(each.rows_per_s for each in allowed)
    return min(
        (each for each in allowed if each.rows_per_s >= (1 - NEAR_BEST_FRAC) * most), key=lambda each: each.width
    )
