"""Caveats: what a reader must know before the numbers.

In: a run's plan, records, `run.json` and the coverage of its scores; or several runs. Out: sentences.
Read next: `read.py`, which collects them; `build.py`, which puts them before the tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.spec import EPISODE, EVERYTHING, oracle_keys
from evalkit.contracts.text import sentence_kind
from evalkit.report.format import quantity
from evalkit.score.results.coverage import Coverage, LostClip, lost_sentence
from evalkit.store.plan import Plan, nothing_predicted
from evalkit.store.records import EpisodeRecord

AGAIN = "run `evalkit score run` again"


class MixedProtocols(EvalkitError):
    """Runs of different protocols in one report, without `--across-protocols`."""


def plan_caveats(plan: Plan, *, num_missing: int) -> Iterator[str]:
    """Yield what limits the numbers of a plan: an unfinished run, an oracle, random weights, departures.

    Args:
        plan: Names the departures, the simulator state that the policy reads, and the source of its weights.
        num_missing: Planned episodes that have no record yet.
    """
    if num_missing:
        have = "episode has" if num_missing == 1 else "episodes have"
        yield f"The run is not finished: {num_missing} planned {have} no record yet."
    for name, spec in plan.policy.specs.items():
        if keys := oracle_keys(spec.get("privileged_keys") or ()):
            yield f"{name} is an oracle, not a learned policy: it reads {_privileges(keys)}."
    if sentence := nothing_predicted(plan):
        yield f"{plan.policy.name}: {sentence}"
    for key, value in plan.policy.provenance.items():
        if "random" in f"{key} {value}".lower():
            yield f"{plan.policy.name}: {key}: {value}."
    if plan.departures:
        yield f"Not a benchmark score, {_departures(plan)}"


def record_caveats(records: Sequence[EpisodeRecord]) -> Iterator[str]:
    """Yield each kind of warning among the records once: in how many episodes, and the first of them."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for record in records:
        for warning in record.warnings:
            kinds.setdefault(sentence_kind(warning, task=record.task), []).append((record.key, warning))
    for found in kinds.values():
        (key, warning), *_ = found
        yield f"{quantity(len(found), 'episode')} of {len(records)} with a warning, for example {key}: {warning}"


def session_caveats(about: Mapping[str, Any]) -> Iterator[str]:
    """Yield what changed between the sessions that filled a run: commit, versions, machine.

    Args:
        about: Contents of `run.json`.
    """
    listed = about.get("sessions")
    sessions = [session for session in listed if isinstance(session, Mapping)] if isinstance(listed, list) else []
    changes = [
        *_changes({"commit": session.get("commit")} for session in sessions),
        *_changes(_mapping(session, "versions") for session in sessions),
        *_changes({f"machine's {k}": v for k, v in _mapping(session, "machine").items()} for session in sessions),
    ]
    if changes:
        yield f"The run's {len(sessions)} sessions differ: {'; '.join(changes)}."


def worker_caveats(about: Mapping[str, Any]) -> Iterator[str]:
    """Yield in what the env processes of a run differ: GPUs and versions of a simulator can move success by points.

    Args:
        about: Contents of `run.json`.
    """
    facts = {name: values for name, values in _worker_facts(about).items() if len(values) > 1}
    if facts:
        listed = "; ".join(f"{name} {' and '.join(values)}" for name, values in facts.items())
        yield f"The run's env processes differ: {listed}."


