"""Check a manifest again: let the expert of this machine try its seeds, and count how often it agrees.

In: a manifest, of this evalkit or imported. Out: agreements per task; a manifest of the episodes on which both agree,
with what ties each to its scene. The manifest that is checked is not changed.
Read next: `lanes.py`, which tries the seeds; `run.py`, which makes manifests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.manifest import VERIFIED, BadManifest, Manifest, TaskVettings, Vetting
from evalkit.vet.lanes import Experts, run_searches
from evalkit.vet.run import check_names, vettable, vetted_by
from evalkit.vet.search import Listed, Search, State

OTHER_STATE = "another first state"
"""What differs where the verdict does not: the same seed gives another scene here."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How two vettings of one task agree.

    Attributes:
        task: Name of the task.
        state: `vetted` if every seed was tried.
        reason: Why the others were not.
        accepted: Seeds that the manifest accepts and that were tried here.
        accepted_here: How many of them are accepted here.
        rejected: Seeds that the manifest rejects, or passes over, and that were tried here.
        rejected_here: How many of them are rejected here.
        same_state: Of the seeds whose first state both know, those in which it is equal.
        known_states: Seeds whose first state both know.
        sentences: Sentences of the seeds that both accept.
        sentences_here: How many of them their own split gives in the scene here.
        differing: The seeds with another verdict, with the reason here, with another first state, or with a sentence
            that cannot be said here, in seed order.
        tied: The manifest's vettings that were tried here, in seed order, with the hashes and the expert's length of
            this machine; those that differ are rejected, with the reason.
    """

    task: str
    state: State
    reason: str | None
    accepted: int
    accepted_here: int
    rejected: int
    rejected_here: int
    same_state: int
    known_states: int
    sentences: int
    sentences_here: int
    differing: Mapping[int, str]
    tied: Sequence[Vetting]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found, with what.

    Attributes:
        agreements: One per task.
        vetted_by: Who tried the seeds here, by task; empty where none was tried.
    """

    agreements: Sequence[Agreement]
    vetted_by: Mapping[str, Mapping[str, str]]


def verify(
    manifest: Manifest,
    experts: Experts,
    *,
    tasks: Sequence[str] = (),
    episodes: int | None = None,
    rejected: int = 0,
    on_change: Callable[[Search], None] = lambda search: None,
    on_retry: Callable[[str], None] = lambda sentence: None,
) -> Verification:
    """Let the expert try seeds of a manifest.

    Args:
        manifest: The manifest.
        experts: The bench and its setting, and the env processes.
        tasks: Names of the tasks; none for all that the manifest has in the setting.
        episodes: Accepted seeds of each task that are tried, the first ones; None for all.
        rejected: Rejected seeds of each task that are tried too, the first ones below the last accepted one that is
            tried. A seed that the manifest passes over counts as rejected.
        on_change: Called after each verdict and at the end of each task, one call at a time.
        on_retry: Called with a sentence when a seed is tried again after a technical failure.

    Raises:
        UnknownName: For a task or setting that does not exist.
        BadManifest: If it is of another bench or protocol.
        EvalkitError: If the manifest has none of these tasks, or the bench has no seeds to vet.
    """
    bench = experts.bench
    first_seed = vettable(bench).first_vetted_seed(bench.config)
    _check_protocol(manifest, bench.name, vettable(bench).vetting_protocol(bench.config))
    manifest.check_names(settings=bench.settings, tasks=bench.tasks)
    check_names(bench, experts.setting, tasks)
    entries = _entries(manifest, experts.setting, tasks or bench.tasks, all_needed=bool(tasks))
    searches = [
        Listed(
            task=entry.task,
            listed=_seeds(entry, first_seed=first_seed, episodes=episodes, rejected=rejected),
            instructions={vetting.seed: vetting.instructions for vetting in entry.accepted},
        )
        for entry in entries
    ]
    follower = _Follower(experts, on_change, on_retry)
    run_searches(searches, experts, follower)
    return Verification(
        agreements=[_compare(entry, search) for entry, search in zip(entries, searches, strict=True)],
        vetted_by=follower.vetted_by,
    )


def _check_protocol(manifest: Manifest, bench: str, protocol: str) -> None:
    if (manifest.bench, manifest.protocol) != (bench, protocol):
        raise BadManifest(
            f"The manifest holds episodes of '{manifest.protocol}' ({manifest.bench}), but those of '{protocol}' "
            f"({bench}) are verified: name another file, or choose another --bench or protocol."
        )


def _entries(manifest: Manifest, setting: str, tasks: Sequence[str], *, all_needed: bool) -> list[TaskVettings]:
    found = {task: manifest.find(setting, task) for task in tasks}
    missing = [task for task, entry in found.items() if entry is None]
    entries = [entry for entry in found.values() if entry is not None]
    if not entries or (all_needed and missing):
        raise EvalkitError(
            f"The manifest has no vettings of {', '.join(missing[:5])}{' and others' * (len(missing) > 5)} in the "
            f"setting '{setting}'; it has the settings {', '.join(manifest.settings) or 'none'}."
        )
    return entries


