"""Figures of the width: how the time of a pass grows with its rows, and that no width is a bad one.

In: X-WAM at nano size, untrained. Out: `narrow_pass_vs_wider`, above 1 where a pass takes longer than a wider one, and
`wide_rows_vs_narrower`, below 1 where a row takes longer in a wider pass.
Read next: `evalkit/serve/width.py`, which chooses a width; `xwam/serving/stepped.py`, which fills passes up.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from evalkit.testing.requests import noise_request
from evalkit.testing.stepped import begin
from tests.bench.figure import Figure
from xwam.policy import XwamPlugin, XwamPolicyConfig

WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8)
ROUNDS = 12


@cache
def pass_ms() -> dict[int, float]:
    """Return the median CPU time of a pass of each width with all rows in use; the widths take turns on one thread."""
    plugin = XwamPlugin()
    policies: dict[int, Any] = {
        width: plugin.make(XwamPolicyConfig(checkpoint="random-nano", width=width)) for width in WIDTHS
    }
    jobs = {width: [begin(policy, noise_request(policy.spec, 0, 0))] * width for width, policy in policies.items()}
    spent: dict[int, list[float]] = {width: [] for width in WIDTHS}
    for round_idx in range(ROUNDS + 1):
        for width in WIDTHS if round_idx % 2 else WIDTHS[::-1]:
            began_s = time.process_time()
            policies[width].step(jobs[width])
            if round_idx:
                spent[width].append((time.process_time() - began_s) * 1e3)
    return {width: statistics.median(values) for width, values in spent.items()}


def narrow_pass_vs_wider() -> Figure:
    """Return the largest ratio of the time of a pass to that of a wider one."""
    times = pass_ms()
    worst = max(times[narrow] / times[wide] for narrow in WIDTHS for wide in WIDTHS if narrow < wide)
    return figure("narrow_pass_vs_wider", worst, "a pass / a wider one, at worst", "<= 1.05", times)


def wide_rows_vs_narrower() -> Figure:
    """Return the least ratio of the rows per second of a width to those of a narrower one."""
    times = pass_ms()
    rows = {width: width / each for width, each in times.items()}
    worst = min(rows[wide] / rows[narrow] for narrow in WIDTHS for wide in WIDTHS if narrow < wide)
    unit = "rows per second / those of a narrower pass, at worst"
    return figure("wide_rows_vs_narrower", worst, unit, ">= 0.90", times)


def figure(name: str, value: float, unit: str, goal: str, times: dict[int, float]) -> Figure:
    """Return a figure whose sides are the times of a row at each width."""
    sides = {f"a row at width {width}": each / width for width, each in times.items()}
    return Figure(name=name, value=value, unit=unit, goal=goal, sides=sides, side_unit="ms")


FIGURES: dict[str, Callable[[], Figure]] = {
    "narrow_pass_vs_wider": narrow_pass_vs_wider,
    "wide_rows_vs_narrower": wide_rows_vs_narrower,
}