def between_worker_caveats(abouts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield in what the env processes of several runs differ.

    Args:
        abouts: Contents of `run.json` of each run, by the run's name.
    """
    facts = {run: _worker_facts(about) for run, about in abouts.items()}
    for name in dict.fromkeys(name for each in facts.values() for name in each):
        groups = _grouped({run: " and ".join(sorted(each[name])) for run, each in facts.items() if name in each})
        if len(groups) > 1:
            listed = " and ".join(f"'{value}' ({', '.join(runs)})" for value, runs in groups.items())
            yield f"The runs' env processes have different values of {name}: {listed}."


def score_caveats(
    plan: Plan, records: Sequence[EpisodeRecord], made_of: Coverage | None, lost: Sequence[LostClip]
) -> Iterator[str]:
    """Yield how the scores differ from the run as it is now.

    Args:
        plan: The run's plan.
        records: The run's records.
        made_of: Plan and records that the result file was made from.
        lost: Clips that could not be scored.
    """
    now = Coverage.of(plan, records)
    if made_of is None:
        yield f"The scores do not name the records that they were made from; {AGAIN}."
    elif made_of.plan_sha256 != now.plan_sha256:
        yield (
            f"The scores belong to another plan ({made_of.plan_sha256[:12]}, not {now.plan_sha256[:12]}) "
            f"than the records; {AGAIN}."
        )
    else:
        yield from _stale(made_of, now)
    if lost:
        yield lost_sentence(lost, len(now.clips if made_of is None else made_of.clips))


def between_caveats(plans: Mapping[str, Plan], *, across_protocols: bool) -> Iterator[str]:
    """Yield why the numbers of several runs do not compare.

    Args:
        plans: The plan of each run, by the run's name.
        across_protocols: Whether runs of different protocols are allowed in one report.

    Raises:
        MixedProtocols: If the protocols differ and that is not allowed.
    """
    protocols = _grouped({name: plan.protocol for name, plan in plans.items()})
    if len(protocols) > 1:
        listed = " and ".join(f"'{protocol}' ({', '.join(names)})" for protocol, names in protocols.items())
        if not across_protocols:
            raise MixedProtocols(
                f"The runs follow different protocols, {listed}, whose numbers do not compare. Report "
                f"them separately, or give --across-protocols."
            )
        yield f"The runs follow different protocols, {listed}: their numbers do not compare."
    for protocol, names in protocols.items():
        settings = _grouped({name: plans[name].setting for name in names})
        if len(settings) > 1:
            listed = " and ".join(f"'{setting}' ({', '.join(runs)})" for setting, runs in settings.items())
            yield f"The runs of {protocol} have different settings, {listed}: their numbers do not compare."


def _privileges(keys: Sequence[str]) -> str:
    """Return what an oracle reads.

    Example:
        >>> _privileges(["cube_pos", "episode"])
        'simulator state (cube_pos) and the planned episode (task, seed)'
    """
    everything = EVERYTHING in keys
    state = ["everything"] if everything else [key for key in keys if key != EPISODE]
    parts = [f"simulator state ({', '.join(state)})"] if state else []
    return " and ".join([*parts, *["the planned episode (task, seed)"] * (everything or EPISODE in keys)])


def _departures(plan: Plan) -> str:
    if len(plan.departures) == 1:
        return f"1 departure from {plan.protocol}: {plan.departures[0]}"
    listed = " ".join(f"({number}) {departure}" for number, departure in enumerate(plan.departures, start=1))
    return f"{len(plan.departures)} departures from {plan.protocol}: {listed}"


def _stale(made_of: Coverage, now: Coverage) -> Iterator[str]:
    covered = sum(made_of.clips.get(key) == clip for key, clip in now.clips.items())
    if covered < len(now.clips):
        yield f"The scores cover {covered} of {quantity(len(now.clips), 'episode')} with predictions; {AGAIN}."
    if gone := len(made_of.clips.keys() - now.clips.keys()):
        yield f"The scores include {quantity(gone, 'episode')} without a record; {AGAIN}."


def _changes(sessions: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    """Yield each key that has more than one value, with the values in the order in which they appeared."""
    values: dict[str, list[str]] = {}
    shown = list(sessions)
    for key in dict.fromkeys(key for session in shown for key in session):
        values[key] = list(dict.fromkeys(_shown(session.get(key)) for session in shown))
    return (f"{key} {', then '.join(texts)}" for key, texts in values.items() if len(texts) > 1)


def _worker_facts(about: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return every value of each fact that the env processes of a run report, in the order of the tasks."""
    others = [told for listed in _mapping(about, "other_workers").values() for told in listed]
    facts: dict[str, list[str]] = {}
    for told in [*_mapping(about, "workers").values(), *others]:
        for name, value in told.items():
            if value not in facts.setdefault(name, []):
                facts[name].append(value)
    return facts


def _mapping(session: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = session.get(key)
    return value if isinstance(value, Mapping) else {}


def _shown(value: Any) -> str:
    """Return a value as short text; a commit's hash is cut, and text after its `+` stays."""
    if value is None:
        return "unknown"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    head, plus, rest = text.partition("+")
    is_hash = len(head) == 40 and all(letter in "0123456789abcdef" for letter in head)
    return f"{head[:12]}{plus}{rest}" if is_hash else text


def _grouped(values: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names of each value, in the order in which they appear."""
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    return groups