def _seeds(entry: TaskVettings, *, first_seed: int, episodes: int | None, rejected: int) -> list[int]:
    """Return the seeds of a task that are tried, in order."""
    accepted = [vetting.seed for vetting in entry.accepted[:episodes]]
    end = accepted[-1] if accepted else max((vetting.seed for vetting in entry.vettings), default=-1) + 1
    all_accepted = set(accepted)
    others = islice((seed for seed in range(first_seed, end) if seed not in all_accepted), rejected)
    return sorted([*accepted, *others])


def _compare(entry: TaskVettings, search: Listed) -> Agreement:
    """Return how the verdicts here agree with those of the manifest."""
    listed = {vetting.seed: vetting for vetting in entry.vettings}
    accepted = {vetting.seed for vetting in entry.accepted}
    here = dict(sorted(search.known.items()))
    pairs = [(listed[seed], vetting) for seed, vetting in here.items() if seed in listed]
    stated = [(one, other) for one, other in pairs if one.first_state_sha256 and other.first_state_sha256]
    both = [(one, other) for one, other in pairs if one.accepted and other.accepted]
    reasons = {seed: _difference(listed.get(seed), vetting) for seed, vetting in here.items()}
    return Agreement(
        task=entry.task,
        state=search.state,
        reason=search.reason,
        accepted=sum(seed in accepted for seed in here),
        accepted_here=sum(vetting.accepted for seed, vetting in here.items() if seed in accepted),
        rejected=sum(seed not in accepted for seed in here),
        rejected_here=sum(not vetting.accepted for seed, vetting in here.items() if seed not in accepted),
        same_state=sum(one.first_state_sha256 == other.first_state_sha256 for one, other in stated),
        known_states=len(stated),
        sentences=sum(len(one.instructions) for one, _ in both),
        sentences_here=sum(len(other.instructions) for _, other in both),
        differing={seed: reason for seed, reason in reasons.items() if reason is not None},
        tied=[_tie(one, other, reasons[one.seed]) for one, other in pairs if one.accepted],
    )


def _difference(listed: Vetting | None, here: Vetting) -> str | None:
    """Return in what a vetting here differs from the listed one, None for a seed that is passed over; None if nothing.

    A first state that only one of the two knows makes no difference.
    """
    if here.accepted != (listed is not None and listed.accepted):
        return here.reason or "accepted here"
    if listed is None or not here.accepted:
        return None
    if listed.first_state_sha256 and here.first_state_sha256 and listed.first_state_sha256 != here.first_state_sha256:
        return OTHER_STATE
    lost = [split for split in listed.instructions if split not in here.instructions]
    return f"its sentence '{lost[0]}' cannot be said of the scene here" if lost else None


def _tie(listed: Vetting, here: Vetting, difference: str | None) -> Vetting:
    """Return a listed vetting with what ties it to its scene, as this machine builds it."""
    if difference is not None:
        return Vetting(seed=listed.seed, accepted=False, reason=difference, expert_steps=here.expert_steps)
    return replace(here, instructions=listed.instructions)


def tied_manifest(manifest: Manifest, found: Verification, setting: str) -> Manifest:
    """Return the episodes on which a manifest and this machine agree, with the hashes of their scenes here.

    Seeds, order and sentences are the manifest's; what differs is rejected. Tasks that were not tried to their end are
    left out. Each entry states both who vetted first and, under names that begin with `VERIFIED`, who did here.
    """
    entries = []
    for each in found.agreements:
        entry = manifest.find(setting, each.task)
        if entry is None or each.state != "vetted" or not any(vetting.accepted for vetting in each.tied):
            continue
        first = {name: fact for name, fact in entry.vetted_by.items() if not name.startswith(VERIFIED)}
        second = {f"{VERIFIED}{name}": fact for name, fact in found.vetted_by[each.task].items()}
        entries.append(replace(entry, vettings=tuple(each.tied), max_tries=None, vetted_by=first | second))
    return replace(manifest, entries=tuple(entries))


class _Follower:
    """Notes who tries the seeds."""

    def __init__(self, experts: Experts, on_change: Callable[[Search], None], on_retry: Callable[[str], None]) -> None:
        self.vetted_by: dict[str, dict[str, str]] = {}
        self._experts, self._on_change, self._on_retry = experts, on_change, on_retry

    def on_worker(self, search: Search, about: Mapping[str, str]) -> None:
        """Note what an env process says of itself."""
        self.vetted_by[search.task] = vetted_by(self._experts.bench, about)

    def on_vetting(self, search: Search, vetting: Vetting) -> None:
        """Pass a verdict on."""
        self._on_change(search)

    def on_retry(self, search: Search, sentence: str) -> None:
        """Pass a sentence on."""
        self._on_retry(sentence)

    def on_end(self, search: Search) -> None:
        """Pass the end of a task on."""
        self._on_change(search)
