"""Scoring of anyone's predictions: two folders of frames, without a run or a policy.

In: a folder of predictions and one of ground truth, in any layout that docs/scoring.md names. Out: the same result
file as for a run.
Read next: `sources/pairs.py`, which finds the clips; `folder_clip.py`, which scores one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.memory import keep_freed_memory
from evalkit.contracts.types import OnProgress
from evalkit.score.checks.clips import ClipOrder
from evalkit.score.chunk import ScoreOptions
from evalkit.score.distribution import ClipSets
from evalkit.score.folder_clip import Offers, clip_parts, offers_of
from evalkit.score.metrics.device import describe
from evalkit.score.results.checks import CHECK_PREFIX, check_row
from evalkit.score.results.coverage import CLIP_METRIC, clip_row, failure_row
from evalkit.score.results.outcome import Score
from evalkit.score.results.table import ClipScores, ScoreWriter
from evalkit.score.results.totals import Totals
from evalkit.score.results.truth import OnChunk, TruthHashes, seen_by
from evalkit.score.sources.clip_facts import clip_facts
from evalkit.score.sources.folder_options import FolderOptions
from evalkit.score.sources.pairs import ClipPair, pair_clips


def score_folders(
    pred_dir: Path,
    true_dir: Path,
    result: Path,
    *,
    on_progress: OnProgress | None = None,
    options: ScoreOptions | None = None,
    files: FolderOptions | None = None,
    on_chunk: OnChunk | None = None,
) -> Path:
    """Score every clip of two folders and return the path of the result file.

    A clip with unusable ground truth gives one row with that status; a prediction without ground truth does too.

    Args:
        pred_dir: Predictions.
        true_dir: Ground truth; determines clips, views, number and size of frames.
        result: Where the Parquet file goes.
        on_progress: Called with (clips done, clips in all).
        options: What is scored in addition to the metrics that every clip gets.
        files: How the files are to be understood.
        on_chunk: Called with each part of a clip that is scored.

    Raises:
        BadConfig: If a folder does not exist, there is no clip, no clip has a prediction, or the device does not exist.
        RunFolderError: If the result cannot be written.
    """
    options, files = options or ScoreOptions(), files or FolderOptions()
    scored_on = describe(options.device)
    keep_freed_memory()
    pairs = pair_clips(pred_dir, true_dir)
    offers = offers_of([pair.pred for pair in pairs.scored])
    num_clips = len(pairs.scored) + len(pairs.without_truth)
    truth = TruthHashes()
    order, sets = ClipOrder(), ClipSets()
    both = seen_by(truth.add, order.add, on_chunk)
    with ScoreWriter(result, scored_on=scored_on, options=files.described()) as writer:
        for num_done, pair in enumerate([*pairs.scored, *pairs.without_truth], start=1):
            has_truth = num_done <= len(pairs.scored)
            clip = ClipScores(task=pair.task, index=pair.index, outcome="unknown", scores=(), clip=pair.name)
            totals: Totals = {}
            for scores in _clip(pair, options, files, offers, both, totals) if has_truth else [_without_truth(pair)]:
                writer.write(replace(clip, scores=[_naming(pair, score) for score in scores]))
            sets.add(replace(clip, totals=totals))
            if on_progress is not None:
                on_progress(num_done, num_clips)
        for clip in _order_rows(order, pairs.scored):
            writer.write(clip)
        for clip in sets.scored():
            writer.write(clip)
        writer.add_truth(truth)
    return result


def _naming(pair: ClipPair, score: Score) -> Score:
    """Return a score whose reason names the clip, where task and index do not, in rows about the clip as a whole."""
    about_clip = score.metric == CLIP_METRIC or score.metric.startswith(CHECK_PREFIX)
    if not about_clip or pair.name in (".", pair.task):
        return score
    return replace(score, reason=f"{pair.name}: {score.reason}")


def _order_rows(order: ClipOrder, pairs: Sequence[ClipPair]) -> Iterator[ClipScores]:
    """Yield what looks wrong in the order of the clips, as rows of theirs."""
    by_key = {f"{pair.task}/{pair.index:04d}": pair for pair in pairs}
    for key, finding in order.findings({key: pair.name for key, pair in by_key.items()}):
        pair = by_key[key]
        rows = [check_row(finding)]
        yield ClipScores(task=pair.task, index=pair.index, outcome="unknown", scores=rows, clip=pair.name)


def _without_truth(pair: ClipPair) -> list[Score]:
    return [clip_row("no_truth", f"{pair.true.root} holds no clip named {pair.name}")]


def _clip(
    pair: ClipPair, options: ScoreOptions, files: FolderOptions, offers: Offers, on_chunk: OnChunk, totals: Totals
) -> Iterator[list[Score]]:
    try:
        yield from clip_parts(pair, clip_facts(pair, files), options, offers, on_chunk, totals)
    except BadConfig as error:
        yield [clip_row("broken_clip", str(error))]
    except Exception as error:
        yield [failure_row(error)]
