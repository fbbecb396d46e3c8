"""Memory of env processes: read after each episode, so that one that grows is replaced and the growth is known.

In: process ids. Out: whether to replace a process; sums for `run.json` and a sentence for the user.
Read next: `evalkit/run/lane.py` and `evalkit/vet/lanes.py`, which replace; `evalkit/run/settings.py` for the limit.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from evalkit.contracts.text import count_of

GIB, MIB = 2**30, 2**20

MACHINE_SHARE = 0.8
"""Part of the machine's memory that all env processes may take together, unless `run.worker_memory_gib` says more."""

MIN_EPISODES = 6
"""Episodes of a process from which its growth is known."""

LARGE_GROWTH_MIB = 8
"""Growth per episode from which users are warned: 50 episodes are then 400 MiB."""

STEADY_SHARE = 0.75
"""Part of the episodes after which a process must be larger than before, so that its growth is steady."""

_SESSION, _RESIDENT_PAGES = 3, 21
"""Positions in `/proc/PID/stat` behind the name of the program."""


def resident_bytes(pid: int) -> int | None:
    """Return the resident memory of a process that leads a session, and of all processes in it.

    Shared pages count for each process. None where there is no `/proc`, or the process has ended.
    """
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            values = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(values[_SESSION]) == pid:
            total += int(values[_RESIDENT_PAGES]) * os.sysconf("SC_PAGE_SIZE")
    return total or None


def machine_bytes() -> int:
    """Return the memory of the machine, or of the container if that has less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            sizes.append(int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(sizes)


def growth_mib(sizes: Sequence[int]) -> float | None:
    """Return by how many MiB per episode a process grows; None if that is unknown, or it does not grow steadily.

    The first episode is left out, because it also loads what all episodes need.

    Args:
        sizes: Resident bytes after each episode of one process.

    Example:
        >>> growth_mib([500 * MIB + 17 * MIB * episode for episode in range(8)])
        17.0
        >>> growth_mib([500 * MIB] * 8) is None
        True
    """
    later = sizes[1:]
    if len(sizes) < MIN_EPISODES:
        return None
    steps = [after - before for before, after in pairwise(later)]
    if sum(step > 0 for step in steps) < STEADY_SHARE * len(steps):
        return None
    return float(median(steps)) / MIB


@dataclass(eq=False)
class MemoryWatch:
    """The memory of all env processes of a session; its methods may be called from several threads.

    Attributes:
        peak_bytes: Largest size so far.
        num_replaced: Processes replaced because of their size.
        num_too_large: Processes above the limit after their first episode, which a replacement would not help.
        growths_mib: Growth per episode of each process that has ended and grew steadily.
    """

    peak_bytes: int = 0
    num_replaced: int = 0
    num_too_large: int = 0
    growths_mib: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, sizes: Sequence[int], limit_bytes: int) -> bool:
        """Take the size after an episode, the last of a process's sizes; return whether to replace the process.

        A process that is above the limit after its first episode is kept: its successor would be too.
        """
        with self._lock:
            self.peak_bytes = max(self.peak_bytes, sizes[-1])
            self.num_too_large += len(sizes) == 1 and sizes[0] > limit_bytes
            replaces = sizes[-1] > limit_bytes >= sizes[0]
            self.num_replaced += replaces
            return replaces

    def end(self, sizes: Sequence[int]) -> None:
        """Take all sizes of a process that ends."""
        growth = growth_mib(sizes)
        if growth is not None:
            with self._lock:
                self.growths_mib.append(growth)

    @property
    def growth_mib(self) -> float | None:
        """Return the median growth per episode of the processes that grew steadily; None if none did."""
        return round(float(median(self.growths_mib)), 1) if self.growths_mib else None

    def to_json(self, limit_bytes: int) -> dict[str, Any]:
        """Return what `run.json` holds of a session."""
        return {
            "limit_gib": round(limit_bytes / GIB, 2),
            "peak_gib": round(self.peak_bytes / GIB, 2),
            "replaced": self.num_replaced,
            "growth_mib_per_episode": self.growth_mib,
        }

    def describe(self, limit_bytes: int) -> list[str]:
        """Return what a user should know: processes replaced, a limit below the need, large and steady growth."""
        limit = f"{limit_bytes / GIB:.1f} GiB (run.worker_memory_gib)"
        sentences = []
        if self.num_replaced:
            sentences.append(f"Env processes were replaced {count_of(self.num_replaced, 'time')} above {limit}.")
        if self.num_too_large:
            sentences.append(
                f"Env processes need up to {self.peak_bytes / GIB:.1f} GiB, above {limit} after their first episode: "
                "they were kept. Use fewer workers, or raise the limit."
            )
        if self.growth_mib is not None and self.growth_mib >= LARGE_GROWTH_MIB:
            sentences.append(
                f"Env processes grow by {self.growth_mib:g} MiB per episode; run.episodes_per_worker limits this too."
            )
        return sentences


@dataclass(eq=False)
class ProcessMemory:
    """The memory of one env process after each of its episodes, as a thread that owns the process follows it.

    Attributes:
        watch: The memory of all env processes.
        limit_bytes: Size above which a process is replaced.
        sizes: Resident bytes after each episode.
    """

    watch: MemoryWatch
    limit_bytes: int
    sizes: list[int] = field(default_factory=list)

    def is_too_large(self, pid: int) -> bool:
        """Read the size after an episode; return whether to replace the process."""
        size = resident_bytes(pid)
        if size is None:
            return False
        self.sizes.append(size)
        return self.watch.note(self.sizes, self.limit_bytes)

    def end(self) -> None:
        """Take note that the process has ended; the next one starts without sizes."""
        self.watch.end(self.sizes)
        self.sizes = []
