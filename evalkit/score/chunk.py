"""All metrics of one chunk: a predicted future beside the true one.

In: a `ClipChunk` and the cameras. Out: `Score`s, one a metric, frame and view (or arm, or all cameras).
Read next: `frame.py`, what is computed for each frame; `score.py`, which does this for the clips of a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import Prediction
from evalkit.score import depth, image, lpips
from evalkit.score.depth_estimator import EstimatorChoice, EstimatorUnavailable, with_depth
from evalkit.score.frame import FrameScores, Named, Picture, Truth, score_frame, unfit
from evalkit.score.measure import Measure
from evalkit.score.names import METRICS
from evalkit.store.clips import ClipChunk, Frames

WHOLE_CHUNK = -1
"""`frame_idx` of a value that covers all frames of a chunk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One number of one chunk.

    Attributes:
        subject: A key of `names.SUBJECTS`.
        chunk_idx: Position in the episode.
        frame_idx: Horizon of the frame, 0 for the first predicted one; `WHOLE_CHUNK` for a value over all.
        view: Camera, `static` (all static cameras), `all` (all cameras), or the arm of a pose.
        metric: A key of `names.METRICS`.
        value: None where there is none; `status` says why.
        status: A key of `measure.STATUSES`.
        reason: One sentence, or empty.
    """

    subject: str
    chunk_idx: int
    frame_idx: int
    view: str
    metric: str
    value: float | None
    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """What is scored beside the metrics that every chunk gets.

    Attributes:
        references: Also score what says what a number is worth; see `names.SUBJECTS`.
        lpips_nets: Networks of LPIPS; where one's weights are missing, a row a chunk says so.
        lpips_weights: Folder of their weights, looked into before the torch hub cache.
        depth_estimator: Gives predicted RGB a depth, scored as subjects of their own; None for none.
        threads: Cores for one chunk; the values do not depend on it.
    """

    references: bool = True
    lpips_nets: tuple[lpips.Net, ...] = ("alex",)
    lpips_weights: Path | None = None
    depth_estimator: EstimatorChoice | None = None
    threads: int = 1


def score_chunk(
    chunk: ClipChunk,
    env: EnvSpec,
    options: ScoreOptions | None = None,
    *,
    problems: Mapping[Picture, Measure] | None = None,
) -> list[Score]:
    """Return the scores of a chunk; none for a policy that imagined nothing.

    Args:
        chunk: Only frames that have a truth are scored.
        env: Names and kinds of the cameras, in the order of the views.
        options: What else is scored.
        problems: Pictures, true or predicted, that could not be read.
    """
    if chunk.predicted is None or len(chunk.true.rgb_fvhwc_u8) == 0:
        return []
    options = options or ScoreOptions()
    truth = Truth(chunk.true, chunk.intrinsics_v33_px, env, problems=problems)
    subjects = {"policy": chunk.predicted, **(reference_predictions(chunk) if options.references else {})}
    scores: list[Score] = []
    for subject, prediction in subjects.items():
        for frame_idx, named in score_prediction(truth, prediction, threads=options.threads):
            scores.append(_score(subject, chunk.chunk_idx, frame_idx, named))
    if options.depth_estimator is not None:
        for subject, frame_idx, named in _estimated(truth, chunk.predicted, options.depth_estimator, options.threads):
            scores.append(_score(subject, chunk.chunk_idx, frame_idx, named))
    for net in options.lpips_nets:
        for subject, frame_idx, named in _lpips(truth, subjects, net, options.lpips_weights):
            scores.append(_score(subject, chunk.chunk_idx, frame_idx, named))
    if options.references and chunk.predicted.depth is not None:
        scores += [_score("depth_8bit", chunk.chunk_idx, frame_idx, named) for frame_idx, named in _depth_8bit(truth)]
    return scores


def score_round_trip(chunk: ClipChunk, env: EnvSpec, round_trip: Callable[[Prediction], Prediction]) -> list[Score]:
    """Return the scores of the truth after a policy's own codec, there and back: the ceiling of what it can show.

    Args:
        chunk: Its prediction says what the policy shows at all.
        env: The cameras.
        round_trip: Encodes and decodes.
    """
    assert chunk.predicted is not None
    truth = Truth(chunk.true, chunk.intrinsics_v33_px, env)
    true = _as_prediction(chunk.true, list(range(truth.num_frames)), chunk.predicted)
    scored = score_prediction(truth, round_trip(true))
    return [_score("codec_round_trip", chunk.chunk_idx, frame_idx, named) for frame_idx, named in scored]


def reference_predictions(chunk: ClipChunk) -> dict[str, Prediction]:
    """Return the futures that frame the scale: the seen frame, if any, repeated; in the first chunk the truth itself.

    They hold what the policy predicts: without predicted depth or states, theirs are left out too.
    """
    assert chunk.predicted is not None
    num_frames = len(chunk.true.rgb_fvhwc_u8)
    references = {}
    if len(chunk.start.rgb_fvhwc_u8):
        references["repeat_last_frame"] = _as_prediction(chunk.start, [0] * num_frames, chunk.predicted)
    if chunk.chunk_idx == 0:
        references["ground_truth"] = _as_prediction(chunk.true, list(range(num_frames)), chunk.predicted)
    return references


def score_prediction(truth: Truth, prediction: Prediction, *, threads: int = 1) -> Iterator[tuple[int, Named]]:
    """Yield every metric of one prediction with the index of its frame; LPIPS, which takes batches, is apart."""
    frames = _score_frames(truth, prediction, threads)
    for frame_idx, frame in enumerate(frames):
        for named in frame.named:
            yield frame_idx, named
    squares = [square for frame in frames for square in frame.squares]
    if squares:
        yield WHOLE_CHUNK, Named("static", "psnr_db/clip_pooled", image.psnr_db(float(np.mean(squares))))
    if any(frame.num_depth_views for frame in frames):
        pooled = depth.NO_ERRORS
        for frame in frames:
            pooled = pooled.plus(frame.errors)
        yield WHOLE_CHUNK, Named("static", "absrel/gt_mask_clip_pooled", pooled.absrel())
        yield WHOLE_CHUNK, Named("static", "delta1/gt_mask_clip_pooled", pooled.delta(1))
        yield WHOLE_CHUNK, Named("static", "absrel/gt_mask_affine_disparity", _affine_absrel(truth, prediction))


def _score_frames(truth: Truth, prediction: Prediction, threads: int) -> list[FrameScores]:
    if threads <= 1:
        return [score_frame(truth, prediction, frame_idx) for frame_idx in range(truth.num_frames)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda frame_idx: score_frame(truth, prediction, frame_idx), range(truth.num_frames)))


def _affine_absrel(truth: Truth, prediction: Prediction) -> Measure:
    assert prediction.depth is not None
    views = [view for view, _ in truth.static]
    num_frames = min(truth.num_frames, len(prediction.depth))
    true_m = truth.frames.depth_fvhw_m[:num_frames, views]
    pred_m = prediction.depth[:num_frames, views]
    fit = depth.fit_disparity(true_m, pred_m)
    if fit is None:
        return Measure(None, "degenerate_alignment")
    return depth.depth_errors(true_m, fit.apply(pred_m)).absrel()


def _lpips(
    truth: Truth, subjects: dict[str, Prediction], net: lpips.Net, weights: Path | None
) -> Iterator[tuple[str, int, Named]]:
    """Yield the LPIPS of every subject; the features of the true frames are computed once."""
    metric = f"lpips/{net}_v0.1"
    try:
        network = lpips.load(net, weights)
    except lpips.LpipsUnavailable as error:
        yield "policy", WHOLE_CHUNK, Named("static", metric, Measure(None, "unavailable", str(error)))
        return
    true = truth.frames.rgb_fvhwc_u8
    for view, name in truth.static:
        features = network.features(true[:, view])
        for subject, prediction in subjects.items():
            pictures = [Picture("rgb", frame_idx, view) for frame_idx in range(truth.num_frames)]
            problems = [unfit(truth, picture, prediction.rgb) for picture in pictures]
            fit = [frame_idx for frame_idx, problem in enumerate(problems) if problem is None]
            values: dict[int, float] = {}
            if fit:
                pred = network.features(prediction.rgb[fit, view])
                found = network.distances([layer[fit] for layer in features], pred)
                values = dict(zip(fit, found.tolist(), strict=True))
            for frame_idx, problem in enumerate(problems):
                yield subject, frame_idx, Named(name, metric, problem or Measure(values[frame_idx]))


def _estimated(
    truth: Truth, prediction: Prediction, choice: EstimatorChoice, threads: int
) -> Iterator[tuple[str, int, Named]]:
    """Yield depth and cloud of the policy's RGB, and of the true RGB, after an estimator of depth."""
    true = Prediction(rgb=truth.frames.rgb_fvhwc_u8, depth=None, proprio=truth.frames.proprio_fd)
    for side, shown in (("policy", prediction), ("truth", true)):
        subject = f"{side}+{choice.label}"
        try:
            estimated = with_depth(choice, shown, truth.frames.depth_fvhw_m)
        except EstimatorUnavailable as error:
            yield subject, WHOLE_CHUNK, Named("static", "absrel/gt_mask", Measure(None, "unavailable", str(error)))
            return
        for frame_idx, named in score_prediction(truth, estimated, threads=threads):
            if METRICS[named.metric].family in ("depth", "cloud"):
                yield subject, frame_idx, named


