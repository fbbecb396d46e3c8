"""Clips and statistics against numbers that the released loader gave: the item `data` of `xwam.py`.

In: a folder laid out like `../shared/golden/xwam`. Out: one comparison an array, off by at most 1e-6.
Read next: `xwam.py`, which prints them; `tests/unit/test_dataset_golden.py`, which runs the same under pytest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from evalkit.dataset.layout import Track, track_from_json
from evalkit.dataset.statistics import statistics
from tests.parity.findings import Finding
from xwam.robots.actions import training_bounds
from xwam.training.clips import ClipShape, clip_states

TOLERANCE = 1e-6
BENCHES = ("robocasa", "robotwin")
FILES = (
    "dataset_tensors.safetensors",
    "expected_statistics.json",
    *(f"{kind}_{bench}.json" for kind in ("episode", "statistics") for bench in BENCHES),
)


def absolute(item: str, got: np.ndarray, expected: np.ndarray) -> Finding:
    """Return the largest absolute difference; infinite where shapes differ."""
    same = got.shape == expected.shape
    error = float(np.abs(got.astype(np.float64) - expected).max()) if same else math.inf
    return Finding(item, error, TOLERANCE)


def comparisons(folder: Path) -> Iterator[Finding]:
    """Yield clips, masks and statistics of both episodes, with the released ones."""
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
) -> Iterator[Finding]:
    shape = ClipShape(
        num_actions=tensors[f"{bench}_actions"].shape[0],
        num_frames=settings["sequence_length"],
        frame_stride=settings["frame_skip"],
    )
    found = clip_states(track, settings["start_frame"], shape, training_bounds(quantiles, track.arms, raw=track.raw))
    released = (found.proprio_PS, found.proprio_mask_PS, found.action_KA, found.action_mask_KA)
    for name, got in zip(("proprios", "proprio_mask", "actions", "action_mask"), released, strict=True):
        yield absolute(f"{bench}: {name}", got, tensors[f"{bench}_{name}"])


def _statistics(bench: str, track: Track, expected: Any) -> Iterator[Finding]:
    found = statistics(lambda: [track])
    for side, values in expected.items():
        for name, value in values.items():
            yield absolute(f"{bench}: {side} of {name}", np.array(found[side].get(name, [])), np.array(value))


def _json(path: Path) -> Any:
    return json.loads(path.read_text())
