"""Distance between the sets of predicted and of true clips.

In: chunks, one after another, in any process. Out: a score per clip, once all clips are known.
Read next: `metrics/kernel_distance.py`, the distance; `run.py` and `folders.py`, which write the scores.

Clips of one task form a set; clips that each have a task of their own (folders without task folders) form one set.
Only sums over the frames of a clip are kept: 16 KB for each clip and subject.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from evalkit.contracts.types import Prediction
from evalkit.score.frame import GroundTruth, unfit
from evalkit.score.metrics import lpips
from evalkit.score.metrics.device import is_device_failure
from evalkit.score.metrics.kernel_distance import MIN_CLIPS, embed, pseudo_values, samples
from evalkit.score.results.outcome import WHOLE_CHUNK, ImageKey, Measure, Score
from evalkit.score.results.table import ClipScores
from evalkit.score.results.totals import Total, Totals, add_totals

METRIC = "kernel_distance/alex_frames_changes"


def chunk_totals(
    truths: Mapping[str, GroundTruth],
    subjects: Mapping[str, Prediction],
    start_vhwc_u8: np.ndarray | None,
    weights: Path | None = None,
) -> Totals:
    """Return the sums over the static cameras of one chunk, by subject.

    Args:
        truths: The ground truth for each subject, with the images that cannot be scored.
        subjects: Predictions.
        start_vhwc_u8: The images before the first frame; None if they are not known, then the first frame has no
            change and is left to the others.
        weights: Folder that is searched first for the weights of AlexNet.
    """
    first_truth = next(iter(truths.values()))
    try:
        network = lpips.load("alex", weights, first_truth.device)
    except lpips.LpipsUnavailable as error:
        missing = Measure(None, "unavailable", str(error))
        return {subject: Total(num_left_out=first_truth.num_frames, problem=missing) for subject in subjects}
    totals: Totals = {}
    for view, _ in first_truth.static:
        own = first_truth.own_pixels(view)
        before = [] if start_vhwc_u8 is None else [start_vhwc_u8[view][own]]
        true_u8 = first_truth.frames.rgb_fvhwc_u8[:, view, own[0], own[1]]
        true = _embedded(network, [*before, *true_u8])
        for subject, prediction in subjects.items():
            total = _view_total(network, truths[subject], prediction, view, before, true)
            add_totals(totals, {subject: total})
    return totals


def _view_total(
    network: lpips.Lpips,
    truth: GroundTruth,
    prediction: Prediction,
    view: int,
    before: list[np.ndarray],
    true: np.ndarray | Measure,
) -> Total:
    problems = [unfit(truth, ImageKey("rgb", idx, view), prediction.rgb) for idx in range(truth.num_frames)]
    shift = 0 if before else 1  # the first frame only serves to measure a change
    bad = [problems[idx] or (problems[idx - 1] if idx else None) for idx in range(shift, truth.num_frames)]
    fit = [position for position, problem in enumerate(bad) if problem is None]
    remark = network.measure(0.0)
    pred: np.ndarray | Measure = np.zeros(0)
    if fit and not isinstance(true, Measure):
        rows, columns = truth.own_pixels(view)
        pred = _embedded(network, [*before, *prediction.rgb[: truth.num_frames, view, rows, columns]])
    if isinstance(true, Measure) or isinstance(pred, Measure) or not fit:
        problem = true if isinstance(true, Measure) else next(filter(None, bad), None)
        return Total(num_left_out=len(bad), problem=problem, remark=remark)
    return Total(
        true_e=true[fit].sum(axis=0),
        pred_e=pred[fit].sum(axis=0),
        num_frames=len(fit),
        num_left_out=len(bad) - len(fit),
        problem=next(filter(None, bad), None),
        remark=remark,
    )


def _embedded(network: lpips.Lpips, images: list[np.ndarray]) -> np.ndarray | Measure:
    try:
        return embed(samples(network, np.stack(images)))
    except RuntimeError as error:  # the image is too small for a pooling layer
        if is_device_failure(error):
            raise
        return Measure(None, "too_small", f"{network.net}: {str(error).splitlines()[0]}")


@dataclass
class ClipSets:
    """The clips of a result file, each with its sums; gives their scores after the last clip."""

    _clips: dict[tuple[str, int], ClipScores] = field(default_factory=dict)

    def add(self, scored: ClipScores) -> None:
        """Add a clip, or one of its chunks."""
        if not scored.totals:
            return
        totals: Totals = {}
        if (before := self._clips.get((scored.task, scored.index))) is not None:
            totals = dict(before.totals)
        add_totals(totals, scored.totals)
        self._clips[scored.task, scored.index] = replace(scored, scores=(), totals=totals)

    def scored(self) -> Iterator[ClipScores]:
        """Yield each clip with one score for each subject."""
        measures: dict[tuple[str, int], dict[str, Measure]] = {key: {} for key in self._clips}
        tasks = [task for task, _ in self._clips]
        one_set = len(set(tasks)) == len(tasks)
        subjects = dict.fromkeys(subject for clip in self._clips.values() for subject in clip.totals)
        for task in dict.fromkeys([""] if one_set else tasks):
            for subject in subjects:
                totals = {
                    key: clip.totals[subject]
                    for key, clip in self._clips.items()
                    if (one_set or key[0] == task) and subject in clip.totals
                }
                for key, measure in _measures(totals).items():
                    measures[key][subject] = measure
        for key, clip in self._clips.items():
            yield replace(clip, scores=[_score(*item) for item in measures[key].items()], totals={})


def _measures(totals: Mapping[tuple[str, int], Total]) -> dict[tuple[str, int], Measure]:
    """Return the measure of each clip of one task and subject."""
    fit = {key: total for key, total in totals.items() if total.num_frames}
    few = f"{len(fit)} of the {MIN_CLIPS} clips that a distance between sets needs"
    measures = dict.fromkeys(fit, Measure(None, "too_few_samples", few))
    if len(fit) >= MIN_CLIPS:
        true = np.stack([total.true_e / total.num_frames for total in fit.values()])
        pred = np.stack([total.pred_e / total.num_frames for total in fit.values()])
        values = pseudo_values(true, pred).tolist()
        measures = {key: total.measure(value) for (key, total), value in zip(fit.items(), values, strict=True)}
    single = Measure(None, "too_few_samples", "1 of the 2 frames that a change needs")
    return measures | {key: total.problem or single for key, total in totals.items() if not total.num_frames}


def _score(subject: str, measure: Measure) -> Score:
    return Score(
        subject=subject,
        chunk_idx=-1,
        frame_idx=WHOLE_CHUNK,
        view="static",
        metric=METRIC,
        value=measure.value,
        status=measure.status,
        reason=measure.reason,
    )
