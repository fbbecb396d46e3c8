"""A against B: the predictions of two models for the same clips, from two scored folders.

In: two result files of `score folders` or `score dataset`. Out: paired differences, and what does not compare.
Read next: `paired.py`, the numbers; `build.py`, which makes a section of it.

Differences are between values of the same clip, chunk, horizon and view, so the difficulty of the clips cancels. That
holds only if both were scored against the same ground truth, by the same definitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from evalkit.contracts.errors import EvalkitError
from evalkit.report.format import quantity
from evalkit.report.paired import Paired, paired_rows
from evalkit.score.results.checks import check_sentences, split_checks
from evalkit.score.results.names import PREDICTED
from evalkit.score.results.table import HowScored, read_how_scored, read_scores
from evalkit.score.results.truth import TruthHashes

NUM_NAMED = 5
"""How many clips a sentence names."""


class NotComparable(EvalkitError):
    """Two result files whose values do not belong to the same ground truth."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the clips that both predicted.

    Attributes:
        name: Of both models.
        caveats: What a reader must know before the numbers.
        pairs: Each kind of prediction that both have: `policy`, `policy_given_actions`.
    """

    name: str
    caveats: tuple[str, ...]
    pairs: Mapping[str, Paired]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Side:
    name: str
    how: HowScored
    scores: pd.DataFrame
    checks: tuple[str, ...]

    def clips(self, subject: str) -> dict[str, None]:
        """Return the clips for which a subject has a value."""
        rows = self.scores[(self.scores["subject"] == subject) & self.scores["value"].notna()]
        pairs = rows[["task", "index"]].drop_duplicates().itertuples(index=False)
        return dict.fromkeys(f"{task}/{index:04d}" for task, index in pairs)


def compare_scores(paths: tuple[Path, Path], names: tuple[str, str]) -> Comparison:
    """Return the paired differences of two result files.

    Args:
        paths: Of the files.
        names: How to call them.

    Raises:
        NotComparable: If they were scored against different ground truth, or share no clip or metric.
        RunFolderError: If a file is missing or broken.
    """
    left, right = (_side(path, name) for path, name in zip(paths, names, strict=True))
    _check_truth(left, right)
    defined_otherwise = sorted(
        metric
        for metric in left.how.definitions.keys() & right.how.definitions.keys()
        if left.how.definitions[metric] != right.how.definitions[metric]
    )
    pairs, caveats = {}, [*_caveats(left, right, defined_otherwise)]
    for subject in PREDICTED:
        ours, theirs = (
            scores[(scores["subject"] == subject) & ~scores["metric"].isin(defined_otherwise)]
            for scores in _same_frames(left, right)
        )
        rows = paired_rows(ours, theirs)
        if any(row.num_values for row in rows):
            pairs[subject] = Paired(left=left.name, right=right.name, rows=tuple(rows))
            caveats += [*_one_side_only(left, right, subject), *_metrics_of_one_side(left, right, subject)]
    if not pairs:
        raise NotComparable(
            f"{left.name} and {right.name} share no value: {left.name} has scores of {_listed(left.clips('policy'))}, "
            f"{right.name} of {_listed(right.clips('policy'))}. Give a clip the same name in both."
        )
    return Comparison(name=f"{names[0]} and {names[1]}", caveats=tuple(caveats), pairs=pairs)


def _side(path: Path, name: str) -> _Side:
    table = read_scores(path)
    scores, _ = split_checks(table)
    return _Side(name=name, how=read_how_scored(path), scores=scores, checks=tuple(check_sentences(table)))


def _check_truth(left: _Side, right: _Side) -> None:
    """Raise NotComparable if the same frame has another ground truth on the other side."""
    if left.how.truth is None or right.how.truth is None:
        return
    theirs = right.how.truth.clips
    differ = {
        clip: [frame for frame, found in frames.items() if theirs.get(clip, {}).get(frame, found) != found]
        for clip, frames in left.how.truth.clips.items()
    }
    clips = {clip: frames for clip, frames in differ.items() if frames}
    if clips:
        clip, frames = next(iter(clips.items()))
        shared = len(left.how.truth.clips.keys() & theirs.keys())
        chunk, _, horizon = frames[0].partition("/")
        raise NotComparable(
            f"{left.name} and {right.name} were scored against different ground truth in {len(clips)} of "
            f"{quantity(shared, 'shared clip')}, first in {clip}, chunk {chunk}, frame {int(horizon) + 1}. Score both "
            f"against the same folder{_other_options(left, right)}."
        )


def _other_options(left: _Side, right: _Side) -> str:
    """Return which options of the files differ, as the end of a sentence; empty if none does."""
    options = sorted(
        name
        for name in {*left.how.options, *right.how.options}
        if left.how.options.get(name) != right.how.options.get(name)
    )
    return f", with the same {', '.join('--' + name.replace('_', '-') for name in options)}" if options else ""


def _same_frames(left: _Side, right: _Side) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows without values over whole chunks in clips of which the sides have other frames."""
    if left.how.truth is None or right.how.truth is None:
        return left.scores, right.scores
    other = set(_clips_of_other_frames(left.how.truth, right.how.truth))

    def kept(scores: pd.DataFrame) -> pd.DataFrame:
        clips = [f"{task}/{index:04d}" for task, index in zip(scores["task"], scores["index"], strict=True)]
        pooled = scores["frame_idx"] < 0
        return scores[~(pooled & pd.Series(clips, index=scores.index).isin(other))]

    return kept(left.scores), kept(right.scores)


