"""Run the benchmarks: `python -m tests.bench [NAME...]`, figures or modules of this folder; all if none is given.

In: names; `--before PATH`, a checkout to compare with; `--list` for the names and how long each takes. Out: a line a
figure with the time that measuring it took, `results/bench.json`; exit code 1 if a goal is missed.
Read next: `figure.py`. Each module has `FIGURES`: functions that measure a figure, by its name.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from evalkit.store.about import machine
from tests.bench.figure import Figure, NotMeasurable

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parents[1] / "results" / "bench.json"
NOT_BENCHMARKS = {"__init__", "__main__", "checkout", "figure", "score_memory"}
COMPARED = ("act_vs_before", "chunk_vs_before", "score_vs_before")
"""Benchmarks that take another checkout."""


def known_figures() -> dict[str, dict[str, Callable[..., Figure]]]:
    """Return the figures of each benchmark by name."""
    modules = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_BENCHMARKS)
    return {name: importlib.import_module(f"tests.bench.{name}").FIGURES for name in modules}


MOST_S = {
    "action_p50_vs_request_batching": 180,
    "action_p50_vs_request_batching_mid": 420,
    "chunk_vs_before": 340,
    "cli_start": 31,
    "closed_loop_overhead": 112,
    "closed_loop_vs_vla_eval": 300,
    "closed_loop_vs_vla_eval_every_step": 350,
    "closed_loop_vs_vla_eval_in_process": 300,
    "closed_loop_vs_vla_eval_raw": 250,
    "denoise_step_depth_off": 149,
    "denoise_step_depth_on": 469,
    "denoise_step_depth_off_full_prompt": 281,
    "dreamzero_cache": 45,
    "dreamzero_cache_all_passes": 27,
    "narrow_pass_vs_wider": 27,
    "nearest_scipy": 51,
    "robotwin_chunk": 358,
    "uwm_action_joint": 8,
    "uwm_action_marginal": 6,
}
"""Seconds that a figure took on two busy CPU cores; one that has been measured here shows the time here."""


def measured() -> dict[str, Any]:
    """Return what `results/bench.json` holds by figure; nothing where there is none."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def list_figures() -> None:
    """Print every figure with its benchmark and how long measuring it takes."""
    before = measured()
    for module, figures in known_figures().items():
        for name in figures:
            if "measured_in_s" in before.get(name, {}):
                seconds = f"{before[name]['measured_in_s']} s here"
            else:
                seconds = f"up to {MOST_S[name]} s on two cores" if name in MOST_S else "not measured here yet"
            needs = ", takes --before PATH" if module in COMPARED else ""
            print(f"{name:<40}{module:<18}{seconds}{needs}")


def main(names: list[str], before: Path | None) -> int:
    """Measure the named figures, keep the others, return the exit code.

    Args:
        names: Figures or modules; empty for all.
        before: Another checkout; without one, the figures that compare with it are skipped.
    """
    known = known_figures()
    if before is not None:
        for module in COMPARED:
            known[module] = {name: partial(measure, before) for name, measure in known[module].items()}
    every = {name: measure for figures in known.values() for name, measure in figures.items()}
    unknown = sorted(set(names) - set(known) - set(every))
    if unknown:
        names_known = ", ".join(dict.fromkeys([*known, *every]))
        print(f"Unknown benchmark {', '.join(unknown)}; there are {names_known}.", file=sys.stderr)
        return 2
    wanted = [figure for name in names or every for figure in known.get(name, {name: None})]
    kept = measured()
    missed = 0
    for name in dict.fromkeys(wanted):
        if before is None and any(name in known[module] for module in COMPARED):
            print(f"{name:<32} skipped: it takes --before PATH, the checkout to compare with", flush=True)
            continue
        started = time.perf_counter()
        try:
            figure = every[name]()
        except NotMeasurable as reason:
            print(f"{name:<32} skipped: {reason}", flush=True)
            continue
        seconds = time.perf_counter() - started
        missed += not figure.met
        state = "met" if figure.met else "MISSED"
        sides = ", ".join(f"{label} {each:.4g} {figure.side_unit}" for label, each in figure.sides.items())
        print(f"{name:<32}{figure.value:8.3f}  goal {figure.goal} {state}  ({sides}), took {seconds:.0f} s", flush=True)
        kept[name] = {
            "value": round(figure.value, 4),
            "unit": figure.unit,
            "goal": figure.goal,
            "sides": dict(figure.sides),
            "measured_in_s": round(seconds),
            "machine": machine(),
        }
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Run the benchmarks.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="figures or modules of tests/bench; all if none is given"
    )
    parser.add_argument("--before", type=Path, metavar="PATH", help="checkout that *_vs_before compare with")
    parser.add_argument("--list", action="store_true", help="list the figures and how long each takes, and end")
    arguments = parser.parse_args()
    if arguments.list:
        list_figures()
        sys.exit(0)
    sys.exit(main(arguments.names, arguments.before))
