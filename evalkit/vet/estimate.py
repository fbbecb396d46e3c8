"""How long a vetting would take: let the expert try two seeds of a task, and measure.

In: what is to be vetted. Out: seconds per seed; nothing is kept.
Read next: `run.py`, which vets; `evalkit/cli/vet.py`, which prints the estimate.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from evalkit.contracts.manifest import Vetting
from evalkit.vet.lanes import run_searches
from evalkit.vet.run import Vet, present_manifest
from evalkit.vet.search import Listed, Search

SEEDS_TRIED = 2
"""Seeds of the task that is tried; only the last one is timed, because images of the first one take longer."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What trying two seeds of a task showed.

    Attributes:
        task: Name of the task.
        seconds: Time of the last seed; None if it could not be tried.
        reason: Why not.
    """

    task: str
    seconds: float | None
    reason: str | None


def missing_tasks(vet: Vet) -> list[str]:
    """Return the tasks for which the manifest does not have enough accepted seeds.

    Raises:
        BadManifest: If the file cannot be used.
    """
    manifest = present_manifest(vet)
    entries = {task: manifest.find(vet.experts.setting, task) for task in vet.tasks}
    return [task for task, entry in entries.items() if entry is None or len(entry.accepted) < vet.episodes]


def try_task(vet: Vet, task: str) -> Trial:
    """Let the expert try the first seeds of a task."""
    search = Listed(task=task, listed=range(vet.first_seed, vet.first_seed + SEEDS_TRIED))
    clock = _Clock()
    run_searches([search], replace(vet.experts, workers=1, logs=None), clock)
    tried = search.state == "vetted"
    return Trial(task=task, seconds=clock.moments[-1] - clock.moments[-2] if tried else None, reason=search.reason)


@dataclass
class _Clock:
    """Notes when each verdict came."""

    moments: list[float] = field(default_factory=list)

    def on_worker(self, search: Search, about: Mapping[str, str]) -> None:
        """Do nothing."""

    def on_vetting(self, search: Search, vetting: Vetting) -> None:
        """Note the moment."""
        self.moments.append(time.perf_counter())

    def on_retry(self, search: Search, sentence: str) -> None:
        """Do nothing."""

    def on_end(self, search: Search) -> None:
        """Do nothing."""
