"""Run the benchmarks: `python -m tests.bench [NAME...]`, names of modules in this folder; all if none is given.

In: module names. Out: a line a figure, `results/bench.json`; exit code 1 if a goal is missed.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from evalkit.store.about import machine
from tests.bench.figure import Figure

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parents[1] / "results" / "bench.json"
NOT_BENCHMARKS = {"__init__", "__main__", "figure", "score_memory"}


def main(names: list[str]) -> int:
    """Run the named benchmarks, keep the figures of the others, return the exit code."""
    known = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_BENCHMARKS)
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"Unknown benchmark {', '.join(unknown)}; there are {', '.join(known)}.", file=sys.stderr)
        return 2
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    missed = 0
    for name in names or known:
        figures: list[Figure] = importlib.import_module(f"tests.bench.{name}").figures()
        for figure in figures:
            missed += not figure.met
            state = "met" if figure.met else "MISSED"
            sides = ", ".join(f"{label} {seconds:.4g} s" for label, seconds in figure.sides.items())
            print(f"{figure.name:<26}{figure.value:8.3f}  goal {figure.goal} {state}  ({sides})", flush=True)
            kept[figure.name] = {
                "value": round(figure.value, 4),
                "unit": figure.unit,
                "goal": figure.goal,
                "sides": dict(figure.sides),
                "machine": machine(),
            }
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
