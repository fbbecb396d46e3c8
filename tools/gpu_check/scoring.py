"""The stage that scores a clip on the device and on the CPU: the values must agree, and both are timed.

In: a scene known in closed form. Out: the largest difference of each metric, seconds of both.
Read next: `evalkit/score/metrics/device.py`, what is computed on a device.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from gpu_check.running import Report

ALEXNET = {"0": (64, 3, 11), "3": (192, 64, 5), "6": (384, 192, 3), "8": (256, 384, 3), "10": (256, 256, 3)}
"""Convolutions of AlexNet: channels out, channels in, size. LPIPS is compared with random weights of these shapes."""

LIMITS = {"lpips/alex_v0.1": 1e-3}
"""Largest relative difference by metric, where it is not `LIMIT`; LPIPS computes in float32."""

LIMIT = 1e-5


def scoring(report: Report) -> None:
    """Compare the scores of one chunk; without the packages of scoring, say which is missing."""
    try:
        from evalkit.score.chunk import ScoreOptions, score_chunk
        from tests.doubles.scene import scene_chunk, scene_spec
    except ModuleNotFoundError as error:
        report.missing(str(error.name), "scoring")
        return
    size = (48, 64) if report.settings.quick else (256, 320)
    chunk = scene_chunk(num_frames=2, image_hw_px=size)
    device = report.settings.device if report.settings.on_gpu else "cpu:0"
    with TemporaryDirectory() as folder:
        _write_alexnet(Path(folder))
        options = ScoreOptions(references=False, lpips_nets=("alex",), lpips_weights=Path(folder))
        seconds, values = dict[str, float](), dict[str, Any]()
        for name in ("cpu", device):
            used = replace(options, device=name)
            score_chunk(chunk, scene_spec(size), used)  # compiles, and starts the device
            begun = time.perf_counter()
            values[name] = score_chunk(chunk, scene_spec(size), used)
            seconds[name] = time.perf_counter() - begun
    for metric, difference in _errors(values["cpu"], values[device]).items():
        report.check(f"scoring: {metric}", difference, LIMITS.get(metric, LIMIT))
    report.fact(
        scored=f"2 frames of 3 views of {size[0]} x {size[1]}",
        cpu_ms=1e3 * seconds["cpu"],
        device_ms=1e3 * seconds[device],
        ratio=seconds[device] / seconds["cpu"],
    )


def _errors(expected: list[Any], found: list[Any]) -> dict[str, float]:
    """Return the largest relative difference of each metric; infinite where only one side has a value."""
    errors: dict[str, float] = defaultdict(float)
    for right, ours in zip(expected, found, strict=True):
        assert right.metric == ours.metric
        if right.value is None or ours.value is None:
            error = 0.0 if right.value is ours.value else float("inf")
        else:
            error = abs(ours.value - right.value) / max(abs(right.value), 1e-9)
        errors[right.metric] = max(errors[right.metric], error)
    return errors


def _write_alexnet(folder: Path) -> None:
    """Write random weights of AlexNet under torchvision's names."""
    from evalkit.score.metrics.lpips import BACKBONES

    generator = torch.Generator().manual_seed(0)
    weights = {}
    for layer, (out, into, size) in ALEXNET.items():
        weights[f"features.{layer}.weight"] = torch.randn(out, into, size, size, generator=generator) / 20
        weights[f"features.{layer}.bias"] = torch.zeros(out)
    torch.save(weights, folder / BACKBONES["alex"].torchvision_file)