def _depth_8bit(truth: Truth) -> Iterator[tuple[int, Named]]:
    for frame_idx in range(truth.num_frames):
        for view, name in truth.static:
            true_m = truth.frames.depth_fvhw_m[frame_idx, view]
            errors = depth.depth_errors(true_m, depth.quantised_8bit(true_m))
            yield frame_idx, Named(name, "absrel/gt_mask", errors.absrel())
            yield frame_idx, Named(name, "delta1/gt_mask", errors.delta(1))


def _as_prediction(frames: Frames, frame_idxs: list[int], like: Prediction) -> Prediction:
    return Prediction(
        rgb=frames.rgb_fvhwc_u8[frame_idxs],
        depth=frames.depth_fvhw_m[frame_idxs] if like.depth is not None else None,
        proprio=frames.proprio_fd[frame_idxs] if like.proprio is not None else None,
    )


def _score(subject: str, chunk_idx: int, frame_idx: int, named: Named) -> Score:
    value, status, reason = named.measure
    if value is not None and not math.isfinite(value):
        value, status = None, "not_finite"
    return Score(
        subject=subject,
        chunk_idx=chunk_idx,
        frame_idx=frame_idx,
        view=named.view,
        metric=named.metric,
        value=value,
        status=status,
        reason=reason,
    )
