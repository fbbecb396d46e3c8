"""Clips and statistics against numbers that the released loader gave: `python tests/parity/xwam_data.py [DIR]`.

In: a folder laid out like `../shared/golden/xwam`. Out: one line a comparison; exit 1 if any is off by more than 1e-6.
Read next: `tests/unit/test_xwam_data_golden.py`, which runs the same under pytest; `xwam.py` for the rest of the model.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":  # this file's own folder holds a file called xwam.py, which would hide the package
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import numpy as np
from safetensors import safe_open

from xwam.actions import bounds_from_release
from xwam.data.clips import ClipShape, clip_states
from xwam.data.layout import Track, track_from_json
from xwam.data.statistics import statistics

TOLERANCE = 1e-6
BENCHES = ("robocasa", "robotwin")
FILES = (
    "dataset_tensors.safetensors",
    "expected_statistics.json",
    *(f"{kind}_{bench}.json" for kind in ("episode", "statistics") for bench in BENCHES),
)


class Comparison(NamedTuple):
    """One array beside what it should be."""

    item: str
    got: np.ndarray
    expected: np.ndarray

    @property
    def error(self) -> float:
        """Return the largest absolute difference; infinite where shapes differ."""
        if self.got.shape != self.expected.shape:
            return float("inf")
        return float(np.abs(self.got.astype(np.float64) - self.expected).max())


def default_folder() -> Path:
    """Return `golden/xwam` in the shared folder beside the checkout, or in `EVALKIT_SHARED`."""
    beside = Path(__file__).resolve().parents[2].parent / "shared"
    return Path(os.environ.get("EVALKIT_SHARED", beside)) / "golden" / "xwam"


def comparisons(folder: Path) -> Iterator[Comparison]:
    """Yield clips, masks and statistics of both episodes beside the released ones."""
    with safe_open(folder / "dataset_tensors.safetensors", "np") as file:
        settings = {name: int(value) for name, value in file.metadata().items()}
        tensors: dict[str, np.ndarray] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    expected = _json(folder / "expected_statistics.json")
    for bench in BENCHES:
        track = track_from_json(_json(folder / f"episode_{bench}.json"), root=folder, key=f"episode_{bench}")
        yield from _clip(bench, track, _json(folder / f"statistics_{bench}.json"), tensors, settings)
        yield from _statistics(bench, track, expected[bench])


def _clip(
    bench: str, track: Track, quantiles: Any, tensors: dict[str, np.ndarray], settings: dict[str, int]
) -> Iterator[Comparison]:
    shape = ClipShape(
        num_actions=tensors[f"{bench}_actions"].shape[0],
        num_frames=settings["sequence_length"],
        frame_stride=settings["frame_skip"],
    )
    found = clip_states(track, settings["start_frame"], shape, bounds_from_release(quantiles, track.arms))
    for name, got in zip(("proprios", "proprio_mask", "actions", "action_mask"), found, strict=True):
        yield Comparison(f"{bench}: {name}", got, tensors[f"{bench}_{name}"])


def _statistics(bench: str, track: Track, expected: Any) -> Iterator[Comparison]:
    found = statistics(lambda: [track])
    for side, values in expected.items():
        for name, value in values.items():
            yield Comparison(f"{bench}: {side} of {name}", np.array(found[side].get(name, [])), np.array(value))


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def main(folder: Path) -> int:
    """Print one line a comparison; return 0 if all are within the tolerance."""
    found = list(comparisons(folder))
    for comparison in found:
        verdict = "ok    " if comparison.error <= TOLERANCE else "FAILED"
        print(f"{verdict} {comparison.item}: {comparison.error:.2e} (at most {TOLERANCE:.0e})")
    failed = sum(comparison.error > TOLERANCE for comparison in found)
    print(f"{len(found) - failed} of {len(found)} within tolerance")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else default_folder()))
