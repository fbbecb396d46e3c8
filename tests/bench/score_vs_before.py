"""Figures `score_vs_before` and `score_memory_vs_before`: scoring a run without LPIPS, against another checkout.

In: a checkout with its own environment in `.venv`, for which commit a7fe0b3 is meant. Out: two figures.
Read next: `evalkit/score/run.py`, which is measured; `chunk_vs_before.py`, the same for acting.

Both sides score copies of the same two runs, which the other checkout writes: a synthetic scene (3 views of 256x320,
24 chunks of 8 frames, so that the start decides little) and two episodes of nano with the ceiling of its codec. Each
score is a process of its own, on one core; its CPU time, user and system, holds the start and the reading of clips.
Every value of the other side must be there again and agree to 1e-9, except those that were wrong in a7fe0b3:

- `absrel/gt_mask_affine_disparity` was a least-squares fit, which one wrong pixel could move;
- clouds held points beyond 10 m, which depth errors leave out (neither run has any);
- frames that a prediction lacks counted as an error of 1 (neither run lacks any).

The ground truth scored against itself has rows for its first frame alone; only those are compared. What the scorer
computes in addition now (checks, moving pixels, wrist views) is in its time.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from evalkit.score.results.names import METRICS
from tests.bench.checkout import EVALKIT, ROOT, Usage, ratio_figure, run_python
from tests.bench.chunk_vs_before import run as run_nano
from tests.bench.figure import Figure

ROUNDS = 2
KEYS = ["task", "index", "subject", "chunk_idx", "frame_idx", "view", "metric"]
CORRECTED = {"absrel/gt_mask_affine_disparity_10m"}
WRITE_SCENE = """
import sys
from pathlib import Path
try:
    from evalkit.score.scene import write_scene_run
except ImportError:
    from tests.doubles.scene import write_scene_run
write_scene_run(Path(sys.argv[1]), outcomes=["success", "failure"], num_chunks=12, num_frames=8, image_hw_px=(256, 320))
"""


@functools.cache
def measure(before: Path) -> dict[str, Figure]:
    """Measure both sides in turn, check that their values agree, and return the figures by name.

    Args:
        before: The other checkout.
    """
    sides = {"now": ROOT, "before": before.resolve()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    peaks: dict[str, list[float]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run_python(sides["before"], WRITE_SCENE, str(folder / "scene-before"))
        run_nano(sides["before"], folder / "nano-before")
        runs = ("scene", "nano")
        for name in runs:
            shutil.copytree(folder / f"{name}-before", folder / f"{name}-now")
        for side, checkout in sides.items():
            _score(checkout, folder / f"nano-{side}")  # compiles
        for round_idx in range(ROUNDS):
            usage = {
                side: [_score(sides[side], folder / f"{name}-{side}") for name in runs]
                for side in (sides if round_idx % 2 else reversed(sides))
            }
            worst = max(range(len(runs)), key=lambda run_idx: usage["now"][run_idx][1] / usage["before"][run_idx][1])
            for side in sides:
                seconds[side].append(sum(cpu_s for cpu_s, _ in usage[side]))
                peaks[side].append(usage[side][worst][1] / 2**20)
        for name in runs:
            check_equal(*(folder / f"{name}-{side}/scores.parquet" for side in ("now", "before")))
    return {
        "score_vs_before": ratio_figure(
            "score_vs_before", "CPU time of scoring, now / before", "<= 0.50", seconds, "s"
        ),
        "score_memory_vs_before": ratio_figure(
            "score_memory_vs_before", "peak memory of scoring, now / before; the worse run", "<= 1.00", peaks, "MiB"
        ),
    }


def check_equal(now: Path, before: Path) -> None:
    """Raise AssertionError unless every value of one result file is in the other one too; see the top of this file."""
    ours, theirs = (pd.read_parquet(path).astype(dict.fromkeys(KEYS[:1] + KEYS[5:], str)) for path in (now, before))
    ranged = {metric: f"{metric}_10m" for metric in theirs["metric"].unique() if f"{metric}_10m" in METRICS}
    theirs["metric"] = theirs["metric"].replace(ranged)
    is_dropped = (theirs["subject"] == "ground_truth") & ((theirs["chunk_idx"] > 0) | (theirs["frame_idx"] != 0))
    theirs = theirs[~theirs["metric"].isin(CORRECTED) & ~is_dropped]
    both = theirs.astype({"subject": str}).merge(ours.astype({"subject": str}), on=KEYS, suffixes=("_before", "_now"))
    assert len(both) == len(theirs), f"{len(theirs) - len(both)} values of {before} are not in {now}"
    assert len(both) > 100, f"{before} has {len(both)} values"
    np.testing.assert_allclose(both["value_now"], both["value_before"], rtol=1e-9, atol=1e-9)


def _score(checkout: Path, run: Path) -> Usage:
    """Score a run with the code of a checkout; return CPU seconds and peak bytes."""
    verb = ["score", "run"] if (checkout / "evalkit/cli/score.py").exists() else ["score"]
    return run_python(checkout, EVALKIT, *verb, str(run), "--lpips", "none", "--workers", "1")


FIGURES = {
    "score_vs_before": lambda before: measure(before)["score_vs_before"],
    "score_memory_vs_before": lambda before: measure(before)["score_memory_vs_before"],
}
"""They take the checkout to compare with; both come from the same runs."""
