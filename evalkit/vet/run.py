"""Vet the seeds of a bench: write which ones its expert solves into a manifest.

In: a bench, a setting, tasks, how many episodes each needs. Out: the manifest, one entry per task that is vetted.
Read next: `lanes.py`, which tries the seeds; `journal.py`, which keeps the verdicts of a killed vetting; `verify.py`.

The manifest depends neither on the number of workers nor on their timing: the seeds that count are those from the
first one without a gap, up to the last accepted one that is needed.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.env import VettableBench
from evalkit.contracts.errors import EvalkitError, UnknownName, cannot_write
from evalkit.contracts.manifest import (
    BadManifest,
    Manifest,
    TaskVettings,
    Vetting,
    describe_difference,
    read_manifest,
    write_manifest,
)
from evalkit.vet.journal import Journal
from evalkit.vet.lanes import Experts, run_searches
from evalkit.vet.search import FirstAccepted, Search, State

TRIES_PER_EPISODE = 25
"""Seeds that are tried at most for each episode, unless the user gives a limit. The lowest share of accepted seeds in a
published list is 1 of 20."""

OnChange = Callable[["TaskOutcome"], None]


@dataclass(frozen=True, kw_only=True)
class Vet:
    """What is to be vetted.

    Attributes:
        experts: The bench and its setting, and the env processes.
        tasks: Names of the tasks.
        episodes: Accepted seeds that each task needs.
        max_tries: Seeds of a task that are tried at most.
        out: File of the manifest, new or to be extended.
    """

    experts: Experts
    tasks: Sequence[str]
    episodes: int
    max_tries: int
    out: Path

    @property
    def first_seed(self) -> int:
        """Return the first seed of every task."""
        bench = self.experts.bench
        return vettable(bench).first_vetted_seed(bench.config)


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
    """How the vetting of a task stands, or ended.

    Attributes:
        task: Name of the task.
        state: `open` until it has ended.
        reason: Why it is `skipped` or `not vetted`.
        accepted: Accepted seeds that count.
        tried: Seeds that count.
        rejections: Number of rejected seeds by reason.
    """

    task: str
    state: State
    reason: str | None
    accepted: int
    tried: int
    rejections: Mapping[str, int]


def vettable(bench: BoundBench) -> VettableBench:
    """Return the plugin of a bench whose seeds can be vetted.

    Raises:
        EvalkitError: If they cannot.
    """
    if not isinstance(bench.plugin, VettableBench):
        raise EvalkitError(
            f"Bench '{bench.name}' has no seeds to vet: every seed is an episode. See VettableBench in "
            "evalkit/contracts/env.py."
        )
    return bench.plugin


def make_vet(
    experts: Experts,
    *,
    tasks: Sequence[str] = (),
    episodes: int | None = None,
    max_tries: int | None = None,
    out: Path,
) -> Vet:
    """Return what is to be vetted, with the defaults filled in.

    Args:
        experts: The bench and its setting, and the env processes.
        tasks: Names of the tasks; none for all.
        episodes: Accepted seeds that each task needs; None for as many as the protocol has, or else 100.
        max_tries: Seeds of a task that are tried at most; None for 25 for each episode.
        out: File of the manifest.

    Raises:
        UnknownName: For a task or setting that does not exist.
        EvalkitError: If the bench has no seeds to vet.
    """
    bench = experts.bench
    vettable(bench)
    check_names(bench, experts.setting, tasks)
    needed = episodes or bench.episodes_per_task or 100
    return Vet(
        experts=experts,
        tasks=tuple(dict.fromkeys(tasks)) or tuple(bench.tasks),
        episodes=needed,
        max_tries=max_tries or TRIES_PER_EPISODE * needed,
        out=out,
    )


def check_names(bench: BoundBench, setting: str, tasks: Sequence[str]) -> None:
    """Raise UnknownName for a setting or a task that the bench does not have."""
    see = f"evalkit list --bench {bench.address}"
    if setting not in bench.settings:
        raise UnknownName("setting", setting, bench.settings, see=see)
    for task in tasks:
        if task not in bench.tasks:
            raise UnknownName("task", task, bench.tasks, see=see)


def run_vet(
    vet: Vet,
    on_change: OnChange = lambda outcome: None,
    on_retry: Callable[[str], None] = lambda sentence: None,
) -> list[TaskOutcome]:
    """Vet what is missing, and return how each task ended; the manifest is written after each task.

    Args:
        vet: What is to be vetted.
        on_change: Called whenever the state of a task changes, one call at a time.
        on_retry: Called with a sentence when a seed is tried again after a technical failure.

    Raises:
        BadManifest: If the file at `out` cannot be used, or is of another bench or protocol.
        RunFolderError: If it cannot be written, or another vetting is filling it.
    """
    with Journal(vet.out) as journal:
        recorder = _Recorder(vet, journal, present_manifest(vet), on_change, on_retry)
        searches = [
            FirstAccepted(task=task, first_seed=vet.first_seed, episodes=vet.episodes, max_tries=vet.max_tries)
            for task in vet.tasks
        ]
        run_searches(searches, vet.experts, recorder)
        done = {(vet.experts.setting, search.task) for search in searches if search.state == "vetted"}
        journal.remove_done(recorder.manifest, done=done)
    return [outcome_of(search) for search in searches]


def present_manifest(vet: Vet) -> Manifest:
    """Return the manifest in the file, or an empty one where there is no file.

    Raises:
        BadManifest: If it cannot be used, or is of another bench or protocol.
    """
    bench = vet.experts.bench
    empty = Manifest(bench=bench.name, protocol=vettable(bench).vetting_protocol(bench.config))
    return read_manifest(vet.out).merge(empty) if vet.out.exists() else empty


def outcome_of(search: FirstAccepted) -> TaskOutcome:
    """Return how the vetting of a task stands."""
    counted = search.vettings()
    return TaskOutcome(
        task=search.task,
        state=search.state,
        reason=search.reason,
        accepted=sum(vetting.accepted for vetting in counted),
        tried=len(counted),
        rejections=Counter(vetting.reason for vetting in counted if vetting.reason is not None),
    )


def vetted_by(bench: BoundBench, about: Mapping[str, str]) -> dict[str, str]:
    """Return who vets, and with what: versions, planner, renderer, kind of machine.

    Args:
        bench: Its provenance is included.
        about: What an env process says of itself.
    """
    machine = f"{platform.system()} {platform.machine()}"
    return {"by": f"evalkit {metadata.version('evalkit')}", "machine": machine, **bench.provenance(), **about}


class _Recorder:
    """Writes each verdict into the journal and each vetted task into the manifest."""

    def __init__(
        self, vet: Vet, journal: Journal, manifest: Manifest, on_change: OnChange, on_retry: Callable[[str], None]
    ) -> None:
        self.manifest = manifest
        self._vet, self._journal, self._on_change, self._on_retry = vet, journal, on_change, on_retry
        self._by: dict[str, dict[str, str]] = {}

    def on_worker(self, search: Search, about: Mapping[str, str]) -> None:
        """Take over what was vetted before with the same planner, versions and machine.

        Raises:
            BadManifest: If the manifest holds the task, vetted with something else, or two workers differ.
        """
        setting, task = self._vet.experts.setting, search.task
        by = vetted_by(self._vet.experts.bench, about)
        entry = TaskVettings(setting=setting, task=task, vettings=(), vetted_by=by)
        if (first := self._by.setdefault(task, by)) != by:
            other = TaskVettings(setting=setting, task=task, vettings=(), vetted_by=first)
            raise BadManifest(f"two env processes differ ({describe_difference(other, entry)}): vet with one kind")
        present = self.manifest.find(setting, task)
        if present is not None and present.vetted_by != by:
            raise BadManifest(
                f"{self._vet.out} holds it already, vetted with something else "
                f"({describe_difference(present, entry)}): choose another file with --out"
            )
        search.known.update(self._journal.known(setting, task, by))
        if present is not None:
            assert isinstance(search, FirstAccepted)
            search.known.update({vetting.seed: vetting for vetting in present.vettings})
            search.max_tries = max(search.max_tries, len(present.vettings))

    def on_vetting(self, search: Search, vetting: Vetting) -> None:
        """Write a verdict into the journal; one that comes after the end of its task is no news."""
        self._journal.append(self._vet.experts.setting, search.task, self._by[search.task], vetting)
        if search.state == "open":
            self._tell(search)

    def on_retry(self, search: Search, sentence: str) -> None:
        """Pass a sentence on."""
        self._on_retry(sentence)

    def on_end(self, search: Search) -> None:
        """Write a vetted task into the manifest."""
        if search.state == "vetted":
            assert isinstance(search, FirstAccepted)
            entry = TaskVettings(
                setting=self._vet.experts.setting,
                task=search.task,
                vettings=search.vettings(),
                max_tries=self._vet.max_tries,
                vetted_by=self._by[search.task],
            )
            merged = self.manifest.merge(
                Manifest(bench=self.manifest.bench, protocol=self.manifest.protocol, entries=(entry,))
            )
            self._write(merged)
        self._tell(search)

    def _write(self, manifest: Manifest) -> None:
        if manifest != self.manifest:
            try:
                write_manifest(self._vet.out, manifest)
            except OSError as error:
                raise cannot_write(self._vet.out, error) from error
        self.manifest = manifest

    def _tell(self, search: Search) -> None:
        assert isinstance(search, FirstAccepted)
        self._on_change(outcome_of(search))
