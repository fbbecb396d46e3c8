"""The report as Markdown and CSV.

In: `RunReport`s. Out: text.
Read next: `render_console.py`, the same for the eye; `write.py`, which puts it on the disk.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence

from evalkit.report.format import (
    COUNTS,
    HEADLINE,
    SCORE_HEADER,
    SUCCESS_HEADER,
    TOTALS,
    interval,
    number,
    score_cells,
    success_cells,
)
from evalkit.report.published import MEANS_HEADER, Beside
from evalkit.report.read import Imagination, RunReport
from evalkit.report.stats import Interval
from evalkit.report.tables import ScoreRow
from evalkit.score.results.names import IMAGINED, METRICS, SUBJECTS

TITLES = {"task": "By task", "outcome": "By outcome of the episode", "view": "By view", "horizon": "By horizon"}
"""The splits that are shown; `scores.csv` has intervals and counts of each."""


def markdown(
    runs: Sequence[RunReport], caveats: Sequence[str] = (), published: Mapping[str, Beside] | None = None
) -> str:
    """Return the whole report, a chapter a run, after the caveats of holding one run against another.

    Args:
        runs: What is reported.
        caveats: What holds between them.
        published: What others published, by the name of the run that it stands beside.
    """
    chapters = [[*_chapter(run), *_published(run, (published or {}).get(run.name))] for run in runs]
    parts = ["# Report", *_caveats(caveats), *(part for chapter in chapters for part in chapter), *_definitions(runs)]
    return "\n\n".join(parts) + "\n"


def scores_markdown(scored: Imagination) -> str:
    """Return the report of two folders that were scored: no run, so no success."""
    return "\n\n".join([f"# {scored.name}", *_imagination(scored), *_definitions([scored])]) + "\n"


def success_csv(runs: Sequence[RunReport]) -> str:
    """Return the success tables of all runs as CSV; rates are shares."""
    header = ("run", "bench", "setting", "protocol", "policy", "plan_sha256", "task", *COUNTS)
    rows = []
    for run in runs:
        for row in run.success:
            counts = (getattr(row, name) for name in COUNTS)
            rows.append((*_identity(run), row.task, *counts, row.rate, *_ends(row.interval)))
    return _csv([*header, "rate", "wilson95_low", "wilson95_high"], rows)


def scores_csv(scored: Sequence[Imagination]) -> str:
    """Return every mean of every split as CSV; what only runs have is empty for folders."""
    header = ("run", "bench", "setting", "protocol", "policy", "plan_sha256", "subject", "metric", "split", "group")
    rest = ("mean", "low95", "high95", "num_values", "num_without_value", "num_episodes", "remarks")
    rows = []
    for run in scored:
        identity = _identity(run) if isinstance(run, RunReport) else (run.name, *[None] * 5)
        for row in run.scores:
            counts = (row.num_values, row.num_without, row.num_episodes, row.remarks)
            part = (row.subject, row.metric, row.split, row.group)
            rows.append((*identity, *part, row.mean, *_ends(row.interval), *counts))
    return _csv([*header, *rest], rows)


def imagined(run: Imagination) -> list[str]:
    """Return the subjects that a policy imagined: of its own actions, and of those that it was given."""
    return [subject for subject in IMAGINED if any(row.subject == subject for row in run.scores)]


def headline_table(
    run: Imagination, split: str, subject: str = "policy"
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and rows of a subject's headline metrics, a row a group of a split."""
    rows = [row for row in run.scores if row.subject == subject and row.split == split and row.metric in HEADLINE]
    metrics = [metric for metric in HEADLINE if any(row.metric == metric for row in rows)]
    cells = {(row.group, row.metric): number(row.mean) for row in rows}
    groups = list(dict.fromkeys(row.group for row in rows))
    return (split, *metrics), [(group, *(cells.get((group, metric), "-") for metric in metrics)) for group in groups]


def worth_table(run: Imagination) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and rows of the headline metrics, a column a subject: what a number of the policy is worth."""
    rows = [row for row in run.scores if row.split == "all" and row.metric in HEADLINE]
    metrics = [metric for metric in HEADLINE if any(row.metric == metric for row in rows)]
    cells = {(row.subject, row.metric): number(row.mean) for row in rows}
    found = list(dict.fromkeys(row.subject for row in rows))
    subjects = sorted(
        found, key=lambda subject: list(SUBJECTS).index(subject) if subject in SUBJECTS else len(SUBJECTS)
    )
    return ("metric", *subjects), [
        (metric, *(cells.get((subject, metric), "-") for subject in subjects)) for metric in metrics
    ]


def all_rows(run: Imagination, subject: str = "policy") -> list[ScoreRow]:
    """Return a subject's means over all frames, in the order of the definitions; clips without scores last."""
    order = {name: position for position, name in enumerate(METRICS)}
    rows = [row for row in run.scores if row.subject == subject and row.split == "all"]
    return sorted(rows, key=lambda row: order.get(row.metric, len(order)))


