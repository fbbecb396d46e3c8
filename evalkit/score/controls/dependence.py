"""Do predictions depend on the actions? How far they part for two actions, next to how far the ground truths part.

In: predictions and ground truths for the recorded and for other actions, from the same frame. Out: `Score`s.
Read next: `branches.py`, where the other ground truth comes from; `evalkit/report/dependence.py`, the ratios.

Of each predicted frame, three numbers of one unit: how far the two predictions lie apart (`pred`), how far the two
ground truths do (`true`), and the part of the predicted difference that points along the true one (`along`, signed):

    dP = P_other - P_recorded    dT = T_other - T_recorded    pred = |dP|    true = |dT|    along = <dP, dT> / |dT|

with the root mean square over pixels as length, or the length of a position. A model that ignores its actions has
`pred` = `along` = 0; one that copies the ground truth of each action has `pred` = `along` = `true`; one that moves the
opposite way has `along` = -`true`. Where the ground truths hardly part, there is nothing to depend on: `same_truth`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import ARM_PROPRIO, Prediction
from evalkit.score.metrics.depth import is_valid, truth_mask
from evalkit.score.results.outcome import OK, ImageKey, Measure, Score
from evalkit.store.clips import ClipChunk, Frames

LEAST_APART = {"apart_levels": 0.5, "apart_m": 0.002, "apart_mm": 2.0}
"""Distances of ground truths below which they count as the same: half a grey level, 2 mm of depth and of position."""

SIDES = ("pred", "true", "along")


class Branching(NamedTuple):
    """The predictions of one subject, for the recorded and for other actions."""

    recorded: Prediction
    other: Prediction


class Apart(NamedTuple):
    """How far predictions and ground truths for two actions lie apart; see the module."""

    pred: Measure
    true: Measure
    along: Measure


def dependence_scores(
    chunk: ClipChunk,
    branch: str,
    other: Frames,
    subjects: Mapping[str, Branching],
    env: EnvSpec,
    problems: Mapping[ImageKey, Measure],
) -> list[Score]:
    """Return the distances of every subject at each horizon that predictions and both ground truths have.

    Args:
        chunk: The recorded frames.
        branch: Name of the control.
        other: The ground truth of its actions, from the same frame.
        subjects: Whose predictions.
        env: Cameras and arms.
        problems: Images of the recording that cannot be scored.
    """
    scores = []
    for subject, pair in subjects.items():
        count = min(len(chunk.true.rgb_fvhwc_u8), len(other.rgb_fvhwc_u8), len(pair.recorded.rgb), len(pair.other.rgb))
        for frame_idx in range(count):
            for view, metric, apart in _frame(chunk.true, other, pair, env, frame_idx, problems):
                for side, measure in zip(SIDES, apart, strict=True):
                    scores.append(
                        Score(
                            subject=subject,
                            chunk_idx=chunk.chunk_idx,
                            frame_idx=frame_idx,
                            view=view,
                            metric=f"{metric}/{side}_{branch}",
                            value=measure.value,
                            status=measure.status,
                            reason=measure.reason,
                        )
                    )
    return scores


def _frame(
    true: Frames, other: Frames, pair: Branching, env: EnvSpec, frame_idx: int, problems: Mapping[ImageKey, Measure]
) -> Iterator[tuple[str, str, Apart]]:
    """Yield the distances of one frame, each with its view or arm and the first part of its metrics' names."""
    views = [view for view, camera in enumerate(env.cameras) if camera.kind == "static"]
    unread = {
        key.modality: problem for key, problem in problems.items() if key.frame_idx == frame_idx and key.view in views
    }

    def static(arrays: np.ndarray) -> np.ndarray:
        return np.asarray(arrays[frame_idx][views], np.float64)

    if pair.recorded.rgb.shape[1:] == pair.other.rgb.shape[1:] == true.rgb_fvhwc_u8.shape[1:]:
        images = map(static, (pair.recorded.rgb, pair.other.rgb, true.rgb_fvhwc_u8, other.rgb_fvhwc_u8))
        yield "static", "apart_levels", _unless(unread.get("rgb"), _rgb, *images)
    if pair.recorded.depth is not None and pair.other.depth is not None:
        depths = map(static, (pair.recorded.depth, pair.other.depth, true.depth_fvhw_m, other.depth_fvhw_m))
        yield "static", "apart_m", _unless(unread.get("depth"), _depth, *depths)
    if pair.recorded.proprio is not None and pair.other.proprio is not None:
        for arm in env.arms:
            states = (pair.recorded.proprio, pair.other.proprio, true.proprio_fd, other.proprio_fd)
            yield arm, "apart_mm", _position(*(state[frame_idx, ARM_PROPRIO[arm]] for state in states))


