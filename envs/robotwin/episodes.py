"""The vetted episodes that a plan takes from a manifest, and how they depart from the protocol's.

In: a manifest's file, a protocol, a task. Out: vettings in seed order, or one sentence that says what to do.
Read next: `evalkit/contracts/manifest.py`, the file; `vetted_lists.py`, which imports the lists of others.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evalkit.contracts.manifest import VERIFIED, BadManifest, Manifest, TaskVettings, Vetting, read_manifest
from evalkit.contracts.text import count_of
from evalkit.contracts.types import Episode

from .instructions import Split
from .protocols import PLANNER, SAPIEN, Protocol

BENCH = "robotwin"

VET = "`evalkit vet --bench robotwin`"
IMPORT = "`evalkit vet --bench robotwin --import FILE`"
TIE = "`evalkit vet --bench robotwin --verify LIST --out FILE`"


def load(path: Path, protocol: Protocol) -> Manifest:
    """Return the manifest in a file.

    Raises:
        BadManifest: If there is none, or it is of another bench or other seeds than the protocol's.
    """
    manifest = find(path, protocol)
    if manifest is None:
        raise BadManifest(
            f"RoboTwin evaluates only seeds that its expert solves, and there is no manifest of them at {path}: "
            f"vet them with {VET}, take those that others vetted with {IMPORT}, or name a manifest with "
            "bench.robotwin.manifest=FILE (docs/robotwin.md)."
        )
    return manifest


def find(path: Path, protocol: Protocol) -> Manifest | None:
    """Return the manifest in a file, None if there is no file; raises as `load` does for other faults."""
    if not path.exists():
        return None
    stat = path.stat()
    manifest = _read(path, stat.st_mtime_ns, stat.st_size)
    if (manifest.bench, manifest.protocol) != (BENCH, protocol.seeds):
        raise BadManifest(
            f"The manifest {path} holds episodes of '{manifest.protocol}' ({manifest.bench}), but {protocol.name} "
            f"needs those of '{protocol.seeds}': name another with bench.robotwin.manifest=FILE, or choose another "
            "bench.robotwin.protocol."
        )
    return manifest


def choose(manifest: Manifest, path: Path, *, setting: str, task: str, split: Split, count: int) -> Sequence[Vetting]:
    """Return the first accepted episodes of a task, in seed order.

    Args:
        manifest: The manifest.
        path: Its file, for error messages.
        setting: Name of the setting.
        task: Name of the task.
        split: Which of the two sentences is needed.
        count: Number of episodes.

    Raises:
        BadManifest: If it has fewer, or one without that sentence.
    """
    entry = manifest.find(setting, task)
    accepted = entry.accepted if entry else ()
    if len(accepted) < count:
        fewer = f"--episodes {len(accepted)}, or " if accepted else ""
        raise BadManifest(
            f"The manifest {path} has {count_of(len(accepted), 'vetted episode')} of {task} in '{setting}', but "
            f"{count} are needed: give {fewer}{_vet_more(entry, path, setting=setting, task=task, count=count)}."
        )
    for vetting in accepted[:count]:
        if split not in vetting.instructions:
            raise BadManifest(
                f"The manifest {path} has no '{split}' instruction for seed {vetting.seed} of {task} in '{setting}' "
                f"(it has {', '.join(vetting.instructions) or 'none'}): vet again with {VET}, or give "
                "bench.robotwin.instructions."
            )
    return accepted[:count]


def _vet_more(entry: TaskVettings | None, path: Path, *, setting: str, task: str, count: int) -> str:
    """Return how to get more vetted episodes of a task; a list of others is complete as it is."""
    words = f"{VET[:-1]} --setting {setting} --tasks {task} --episodes {count} --out"
    if entry is None or not _is_elsewhere(entry.vetted_by.get("by", "")):
        return f"vet more with {words} {path}`"
    if f"{VERIFIED}by" in entry.vetted_by:
        return f"verify more of the published list with {TIE}"
    return (
        f"vet into another file with {words} FILE` and name it with bench.robotwin.manifest=FILE, because an imported "
        "list cannot be extended"
    )


def _is_elsewhere(by: str) -> bool:
    """Return whether others vetted."""
    return not by.startswith("evalkit ")


def select(manifest: Manifest, episodes: Sequence[Episode]) -> Manifest:
    """Return the vettings of given episodes only: other tasks, settings and seeds in the file make no difference."""
    seeds: dict[tuple[str, str], set[int]] = {}
    for episode in episodes:
        seeds.setdefault((episode.setting, episode.task), set()).add(episode.seed)
    chosen = (
        replace(entry, max_tries=None, vettings=tuple(v for v in entry.vettings if v.seed in seeds[entry.key]))
        for entry in manifest.entries
        if entry.key in seeds
    )
    return replace(manifest, entries=tuple(chosen))


def vetted_by(manifest: Manifest) -> str:
    """Return who vetted the episodes of a manifest, and who tried them again, for plans and run records."""
    sentences = []
    for prefix, verb in (("", "vetted"), (VERIFIED, "verified")):
        facts = [entry.vetted_by for entry in manifest.entries if f"{prefix}by" in entry.vetted_by or not prefix]
        each = sorted({(fact.get(f"{prefix}by", "?"), fact.get(f"{prefix}planner", "?")) for fact in facts})
        sentences += [f"{verb} by " + ", ".join(f"{who} (planner {planner})" for who, planner in each)] * bool(each)
    return ", ".join(sentences)


def departures(manifest: Manifest, protocol: Protocol) -> list[str]:
    """Return how the vettings in a manifest depart from the protocol's, one sentence each; see `select`."""
    stated = {
        name: sorted({entry.vetted_by.get(name, "an unnamed one") for entry in manifest.entries})
        for name in ("by", "planner", "robotwin", "sapien")
    }
    sentences = []
    elsewhere = [who for who in stated["by"] if _is_elsewhere(who)]
    if elsewhere:
        sentences.append(f"Seeds and sentences were vetted elsewhere: {'; '.join(elsewhere)}.")
    if any(planner != PLANNER for planner in stated["planner"]):
        sentences.append(
            f"Seeds were vetted with the planner {' and '.join(stated['planner'])} instead of {PLANNER}: other seeds "
            "are accepted."
        )
    for name, what, expected in (("robotwin", "RoboTwin", protocol.commit.short), ("sapien", "SAPIEN", SAPIEN)):
        if any(version != expected for version in stated[name]):
            sentences.append(f"Seeds were vetted with {what} {' and '.join(stated[name])} instead of {expected}.")
    for planner, sapien in sorted(
        {
            (entry.vetted_by.get(f"{VERIFIED}planner", "an unnamed one"), entry.vetted_by.get(f"{VERIFIED}sapien", "?"))
            for entry in manifest.entries
            if f"{VERIFIED}by" in entry.vetted_by
        }
    ):
        sentences.append(
            f"Of the listed seeds, only those are kept that the planner {planner} with SAPIEN {sapien} solves too."
        )
    vettings = [vetting for entry in manifest.entries for vetting in entry.vettings]
    unknown = sum(vetting.first_state_sha256 is None for vetting in vettings)
    if unknown:
        sentences.append(
            f"The first state of {unknown} of {count_of(len(vettings), 'episode')} is not known: a scene that differs "
            "from the vetted one is not noticed."
        )
    return sentences


@functools.lru_cache(maxsize=8)
def _read(path: Path, mtime_ns: int, size: int) -> Manifest:
    """Return the manifest of a file, read again only if the file changed."""
    return read_manifest(path)
