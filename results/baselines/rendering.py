"""The nano table and its files.

In: the numbers of each row. Out: `table.json`, `table.csv`, `table.md`.
Read next: `records.py`, where the numbers come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
from designs import DESIGNS, ROWS, SAME_COMPUTE, SAME_SIZE, Paths
from records import HORIZONS_S, METRICS, SHARED_STARTS, Value, measured
from scipy import stats
from scipy.optimize import brentq
from statsmodels.stats.proportion import power_proportions_2indep

from evalkit.report.stats import success_interval
from xwam.training.launch import default_recipe
from xwam.training.recipes import recipe_of

POWER, ALPHA = 0.8, 0.05

NOT_COMPARED = {"name", "batch_size", "micro_batch", "imagined_steps", "augmentation"}


def smallest_difference(rate: float, num_episodes: int) -> float:
    """Return how far below a success rate that of another row must lie to be found with power 0.8.

    The test is of two independent proportions, two-sided 5 %.

    Example:
        >>> round(smallest_difference(0.5, 100), 2)
        0.19
    """

    def lack(difference: float) -> float:
        power = power_proportions_2indep(-difference, rate, num_episodes, alpha=ALPHA, return_results=False)
        return float(power) - POWER

    return float(brentq(lack, 1e-6, rate - 1e-6))


def write(paths: Paths, costs: Mapping[str, Mapping[str, float]], options: Mapping[str, Any]) -> str:
    """Write the three files and return the table."""
    found = [measured(paths, row, costs, options) for row in ROWS]
    text = table(found, options)
    (paths.out / "table.json").write_text(json.dumps({"asked": options, "rows": found}, indent=1, default=str) + "\n")
    pd.json_normalize(found, sep=".").to_csv(paths.out / "table.csv", index=False)
    (paths.out / "table.md").write_text(text)
    return text


def table(found: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
    """Return both tables with their caption."""
    seeing, blind = ([one for one in found if one["blind"] == side] for side in (False, True))
    tasks, blind_task = options["tasks"], options["blind_task"]
    lines = [
        f"| | {' | '.join(tasks)} | blind control, {blind_task} | separated | parameters | steps x clips | PFLOP "
        "| minutes |",
        "|---|" + "---|" * (len(tasks) + 7),
    ]
    for one, control in zip(seeing, blind, strict=True):
        cells = [success_cell(*one["success"][task]) for task in tasks]
        cells += [success_cell(*control["success"][blind_task])]
        cells += [separated(one["success"].get(blind_task, (0, 0)), control["success"][blind_task], len(seeing))]
        cells += [f"{one['parameters']:,.0f}", f"{one['steps']} x {one['clips']:.0f}"]
        cells += [f"{one['training_pflop']:.1f}", f"{one['training_minutes']:.0f}"]
        lines.append(f"| {one['row']} | {' | '.join(cells)} |")
    names = [f"{name}@{horizon}" for name in METRICS for horizon in HORIZONS_S]
    heads = [f"{name}, {horizon} s" for name in ("PSNR, dB", "AbsRel") for horizon in HORIZONS_S]
    lines += ["", f"| | {' | '.join(heads)} | action dependence | directed | ms a chunk | ms an executed step |"]
    lines += ["|---|" + "---|" * (len(heads) + 4)]
    for one in seeing:
        cells = [value_cell(one["predicted"], name) for name in (*names, "dependence", "directed")]
        cells += [_plain(one["chunk_ms"]), _plain(one["step_ms"])]
        lines.append(f"| {one['row']} | {' | '.join(cells)} |")
    for floor in (one["floor"] for one in seeing if one.get("floor")):
        cells = [value_cell(floor, name) for name in (*names, "dependence", "directed")]
        lines.append(f"| floor: last frame repeated | {' | '.join(cells)} | - | - |")
    return "\n".join([*lines, "", caption(options)]) + "\n"


def caption(options: Mapping[str, Any]) -> str:
    """Return what the numbers are, the smallest difference that they could show, and what they cannot say."""
    episodes = options["episodes"]
    middle, high = (100 * smallest_difference(rate, episodes) for rate in (0.5, 0.9))
    return (
        f"Success of {episodes} episodes of each task (setting `{options['setting']}`, seed {options['seed']}, "
        "the same scenes for all rows), with 95 % Clopper-Pearson intervals. **The smallest difference that "
        f"two rows could show in one task** with power {POWER}, two-sided {ALPHA:.0%} and no correction for several "
        "comparisons, is "
        f"{middle:.0f} points below a row with 50 %, and {high:.0f} below one with 90 %. `separated` is Fisher's exact "
        f"test against the blind control, two-sided {ALPHA:.0%}, Bonferroni over the rows. Parameters agree within "
        f"{SAME_SIZE:.0%}, training operations (forward and backward) within {SAME_COMPUTE:.0%}; minutes are wall time "
        f"of one thread. PSNR and AbsRel: static views, {options['predicted']} demonstrations of each task that no "
        f"training has seen, from the same frames (every {SHARED_STARTS} control steps), with the row's own actions; "
        "intervals over episodes. `none`: the design predicts no such image. Action dependence: how far predicted "
        "images for another chunk's actions part, over how far the true ones do; directed: the part along the true "
        f"difference. Recipes differ: {recipe_differences()}. Latency: median time to a chunk of actions on one "
        "thread, measured in turn. There is one training of each design: intervals cover scenes, not the luck of a "
        "training seed, so a difference between two rows is one between two checkpoints, at this size and budget."
    )


def recipe_differences() -> str:
    """Return the settings in which the recipes of the designs differ, apart from clips of a step and validation."""
    recipes = {design.name: asdict(recipe_of(default_recipe(design.model, None))) for design in DESIGNS}
    parts = []
    for setting in next(iter(recipes.values())).keys() - NOT_COMPARED:
        values = dict.fromkeys(recipe[setting] for recipe in recipes.values())
        if len(values) > 1:
            groups = [
                f"{value} ({', '.join(name for name, recipe in recipes.items() if recipe[setting] == value)})"
                for value in values
            ]
            parts.append(f"{setting} {', '.join(groups)}")
    return "; ".join(sorted(parts))


def success_cell(num_success: int, num_valid: int) -> str:
    """Return successes of episodes with their 95 % interval in percent.

    Example:
        >>> success_cell(8, 10), success_cell(0, 0)
        ('8 of 10 (44 to 97)', '-')
    """
    interval = success_interval(num_success, num_valid)
    if interval is None:
        return "-"
    low, high = interval
    return f"{num_success} of {num_valid} ({100 * low:.0f} to {100 * high:.0f})"


def separated(row: tuple[int, int], control: tuple[int, int], comparisons: int) -> str:
    """Return whether a row does better than its blind control.

    Example:
        >>> separated((60, 100), (5, 100), 6), separated((7, 100), (5, 100), 6)
        ('yes', 'no')
    """
    if not row[1] or not control[1]:
        return "-"
    counts = [[success, valid - success] for success, valid in (row, control)]
    better = row[0] / row[1] > control[0] / control[1]
    return "yes" if better and stats.fisher_exact(counts).pvalue < ALPHA / comparisons else "no"


def value_cell(values: Mapping[str, Value], name: str) -> str:
    """Return a mean with its interval, or `none`.

    Example:
        >>> value_cell({"psnr_db@0.2": (20.0, (19.0, 21.0))}, "psnr_db@0.2"), value_cell({}, "absrel@0.2")
        ('20.00 (19.00 to 21.00)', 'none')
    """
    if name not in values:
        return "none"
    mean, interval = values[name]
    digits = 4 if name.startswith("absrel") else 2
    bounds = "" if interval is None else f" ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})"
    return f"{mean:.{digits}f}{bounds}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