def _rgb(pred: np.ndarray, pred_other: np.ndarray, true: np.ndarray, true_other: np.ndarray) -> Apart:
    return distances(pred_other - pred, true_other - true, least=LEAST_APART["apart_levels"])


def _depth(pred_m: np.ndarray, pred_other_m: np.ndarray, true_m: np.ndarray, true_other_m: np.ndarray) -> Apart:
    """Return the distances of depth, over pixels with depth in both ground truths.

    Predicted depth that is not finite or not positive counts as 0 m; the status of the predictions' distances says so.
    """
    mask = truth_mask(true_m) & truth_mask(true_other_m)
    if not mask.any():
        missing = Measure(None, "no_valid_truth")
        return Apart(missing, missing, missing)
    first, second = (np.where(is_valid(pred), pred, 0.0)[mask] for pred in (pred_m, pred_other_m))
    apart = distances(second - first, (true_other_m - true_m)[mask], least=LEAST_APART["apart_m"])
    num_invalid = int((first == 0).sum() + (second == 0).sum())
    if not num_invalid or apart.pred.status != OK:
        return apart
    status = "all_invalid_depth" if num_invalid == 2 * first.size else "some_invalid_depth"
    reason = f"{num_invalid} of {2 * first.size} predicted depths are not finite or not positive, and count as 0 m"
    pred, along = (Measure(measure.value, status, reason) for measure in (apart.pred, apart.along))
    return Apart(pred, apart.true, along)


def _position(*states: np.ndarray) -> Apart:
    """Return the distances of the end effector, from two predicted and two true states of one arm."""
    pred, pred_other, true, true_other = (1000.0 * np.asarray(state[:3], np.float64) for state in states)
    if not np.isfinite([pred, pred_other]).all():
        bad = Measure(None, "bad_state")
        return Apart(bad, bad, bad)
    return distances(pred_other - pred, true_other - true, least=LEAST_APART["apart_mm"], mean=False)


def distances(pred: np.ndarray, true: np.ndarray, *, least: float, mean: bool = True) -> Apart:
    """Return the lengths of a predicted and a true difference, and the part of the first along the second.

    Args:
        pred: P_other - P_recorded.
        true: T_other - T_recorded, of the same shape.
        least: Length of the true difference below which the ground truths count as the same.
        mean: Whether a length is the root mean square; else the root of the sum of squares.

    Example:
        >>> apart = distances(np.array([0.0, 2.0]), np.array([0.0, -4.0]), least=0.1, mean=False)
        >>> [measure.value for measure in apart]
        [2.0, 4.0, -2.0]
    """
    count = pred.size if mean else 1
    pred_length, true_length = (float(np.sqrt(np.sum(side**2) / count)) for side in (pred, true))
    if true_length < least:
        reason = f"the ground truths are less than {least:g} apart"
        return Apart(
            Measure(pred_length, "same_truth", reason),
            Measure(true_length, "same_truth", reason),
            Measure(None, "same_truth", reason),
        )
    along = float(np.sum(pred * true) / count) / true_length
    return Apart(Measure(pred_length), Measure(true_length), Measure(along))


def _unless(problem: Measure | None, compute: Callable[..., Apart], *arrays: np.ndarray) -> Apart:
    return compute(*arrays) if problem is None else Apart(problem, problem, problem)
