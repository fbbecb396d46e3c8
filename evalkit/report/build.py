"""A report's document: its sections and tables.

In: summaries of runs or scored folders (`read.py`), caveats, published rates. Out: a `Document`.
Read next: `document.py`, the parts; `tables.py`, where the numbers of each row are computed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from evalkit.report.after_settling import settled_parts, settled_text
from evalkit.report.columns import (
    COMPARED,
    COMPARED_SETTLED,
    CORRELATION,
    CORRELATION_NOTE,
    DEFINITIONS_NOTE,
    EPISODES_DATA,
    ERRORS,
    HEADLINE,
    IDENTITY,
    MEANS,
    MEANS_NOTE,
    NO_CORRELATION,
    PUBLISHED_MEANS,
    SCORES_DATA,
    SPLIT_EXPLANATIONS,
    STATUSES_SEEN,
    SUCCESS,
    SUCCESS_DATA,
    SUCCESS_NOTE,
    describe_subject,
)
from evalkit.report.compare import Comparison
from evalkit.report.correlation import CorrelationRow
from evalkit.report.counters import counter_parts
from evalkit.report.dependence_tables import dependence_data, dependence_sections
from evalkit.report.document import Caveats, Cell, Column, Document, Facts, Json, Paragraph, Part, Section, Table
from evalkit.report.format import cell_text, quantity
from evalkit.report.published import PublishedRates
from evalkit.report.read import RunSummary, ScoreSummary
from evalkit.report.realtime import measured_cells, realtime_parts
from evalkit.report.scenes import scene_sentence
from evalkit.report.side_by_side import (
    comparison_data,
    comparison_section,
    reference_section,
    reference_tables,
    references_data,
)
from evalkit.report.stats import Interval
from evalkit.report.tables import MEAN_OF_TASKS, POOLED, ScoreRow, SuccessRow
from evalkit.score.results.names import EXTRA_FAMILIES, METRICS, PREDICTED

EXTRA = tuple(name for name, metric in METRICS.items() if metric.family in EXTRA_FAMILIES)
APART = tuple(name for name, metric in METRICS.items() if metric.family == "dependence")
"""Metrics of tables of their own."""

SPLIT_TITLES = {"task": "By task", "outcome": "By outcome of the episode", "view": "By view", "horizon": "By horizon"}
"""The splits that are shown; `scores.csv` has intervals and counts of each."""


def build_document(
    runs: Sequence[RunSummary],
    caveats: Sequence[str] = (),
    published: Mapping[str, PublishedRates] | None = None,
) -> Document:
    """Return the report of one or several runs: a comparison if there are several, then one section per run.

    Args:
        runs: What is reported.
        caveats: What a reader must know before comparing the runs.
        published: Published rates, by the name of the run to compare them with.
    """
    sections: list[Part] = [*_compared(runs)]
    sections += [part for run in runs for part in _run_parts(run, (published or {}).get(run.name))]
    return Document(
        title="Report",
        parts=(*_caveats(caveats), *sections, *_definitions(runs)),
        data=(
            _success_data(runs),
            _scores_data(runs),
            references_data(runs),
            *dependence_data(runs),
            _episodes_data(runs),
        ),
    )


def build_scores_document(
    scored: Sequence[ScoreSummary],
    comparisons: Sequence[Comparison] = (),
    figures: Mapping[str, Sequence[Part]] | None = None,
) -> Document:
    """Return the report of result files that belong to no run, so that there is no success rate.

    Args:
        scored: What is reported; one gives its name to the report, several get a section each.
        comparisons: Of several, shown first.
        figures: Figures of a result file, or of a comparison, by its name.
    """
    figures = figures or {}
    data = [_scores_data(scored), references_data(scored), *dependence_data(scored)]
    sections = [
        Section(title=one.name, parts=(*_caveats(one.caveats), *figures.get(one.name, ()), *_predictions(one)))
        for one in scored
    ]
    if len(scored) == 1:
        title, parts = sections[0].title, sections[0].parts
    else:
        compared = [comparison_section(one, figures.get(one.name, ())) for one in comparisons]
        title, parts = "Report", (*compared, *sections)
        data.append(comparison_data(comparisons))
    return Document(title=title, parts=(*parts, *_definitions(scored)), data=tuple(data))


def _compared(runs: Sequence[RunSummary]) -> Iterator[Section]:
    """Yield the success of several runs next to each other: one row per task, one column per run."""
    if len(runs) < 2:
        return
    rows = {run.name: {row.task: row for row in run.success} for run in runs}
    titles = _titles_with_settings(runs)
    totals = (POOLED, MEAN_OF_TASKS)
    tasks = dict.fromkeys(task for by_task in rows.values() for task in by_task if task not in totals)
    shown = {"compared": (COMPARED, _rate_text), "compared_after_settling": (COMPARED_SETTLED, settled_text)}
    tables = {}
    for table_id, (explanation, text) in shown.items():
        columns = (
            SUCCESS[0],
            *(Column(id=run.name, title=titles[run.name], explanation=explanation, wraps=True) for run in runs),
        )
        cells = tuple((task, *(text(rows[name].get(task)) for name in rows)) for task in (*tasks, *totals))
        tables[table_id] = Table(id=table_id, columns=columns, rows=cells, num_totals=len(totals), note=SUCCESS_NOTE)
    scenes = scene_sentence({run.name: (run.plan, run.episodes) for run in runs})
    paragraphs = [Paragraph(text=scenes)] if scenes else []
    yield Section(title="Success of all runs", parts=(tables["compared"], *paragraphs))
    if any(row.held + row.lost for run in runs for row in run.success):
        yield Section(title="Success after settling of all runs", parts=(tables["compared_after_settling"],))


def _titles_with_settings(runs: Sequence[RunSummary]) -> dict[str, str]:
    """Return the title of each run's column: its name, and its setting where the runs have several."""
    several = len({run.plan.setting for run in runs}) > 1
    return {run.name: f"{run.name} ({run.plan.setting})" if several else run.name for run in runs}


