"""Times work on a device: with CUDA's events on a GPU, with the clock elsewhere.

In: a callable, a device. Out: seconds, bytes.
Read next: `machine.py`, which measures the device's peak with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch


def synchronise(device: torch.device) -> None:
    """Wait until the device has done everything; raises the error of an earlier kernel, if there was one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds of one call."""
    if device.type != "cuda":
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3


def fastest_of(works: Sequence[Callable[[], Any]], device: torch.device, rounds: int) -> list[float]:
    """Return the shortest time of each, seconds; they take turns, and a first round does not count."""
    for work in works:
        work()
    synchronise(device)
    times = [[seconds_of(work, device) for work in works] for _ in range(rounds)]
    return [min(column) for column in zip(*times, strict=True)]


def fastest(work: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Return the shortest time of some work, seconds; a first call does not count."""
    return fastest_of([work], device, rounds)[0]


def reset_peak(device: torch.device) -> None:
    """Start counting the highest memory in use from here."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float | None:
    """Return the highest memory in use since `reset_peak`, GiB; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def free_gib(device: torch.device) -> float | None:
    """Return the free memory of the device, GiB; None on a CPU."""
    return torch.cuda.mem_get_info(device)[0] / 2**30 if device.type == "cuda" else None