def _chapter(run: RunReport) -> Iterable[str]:
    plan = run.plan
    yield f"## {run.name}: {plan.policy.name} on {plan.bench.name}, setting {plan.setting}"
    yield from _caveats(run.caveats)
    yield _bullets(
        [
            f"protocol: `{plan.protocol}`",
            f"plan: `{plan.sha256}`, seed {plan.seed}, {len(plan.episodes)} episodes",
            *(f"policy: {key}: {value}" for key, value in plan.policy.provenance.items()),
            *(f"bench: {key}: {value}" for key, value in plan.bench.provenance.items()),
            *(f"departure: {departure}" for departure in plan.departures),
        ]
    )
    yield "### Success"
    yield _table(SUCCESS_HEADER, [success_cells(row) for row in run.success])
    yield f"Rates are over success + failure; the other counts are not part of them. {TOTALS}"
    if run.errors:
        yield "### Episodes without a result"
        errors = [(row.outcome, row.blame, str(row.count), row.reason, row.example) for row in run.errors]
        yield _table(("outcome", "whose", "count", "reason", "first"), errors)
    yield from _imagination(run)
    if run.about:
        yield "### How it was run"
        yield f"```json\n{json.dumps(run.about, indent=1, sort_keys=True)}\n```"


def _published(run: RunReport, found: Beside | None) -> Iterable[str]:
    if found is None:
        return
    yield "### Published beside it"
    if found.refusal:
        yield found.refusal
        return
    yield _table(MEANS_HEADER, found.means)
    if found.systems:
        yield _table(("task", run.name, *found.systems), found.tasks)


def _imagination(run: Imagination) -> Iterable[str]:
    yield "### Imagination"
    if not run.scores:
        yield run.nothing
        return
    subjects = imagined(run)
    for subject in subjects:
        if subjects != ["policy"]:
            yield f"#### {meaning(subject).capitalize()}"
        yield _table(SCORE_HEADER, [score_cells(row) for row in all_rows(run, subject)])
    yield (
        "Means over frames and views that have a value; intervals by bootstrap, whole episodes drawn. "
        "A row without a value is counted, never averaged."
    )
    if run.remarks:
        remarks = [(row.status, str(row.count), row.meaning, row.reason or "-") for row in run.remarks]
        yield _table(("remark", "rows", "meaning", "first reason"), remarks)
    if all(row.mean is None for row in run.scores):
        return
    yield "#### What these numbers are worth"
    yield _table(*worth_table(run))
    shown = list(dict.fromkeys(row.subject for row in run.scores if row.subject != "policy"))
    yield _bullets([f"`{name}`: {meaning(name)}" for name in shown])
    for subject in subjects:
        of = "" if subject == "policy" else f", `{subject}`"
        for split, title in TITLES.items():
            yield f"#### {title}{of}"
            yield _table(*headline_table(run, split, subject))
    if run.correlations:
        yield "#### Imagination and success"
        yield _table(("metric", "correlation with success", "95 % interval", "episodes"), _correlation_cells(run))


def meaning(subject: str) -> str:
    """Return what a subject's frames are, in words."""
    side, plus, estimator = subject.partition("+")
    if not plus:
        return SUBJECTS.get(subject, "")
    whose = "what the policy imagined" if side == "policy" else "the truth"
    name, _, alignment = estimator.rpartition("/")
    return f"RGB of {whose}, depth estimated from it by {name}, aligned: {alignment}"


def _correlation_cells(run: Imagination) -> list[tuple[str, ...]]:
    shown = [(row.metric, row.correlation) for row in run.correlations if row.metric in HEADLINE]
    return [(metric, number(c.r), interval(c.interval), str(c.num_episodes)) for metric, c in shown]


def _definitions(runs: Sequence[Imagination]) -> Iterable[str]:
    used = {row.metric for run in runs for row in run.scores}
    if used:
        yield "## Definitions"
        yield _bullets([f"`{name}`: {metric.definition}" for name, metric in METRICS.items() if name in used])


def _identity(run: RunReport) -> tuple[str, ...]:
    plan = run.plan
    return run.name, plan.bench.name, plan.setting, plan.protocol, plan.policy.name, plan.sha256


def _caveats(sentences: Sequence[str]) -> Iterable[str]:
    if sentences:
        yield "\n".join(f"> - **{sentence}**" for sentence in sentences)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _ends(ends: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if ends is None else (ends.low, ends.high)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()
