"""Whether runs met the same scenes: their records compared by hash of the first state and of the first frame.

In: plans and records of several runs. Out: sentences.
Read next: `evalkit/contracts/worker/fingerprint.py`, which makes the hashes; `build.py`, which shows the sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from evalkit.report.format import quantity
from evalkit.store.plan import Plan
from evalkit.store.records import EpisodeRecord

Runs = Mapping[str, tuple[Plan, Sequence[EpisodeRecord]]]
"""Plan and records of each run, by the run's name."""

Key = tuple[str, str, str, str, int]
"""Bench, protocol, setting, task and seed of an episode."""


def scene_sentence(runs: Runs) -> str:
    """Return in how many of the episodes that several runs share the scene was the same; empty where no run says."""
    states, frames = (_hashes(runs, name) for name in ("first_state_sha256", "first_frame_sha256"))
    if not states:
        return ""
    same_states, same_frames = (len(hashes) - len(differing(hashes)) for hashes in (states, frames))
    verb = "is" if len(states) == 1 else "are"
    seen = f", the first frame in {same_frames} of {len(frames)}" if frames else ""
    return (
        f"Scenes: {quantity(len(states), 'episode')} of the same task and seed {verb} in several runs. "
        f"The first state is the same in {same_states} of {len(states)}{seen}."
    )


def scene_caveats(runs: Runs) -> Iterator[str]:
    """Yield a sentence where runs met different scenes under the same bench, protocol, setting, task and seed."""
    states = _hashes(runs, "first_state_sha256")
    if different := differing(states):
        *_, task, seed = different[0]
        yield (
            f"The runs met different scenes in {len(different)} of {quantity(len(states), 'episode')} of the same task "
            f"and seed ({task}, seed {seed}): the simulator's version, its settings or its assets differ."
        )


def differing(hashes: Mapping[Key, set[str]]) -> list[Key]:
    """Return the episodes that have more than one hash.

    Example:
        >>> differing({("b", "p", "s", "Lift", 1): {"a"}, ("b", "p", "s", "Lift", 2): {"a", "b"}})
        [('b', 'p', 's', 'Lift', 2)]
    """
    return [key for key, values in hashes.items() if len(values) > 1]


def _hashes(runs: Runs, name: str) -> dict[Key, set[str]]:
    """Return the hashes of each episode for which two runs or more have one; a run gives that of its first record."""
    found: dict[Key, dict[str, str]] = {}
    for run, (plan, records) in runs.items():
        for record in records:
            if (value := getattr(record, name)) is not None:
                key = (plan.bench.name, plan.protocol, plan.setting, record.task, record.seed)
                found.setdefault(key, {}).setdefault(run, value)
    return {key: set(values.values()) for key, values in found.items() if len(values) > 1}
