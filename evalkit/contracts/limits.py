"""Bounds of settings: what a value must be, checked when a config is made.

In: the name of a setting and its value. Out: nothing, or one sentence that says what it must be.
Read next: `evalkit/config.py`, which makes configs; `evalkit/run/settings.py`, an example.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from evalkit.contracts.errors import BadConfig

IMAGE_PX = (16, 2048)
"""Least and largest height and width of a view. H.264 ends at 16384 pixels, and the video of three views with their
depth is six views wide."""

ANTIALIAS_SAMPLES = (0, 2, 4, 8, 16)
"""Samples per pixel that OpenGL knows; MuJoCo takes the renderer's largest number where it has fewer."""

_DEVICE = re.compile(r"(cpu|mps|(cuda|xpu)(:\d+)?)")


def check_range(name: str, value: float, low: float, high: float, *, unit: str = "") -> None:
    """Raise BadConfig unless `low <= value <= high`; a value that is not a number is outside.

    Example:
        >>> check_range("run.workers", 2, 1, 1024)
        >>> check_range("run.chunk_timeout_s", float("nan"), 0.1, 3600, unit="s")
        Traceback (most recent call last):
        evalkit.contracts.errors.BadConfig: run.chunk_timeout_s must be from 0.1 to 3600 s, got nan.
    """
    if not low <= value <= high:
        raise BadConfig(f"{name} must be from {low} to {high}{unit and ' ' + unit}, got {value}.")


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raise BadConfig unless a value is one of the choices.

    Example:
        >>> check_choice("bench.robosuite.gl", "glx", ("auto", "egl", "osmesa"))
        Traceback (most recent call last):
        evalkit.contracts.errors.BadConfig: bench.robosuite.gl must be auto, egl or osmesa, got glx.
    """
    if value not in choices:
        *first, last = map(str, choices)
        raise BadConfig(f"{name} must be {', '.join(first)} or {last}, got {value}.")


def check_device(name: str, value: str) -> None:
    """Raise BadConfig unless a value names a device of torch; whether this machine has it is known when it is used.

    Example:
        >>> check_device("policy.xwam.device", "cuda:1")
    """
    if not _DEVICE.fullmatch(value):
        raise BadConfig(f"{name}={value} cannot be used: it must be cpu, cuda, cuda:1, mps or xpu.")


def check_folder(name: str, value: str) -> None:
    """Raise BadConfig if a path that must be a folder is something else."""
    path = Path(value)
    if path.exists() and not path.is_dir():
        raise BadConfig(f"{name} must be a folder, got the file {value}.")