def _rate_text(row: SuccessRow | None) -> str | None:
    """Return the rate of a task with its counts, for example `98 of 100 (98.0 %)`; None without one."""
    if row is None or row.rate is None:
        return None
    percent = f"{cell_text(row.rate, 'percent')} %"
    return percent if row.task == MEAN_OF_TASKS else f"{row.success} of {row.success + row.failure} ({percent})"


def _run_parts(run: RunSummary, published: PublishedRates | None) -> Iterator[Part]:
    plan = run.plan
    facts = [
        f"protocol: `{plan.protocol}`",
        f"plan: `{plan.sha256}`, seed {plan.seed}, {quantity(len(plan.episodes), 'episode')}",
        *(f"policy: {key}: {value}" for key, value in plan.policy.provenance.items()),
        *(f"bench: {key}: {value}" for key, value in plan.bench.provenance.items()),
        *(f"departure from the protocol: {departure}" for departure in plan.departures),
    ]
    yield Section(
        title=f"{run.name}: {plan.policy.name} on {plan.bench.name} ({plan.protocol}, {plan.setting})",
        parts=(
            *_caveats(run.caveats),
            Facts(lines=tuple(facts)),
            *_success(run),
            *_predictions(run),
            *_settings(run),
            *_published(run, published),
        ),
    )


def _success(run: RunSummary) -> Iterator[Part]:
    rows = tuple(
        (row.task, *(getattr(row, column.id) for column in SUCCESS[1:-1]), row.interval) for row in run.success
    )
    yield Section(
        title="Success",
        parts=(
            Table(id="success", columns=SUCCESS, rows=rows, note=SUCCESS_NOTE, num_totals=2),
            *settled_parts(run.plan, run.episodes, run.success),
        ),
    )
    yield from realtime_parts(run.plan, run.episodes)
    yield from counter_parts(run.episodes)
    if run.errors:
        errors = tuple((row.outcome, row.blame, row.count, row.reason, row.example) for row in run.errors)
        table = Table(id="errors", columns=ERRORS, rows=errors)
        yield Section(title="Episodes without a result", parts=(table,))


def _settings(run: RunSummary) -> Iterator[Part]:
    if run.about:
        text = json.dumps(run.about, indent=1, sort_keys=True)
        yield Section(title="Settings, versions and machine", parts=(Json(text=text),), is_detail=True)


def _published(run: RunSummary, rates: PublishedRates | None) -> Iterator[Part]:
    if rates is None:
        return
    title = "Published success rates"
    if rates.refusal:
        yield Section(title=title, parts=(Paragraph(text=rates.refusal),))
        return
    own = {row.task: row.rate for row in run.success}
    scope = f"{quantity(len(run.plan.tasks), 'task')}, {run.plan.protocol}"
    means: list[tuple[Cell, ...]] = [(run.name, own.get(MEAN_OF_TASKS), "this run", scope)]
    means += [(row.system, row.value / 100, row.source, row.note) for row in rates.means]
    tables = [Table(id="published_means", columns=PUBLISHED_MEANS, rows=tuple(means))]
    if rates.systems:
        tables.append(_published_by_task(run.name, own, rates))
    yield Section(title=title, parts=tuple(tables))