def _clips_of_other_frames(left: TruthHashes, right: TruthHashes) -> list[str]:
    return [clip for clip in left.clips.keys() & right.clips.keys() if left.clips[clip] != right.clips[clip]]


def _caveats(left: _Side, right: _Side, defined_otherwise: Sequence[str]) -> Iterator[str]:
    yield from (f"{side.name}: {sentence}" for side in (left, right) for sentence in side.checks)
    unknown = [side.name for side in (left, right) if side.how.truth is None]
    if unknown:
        verb = "does" if len(unknown) == 1 else "do"
        yield (
            f"{' and '.join(unknown)} {verb} not state the ground truth: whether both were scored against the same is "
            "not checked. Score again to have it checked."
        )
    if left.how.version != right.how.version:
        versions = " and ".join(f"evalkit {side.how.version or 'unknown'} ({side.name})" for side in (left, right))
        yield f"The scores come from different versions: {versions}."
    if defined_otherwise:
        yield f"Left out, because the two sides define them otherwise: {', '.join(defined_otherwise)}."
    for name in sorted({*left.how.options, *right.how.options}):
        said = [side.how.options.get(name, "not given") for side in (left, right)]
        if said[0] != said[1]:
            yield f"--{name.replace('_', '-')} differs: {left.name}: {said[0]}; {right.name}: {said[1]}."
    if left.how.truth is not None and right.how.truth is not None:
        other = _clips_of_other_frames(left.how.truth, right.how.truth)
        if other:
            yield (
                f"In {quantity(len(other), 'clip')} the sides have different frames ({_listed(other)}): only shared "
                "frames are compared, and values over whole chunks of these clips are left out."
            )


def _one_side_only(left: _Side, right: _Side, subject: str) -> Iterator[str]:
    for one, other in ((left, right), (right, left)):
        theirs = other.clips(subject)
        missing = [clip for clip in one.clips(subject) if clip not in theirs]
        if missing:
            yield f"Only {one.name} has {subject} scores of {quantity(len(missing), 'clip')}: {_listed(missing)}."


def _metrics_of_one_side(left: _Side, right: _Side, subject: str) -> Iterator[str]:
    """Yield the metrics that one side alone has."""
    has = [
        set(side.scores[(side.scores["subject"] == subject) & side.scores["value"].notna()]["metric"])
        for side in (left, right)
    ]
    for side, own, others in ((left, has[0], has[1]), (right, has[1], has[0])):
        if own - others:
            yield f"Only {side.name} has values of {', '.join(sorted(own - others))}; they are not compared."


def _listed(names: Sequence[str] | Mapping[str, None]) -> str:
    """Return some names as text.

    Example:
        >>> _listed(["a", "b"]), _listed(list("abcdefg")), _listed([])
        ('a, b', 'a, b, c, d, e and 2 more', 'nothing')
    """
    listed = sorted(names)
    more = f" and {len(listed) - NUM_NAMED} more" if len(listed) > NUM_NAMED else ""
    return (", ".join(listed[:NUM_NAMED]) or "nothing") + more
