"""Figures `chunk_vs_before` and `chunk_memory`: a closed-loop nano chunk, against another checkout.

In: a checkout with its own environment in `.venv`, or one that runs in this interpreter. Out: two figures.
Read next: `evalkit/run/episode.py`, the loop that is measured; `xwam/nano/finisher.py`, most of its time.

Both run the same episodes of robosuite Stack, with clips and video, in processes of their own. The CPU time is that of
all processes, user and system. Each side runs twice: to the end, and stopped after the first chunk. The difference of
both, divided by the chunks between, holds neither the start nor resets nor the report. Actions, ground truth and
predicted depth and states must be equal. Predicted RGB may differ by one grey level in one of 10,000 numbers: the
convolutions of the two sides may add in another order. Every score must agree to five digits.
"""

from __future__ import annotations

import functools
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evalkit.contracts.types import Prediction
from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.store.clips import ClipChunk, ClipReader
from tests.bench.checkout import EVALKIT, ROOT, ratio_figure, run_python
from tests.bench.figure import Figure

ROUNDS = 2
EPISODES, SEED = 2, 3
FIRST_CHUNK = "bench.max_steps=8"
SETTINGS = {"now": ["run.settle_steps=0"], "before": []}
"""What follows a success costs an episode something, but no chunk; commit a7fe0b3 has no such setting."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run took.

    Attributes:
        cpu_s: User and system time of all its processes.
        peak_bytes: Largest resident memory of any of them.
        num_chunks: Executed chunks.
    """

    cpu_s: float
    peak_bytes: int
    num_chunks: int


@functools.cache
def measure(before: Path) -> dict[str, Figure]:
    """Measure both sides in turn, check that they act and predict the same, and return the figures by name.

    Args:
        before: The other checkout.
    """
    sides = {"now": ROOT, "before": before.resolve()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    peaks: dict[str, list[float]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as folder:
        for round_idx in range(ROUNDS):
            for name in sides if round_idx % 2 else reversed(sides):
                whole = run(sides[name], Path(folder) / f"{name}-{round_idx}", *SETTINGS[name])
                first = run(sides[name], Path(folder) / f"{name}-{round_idx}-first", FIRST_CHUNK, *SETTINGS[name])
                seconds[name].append((whole.cpu_s - first.cpu_s) / (whole.num_chunks - first.num_chunks))
                peaks[name].append(whole.peak_bytes / 2**20)
        check_equal(Path(folder) / "now-0", Path(folder) / "before-0")
    return {
        "chunk_vs_before": ratio_figure(
            "chunk_vs_before", "CPU time of a chunk, now / before", "<= 0.50", seconds, "s"
        ),
        "chunk_memory": ratio_figure("chunk_memory", "peak memory of a process, now / before", "<= 1.02", peaks, "MiB"),
    }


def run(checkout: Path, out: Path, *overrides: str) -> Cost:
    """Run the episodes with the code of a checkout and return what it took."""
    plan = ["--policy", "xwam", "--bench", "robosuite", "--tasks", "Stack", "--episodes", EPISODES, "--seed", SEED]
    usage = run_python(checkout, EVALKIT, "run", *map(str, plan), "--out", str(out), *overrides)
    return Cost(
        cpu_s=usage.cpu_s,
        peak_bytes=usage.peak_bytes,
        num_chunks=sum(record["num_chunks"] for record in records(out)),
    )


def records(out: Path) -> list[dict]:
    """Return the records of a run, in the plan's order; read as JSON, because the fields of versions differ."""
    lines = (out / "episodes.jsonl").read_text().splitlines()
    return sorted(map(json.loads, lines), key=lambda record: record["index"])


def check_equal(now: Path, before: Path) -> None:
    """Raise AssertionError unless two runs acted the same and predicted the same where there is a ground truth."""
    for ours, theirs in zip(records(now), records(before), strict=True):
        for name in ("outcome", "steps", "actions_sha256"):
            assert ours[name] == theirs[name], f"episode {ours['index']}: {name} {ours[name]}, before {theirs[name]}"
        with ClipReader(now / ours["clip"]) as one, ClipReader(before / theirs["clip"]) as two:
            for chunk, chunk_before in zip(one, two, strict=True):
                check_chunk(chunk, chunk_before)
                options = ScoreOptions(references=False, lpips_nets=())
                scores, expected = (score_chunk(part, one.header.env_spec, options) for part in (chunk, chunk_before))
                for score, reference in zip(scores, expected, strict=True):
                    value, other = score.value, reference.value
                    same = value == other or math.isclose(value or 0, other or 0, rel_tol=1e-5, abs_tol=1e-7)
                    assert same, f"chunk {chunk.chunk_idx}: {score.metric} {value}, before {other}"


def check_chunk(chunk: ClipChunk, before: ClipChunk) -> None:
    """Raise AssertionError unless a chunk shows the same frames; see the top of this file."""
    for name, frames in vars(chunk.true).items():
        np.testing.assert_array_equal(frames, getattr(before.true, name), err_msg=f"ground truth: {name}")
    ours, theirs, count = chunk.predicted, before.predicted, len(chunk.true.rgb_fvhwc_u8)
    if count == 0:
        return
    assert isinstance(ours, Prediction), "nothing is predicted now"
    assert isinstance(theirs, Prediction), "nothing was predicted before"
    for name in ("depth", "proprio"):
        np.testing.assert_array_equal(getattr(ours, name)[:count], getattr(theirs, name)[:count], err_msg=name)
    levels = np.abs(ours.rgb[:count].astype(int) - theirs.rgb[:count])
    assert levels.max() <= 1, f"predicted RGB differs by {levels.max()} grey levels"
    assert levels.mean() <= 1e-4, f"predicted RGB differs in {levels.mean():.1e} of its numbers"


FIGURES = {
    "chunk_vs_before": lambda before: measure(before)["chunk_vs_before"],
    "chunk_memory": lambda before: measure(before)["chunk_memory"],
}
"""They take the checkout to compare with; both come from the same runs."""