def _published_by_task(name: str, own: Mapping[str, float | None], rates: PublishedRates) -> Table:
    task = Column(id="task", title="task", explanation="name of the task")
    rate = "success rate on the task, percent"
    columns = [Column(id=system, title=system, explanation=rate, kind="percent") for system in (name, *rates.systems)]
    rows = []
    for one, own_rate in own.items():
        if one not in (POOLED, MEAN_OF_TASKS):
            theirs = (rates.by_task.get((system, one)) for system in rates.systems)
            rows.append((one, own_rate, *(None if value is None else value / 100 for value in theirs)))
    return Table(id="published_by_task", columns=(task, *columns), rows=tuple(rows))


def _predictions(scored: ScoreSummary) -> Iterator[Part]:
    title = "Predictions against the ground truth"
    if not scored.scores:
        yield Section(title=title, parts=(Paragraph(text=scored.unscored_reason),))
        return
    subjects = [subject for subject in PREDICTED if any(row.subject == subject for row in scored.scores)]
    parts: list[Part] = []
    for subject in subjects:
        table = _means(scored, subject)
        only = subjects == ["policy"]
        parts.append(table if only else Section(title=_capitalised(describe_subject(subject)), parts=(table,)))
    if scored.remarks:
        rows = tuple((row.status, row.subject, row.count, row.meaning, row.reason) for row in scored.remarks)
        table = Table(id="remarks", columns=STATUSES_SEEN, rows=rows)
        parts.append(Section(title="Remarks on the scores", parts=(table,)))
    if any(row.mean is not None for row in scored.scores):
        parts += [
            reference_section(scored),
            *dependence_sections(scored),
            *_extra(scored, subjects),
            *_splits(scored, subjects),
        ]
        parts += _correlations(scored)
    yield Section(title=title, parts=tuple(parts))


def _means(scored: ScoreSummary, subject: str) -> Table:
    """Return a subject's means over all frames, in the order of the definitions; clips without scores last."""
    apart = {*EXTRA, *APART}
    order = {name: position for position, name in enumerate(METRICS) if name not in apart}
    rows = [row for row in scored.scores if row.subject == subject and row.split == "all" and row.metric not in apart]
    rows.sort(key=lambda row: order.get(row.metric, len(order)))
    return Table(id=f"means_{subject}", columns=MEANS, rows=tuple(map(_mean_cells, rows)), note=MEANS_NOTE)


def _extra(scored: ScoreSummary, subjects: Sequence[str]) -> Iterator[Section]:
    """Yield the means of all other metrics, of parts of the images to sets of clips, and the same of the references."""
    rows = [row for row in scored.scores if row.split == "all" and row.metric in EXTRA]
    parts: list[Part] = []
    for subject in subjects:
        cells = tuple(
            _mean_cells(row) for metric in EXTRA for row in rows if (row.metric, row.subject) == (metric, subject)
        )
        parts.append(Table(id=f"extra_{subject}", columns=MEANS, rows=cells))
    if rows:
        parts += reference_tables(scored, EXTRA, "extra_")
        yield Section(title="Moving pixels, robot, wrist cameras, motion and sets of clips", parts=tuple(parts))


def _mean_cells(row: ScoreRow) -> tuple[Cell, ...]:
    metric = METRICS.get(row.metric)
    best = {"higher": "high", "lower": "low", "neither": ""}[metric.better] if metric else ""
    total = row.num_values + row.num_without
    values = f"{row.num_values} of {total}" if row.num_without else row.num_values
    return (row.metric, best, row.mean, row.interval, values, row.num_episodes, row.remarks)


def _splits(scored: ScoreSummary, subjects: Sequence[str]) -> Iterator[Section]:
    for subject in subjects:
        suffix = "" if subject == "policy" else f", `{subject}`"
        for split, title in SPLIT_TITLES.items():
            table = _split(scored, subject, split)
            if table.rows:
                yield Section(title=f"{title}{suffix}", parts=(table,), is_detail=True)


def _split(scored: ScoreSummary, subject: str, split: str) -> Table:
    """Return the headline metrics of a subject, one row per group of a split; groups without a value are left out."""
    rows = [row for row in scored.scores if (row.subject, row.split) == (subject, split) and row.metric in HEADLINE]
    metrics = [metric for metric in HEADLINE if any(row.metric == metric for row in rows)]
    means = {(row.group, row.metric): row.mean for row in rows}
    explanation = "mean of the metric in the title over the frames of the row (see Definitions)"
    columns = (
        Column(id=split, title=split, explanation=SPLIT_EXPLANATIONS[split]),
        *(Column(id=metric, title=metric, explanation=explanation, kind="number") for metric in metrics),
    )
    groups = dict.fromkeys(row.group for row in rows if row.mean is not None)
    cells = tuple((group, *(means.get((group, metric)) for metric in metrics)) for group in groups)
    return Table(id=f"by_{split}_{subject}", columns=columns, rows=cells)


def _correlations(scored: ScoreSummary) -> Iterator[Section]:
    rows = [row for row in scored.correlations if row.metric in HEADLINE]
    if not rows:
        return
    cells = tuple(_correlation_cells(row) for row in rows if row.correlation is not None)
    table = Table(id="correlations", columns=CORRELATION, rows=cells, note=CORRELATION_NOTE)
    part = table if cells else Paragraph(text=NO_CORRELATION)
    yield Section(title="Predictions and success", parts=(part,), is_detail=True)


def _correlation_cells(row: CorrelationRow) -> tuple[Cell, ...]:
    found = row.correlation
    assert found is not None
    fewest, most = row.num_chunks
    chunks = str(most) if fewest == most else f"{fewest} to {most}"
    tasks = f"{found.num_tasks} of {row.num_tasks}"
    return (row.metric, found.r, found.interval, tasks, found.num_episodes, chunks)


def _definitions(scored: Sequence[ScoreSummary]) -> Iterator[Section]:
    used = {row.metric for summary in scored for row in summary.scores}
    if used:
        lines = tuple(f"`{name}`: {metric.definition}" for name, metric in METRICS.items() if name in used)
        parts = (Paragraph(text=DEFINITIONS_NOTE), Facts(lines=lines))
        yield Section(title="Definitions", parts=parts, is_detail=True)


def _success_data(runs: Sequence[RunSummary]) -> Table:
    rows = tuple(
        (
            *(*_identity(run), row.task, *(getattr(row, column.id) for column in SUCCESS[1:-1]), *_ends(row.interval)),
            *(row.held, row.lost, row.unsettled, row.settled_rate, *_ends(row.settled_interval)),
        )
        for run in runs
        for row in run.success
    )
    return Table(id="success", columns=(*IDENTITY, *SUCCESS_DATA), rows=rows)


def _episodes_data(runs: Sequence[RunSummary]) -> Table:
    """Return every record, in the order of the plan."""
    rows = []
    for run in runs:
        order = {episode.key: position for position, episode in enumerate(run.plan.episodes)}
        for record in sorted(run.episodes, key=lambda record: order[record.key]):
            measured = measured_cells(record)
            names = [column.id for column in EPISODES_DATA if column.id not in measured]
            values = {name: getattr(record, name) for name in names} | measured
            values["scene"] = None if record.scene is None else json.dumps(record.scene, sort_keys=True)
            values["counters"] = json.dumps(record.counters, sort_keys=True) if record.counters else None
            rows.append((*_identity(run), *values.values()))
    return Table(id="episodes", columns=(*IDENTITY, *EPISODES_DATA), rows=tuple(rows))


def _scores_data(scored: Sequence[ScoreSummary]) -> Table:
    """Return every mean of every split; the columns that only runs have are empty for folders."""
    rows: list[tuple[Cell, ...]] = []
    for summary in scored:
        identity = _identity(summary) if isinstance(summary, RunSummary) else (summary.name, *[None] * 5)
        for row in summary.scores:
            counts = (row.num_values, row.num_without, row.num_episodes, row.remarks)
            group = (row.subject, row.metric, row.split, row.group)
            rows.append((*identity, *group, row.mean, *_ends(row.interval), *counts))
    return Table(id="scores", columns=(*IDENTITY, *SCORES_DATA), rows=tuple(rows))


def _identity(run: RunSummary) -> tuple[str, ...]:
    plan = run.plan
    return run.name, plan.bench.name, plan.setting, plan.protocol, plan.policy.name, plan.sha256


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval.low, interval.high)


def _caveats(sentences: Sequence[str]) -> Iterator[Caveats]:
    if sentences:
        yield Caveats(sentences=tuple(sentences))


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
