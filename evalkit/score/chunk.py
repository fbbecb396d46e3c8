"""All metrics of one chunk: a predicted future beside the true one.

In: a `ClipChunk` and the cameras. Out: `Score`s, one a metric, frame and view (or arm, or all cameras).
Read next: `frame.py`, what is computed for each frame; `run.py`, which does this for the clips of a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import Prediction
from evalkit.score.metrics import device as on_device
from evalkit.score.frame import FrameScores, Named, Picture, Truth, names_of, score_frame, unfit
from evalkit.score.metrics import depth, image, lpips
from evalkit.score.results.names import METRICS, Family
from evalkit.score.results.outcome import Measure
from evalkit.score.sources.depth_estimator import EstimatorChoice, EstimatorUnavailable, with_depth
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
        device: Where SSIM, nearest neighbours and LPIPS are computed: `cpu`, `cuda` or `cuda:1`; see `device.py`.
    """

    references: bool = True
    lpips_nets: tuple[lpips.Net, ...] = ("alex",)
    lpips_weights: Path | None = None
    depth_estimator: EstimatorChoice | None = None
    threads: int = 1
    device: str = on_device.CPU


RoundTrip = Callable[[Prediction], Prediction]
"""A policy's codec, there and back."""

LPIPS_BATCH = 8
"""Frames of a view that LPIPS takes at once; bounds its memory."""

Found = tuple[str, int, Named]
"""A measure with its subject and the index of its frame."""


def score_chunk(
    chunk: ClipChunk,
    env: EnvSpec,
    options: ScoreOptions | None = None,
    *,
    imagined: Mapping[str, Prediction] | None = None,
    codec: RoundTrip | str | None = None,
    problems: Mapping[Picture, Measure] | None = None,
    first_frame_idx: int = 0,
) -> list[Score]:
    """Return the scores of a chunk; none for a policy that imagined nothing.

    Args:
        chunk: Only frames that have a truth are scored.
        env: Names and kinds of the cameras, in the order of the views.
        options: What else is scored.
        imagined: The futures to score by subject; the chunk's own, as `policy`, if not given.
        codec: Of the policy, whose ceiling is scored among the references; or why there is none. None leaves it out.
        problems: Pictures, true or predicted, that could not be read.
        first_frame_idx: Where a clip is scored part by part, the horizon of this one's first frame; but for the first
            part, the frame before it leads in.
    """
    if imagined is None:
        imagined = {} if chunk.predicted is None else {"policy": chunk.predicted}
    lead = 1 if first_frame_idx else 0
    if not imagined or len(chunk.true.rgb_fvhwc_u8) <= lead:
        return []
    options = options or ScoreOptions()
    truth = Truth(chunk.true, chunk.intrinsics_v33_px, env, problems=problems, first=lead, device=options.device)
    like = next(iter(imagined.values()))
    subjects, without = dict(imagined), list[Found]()
    if options.references:
        subjects |= reference_predictions(chunk, like)
        ceiling = None if codec is None else _ceiling(truth, like, codec)
        if isinstance(ceiling, Prediction):
            subjects["codec_round_trip"] = ceiling
        elif ceiling is not None:
            without.append(("codec_round_trip", WHOLE_CHUNK, Named("static", "psnr_db/frame_mean", ceiling)))
    found = [*_scored(truth, subjects, options.threads), *without]
    if options.depth_estimator is not None:
        found += _estimated(truth, like, options.depth_estimator, options.threads)
    for net in options.lpips_nets:
        found += _lpips(truth, subjects, net, options.lpips_weights)
    if options.references and like.depth is not None:
        found += _depth_8bit(truth)
    shift = first_frame_idx - lead
    return [
        _score(subject, chunk.chunk_idx, frame_idx if frame_idx == WHOLE_CHUNK else frame_idx + shift, named)
        for subject, frame_idx, named in found
    ]


def reference_predictions(chunk: ClipChunk, like: Prediction) -> dict[str, Prediction]:
    """Return the futures that frame the scale: the seen frame, if any, repeated; in the first chunk the truth itself.

    They hold what the policy predicts: without predicted depth or states, theirs are left out too.
    """
    references = {}
    if len(chunk.start.rgb_fvhwc_u8):
        references["repeat_last_frame"] = _as_prediction(_repeated(chunk.start, len(chunk.true.rgb_fvhwc_u8)), like)
    if chunk.chunk_idx == 0:
        references["ground_truth"] = _as_prediction(chunk.true, like)
    return references


def _ceiling(truth: Truth, like: Prediction, codec: RoundTrip | str) -> Prediction | Measure:
    """Return the truth after a codec, there and back, or why it cannot be had."""
    if isinstance(codec, str):
        return Measure(None, "unavailable", codec)
    try:
        return codec(_as_prediction(truth.frames, like))
    except Exception as error:  # a policy's codec is anyone's code
        return Measure(None, "unavailable", f"the codec failed: {type(error).__name__}: {error}")


def _scored(truth: Truth, subjects: Mapping[str, Prediction], threads: int) -> Iterator[Found]:
    """Yield every metric of some predictions; LPIPS, which takes batches, is apart.

    All subjects of a frame are scored before the next one, so that trees and windows of few frames are in memory.
    """

    def score(frame_idx: int) -> dict[str, FrameScores]:
        found = {subject: score_frame(truth, prediction, frame_idx) for subject, prediction in subjects.items()}
        truth.forget(frame_idx)
        return found

    if threads <= 1:
        frames = [score(frame_idx) for frame_idx in truth.frame_idxs]
    else:
        with ThreadPoolExecutor(threads) as pool:
            frames = list(pool.map(score, truth.frame_idxs))
    for subject, prediction in subjects.items():
        for frame_idx, named in _pooled(truth, prediction, [frame[subject] for frame in frames]):
            yield subject, frame_idx, named


def _pooled(truth: Truth, prediction: Prediction, frames: Sequence[FrameScores]) -> Iterator[tuple[int, Named]]:
    """Yield what the frames of one prediction gave, then what is pooled over them."""
    for frame_idx, frame in zip(truth.frame_idxs, frames, strict=True):
        for named in frame.named:
            yield frame_idx, named
    squares = [square for frame in frames for square in frame.squares]
    if squares:
        yield WHOLE_CHUNK, Named("static", "psnr_db/clip_pooled", image.psnr_db(float(np.mean(squares))))
    else:
        yield from _without_pool(frames, "image")
    if not any(frame.num_depth_views for frame in frames):
        yield from _without_pool(frames, "depth")
    else:
        pooled = depth.NO_ERRORS
        for frame in frames:
            pooled = pooled.plus(frame.errors)
        yield WHOLE_CHUNK, Named("static", "absrel/gt_mask_clip_pooled", pooled.absrel())
        yield WHOLE_CHUNK, Named("static", "delta1/gt_mask_clip_pooled", pooled.delta(1))
        yield WHOLE_CHUNK, Named("static", "absrel/gt_mask_affine_disparity", _affine_absrel(truth, prediction))


def _without_pool(frames: Sequence[FrameScores], family: Family) -> Iterator[tuple[int, Named]]:
    """Yield why there is nothing to pool: what stands in the way of the first frame, if a family was asked for."""
    found = (named.measure for frame in frames for named in frame.named if METRICS[named.metric].family == family)
    for measure in islice(found, 1):
        for metric in names_of(family, "chunk"):
            yield WHOLE_CHUNK, Named("static", metric, measure)


def _affine_absrel(truth: Truth, prediction: Prediction) -> Measure:
    assert prediction.depth is not None
    views = [view for view, _ in truth.static]
    frames = slice(truth.first, min(truth.num_frames, len(prediction.depth)))
    true_m, pred_m = truth.frames.depth_fvhw_m[frames, views], prediction.depth[frames, views]
    fit = depth.fit_disparity(true_m, pred_m)
    if fit is None:
        return Measure(None, "degenerate_alignment")
    return depth.depth_errors(true_m, fit.apply(pred_m)).absrel()


def _lpips(truth: Truth, subjects: Mapping[str, Prediction], net: lpips.Net, weights: Path | None) -> Iterator[Found]:
    """Yield the LPIPS of every subject; the features of the true frames are computed once."""
    metric = f"lpips/{net}_v0.1"
    try:
        network = lpips.load(net, weights, truth.device)
    except lpips.LpipsUnavailable as error:
        first = next(iter(subjects))
        yield first, WHOLE_CHUNK, Named("static", metric, Measure(None, "unavailable", str(error)))
        return
    for view, name in truth.static:
        for begin in range(truth.first, truth.num_frames, LPIPS_BATCH):
            frame_idxs = range(begin, min(begin + LPIPS_BATCH, truth.num_frames))
            for subject, frame_idx, measure in _lpips_batch(network, truth, subjects, view, frame_idxs):
                yield subject, frame_idx, Named(name, metric, measure)


def _lpips_batch(
    network: lpips.Lpips, truth: Truth, subjects: Mapping[str, Prediction], view: int, frame_idxs: range
) -> Iterator[tuple[str, int, Measure]]:
    try:
        features = network.features(truth.frames.rgb_fvhwc_u8[frame_idxs.start : frame_idxs.stop, view])
    except RuntimeError as error:  # a layer that finds nothing left to pool
        if on_device.is_device_failure(error):
            raise
        small = Measure(None, "too_small", f"{network.net}: {str(error).splitlines()[0]}")
        yield from ((subject, frame_idx, small) for subject in subjects for frame_idx in frame_idxs)
        return
    for subject, prediction in subjects.items():
        problems = [unfit(truth, Picture("rgb", frame_idx, view), prediction.rgb) for frame_idx in frame_idxs]
        fit = [position for position, problem in enumerate(problems) if problem is None]
        values: dict[int, float] = {}
        if fit:
            pred = network.features(prediction.rgb[[frame_idxs[position] for position in fit], view])
            found = network.distances([layer[fit] for layer in features], pred)
            values = dict(zip(fit, found.tolist(), strict=True))
        for position, (frame_idx, problem) in enumerate(zip(frame_idxs, problems, strict=True)):
            yield subject, frame_idx, problem or Measure(values[position])


def _estimated(truth: Truth, prediction: Prediction, choice: EstimatorChoice, threads: int) -> Iterator[Found]:
    """Yield depth and cloud of the policy's RGB, and of the true RGB, after an estimator of depth."""
    true = Prediction(rgb=truth.frames.rgb_fvhwc_u8, depth=None, proprio=truth.frames.proprio_fd)
    subjects = {f"policy+{choice.label}": prediction, f"truth+{choice.label}": true}
    unreadable = {shown._replace(what="depth"): why for shown, why in truth.problems.items() if shown.what == "rgb"}
    blind = [(shown.frame_idx, shown.view) for shown in unreadable]
    try:
        estimated = {
            name: with_depth(choice, shown, truth.frames.depth_fvhw_m, blind=blind) for name, shown in subjects.items()
        }
    except Exception as error:  # an estimator is anyone's code
        reason = str(error) if isinstance(error, EstimatorUnavailable) else f"{type(error).__name__}: {error}"
        missing = Measure(None, "unavailable", f"depth estimator '{choice.name}': {reason}")
        yield next(iter(subjects)), WHOLE_CHUNK, Named("static", "absrel/gt_mask", missing)
        return
    for subject, frame_idx, named in _scored(truth.with_problems(unreadable), estimated, threads):
        if METRICS[named.metric].family in ("depth", "cloud"):
            yield subject, frame_idx, named


def _depth_8bit(truth: Truth) -> Iterator[Found]:
    for frame_idx in truth.frame_idxs:
        for view, name in truth.static:
            true_m = truth.frames.depth_fvhw_m[frame_idx, view]
            errors = depth.depth_errors(true_m, depth.quantised_8bit(true_m))
            yield "depth_8bit", frame_idx, Named(name, "absrel/gt_mask", errors.absrel())
            yield "depth_8bit", frame_idx, Named(name, "delta1/gt_mask", errors.delta(1))


def _repeated(start: Frames, num_frames: int) -> Frames:
    """Return a frame as often as asked for, in the memory of one."""
    return Frames(
        **{name: np.broadcast_to(part[:1], (num_frames, *part.shape[1:])) for name, part in vars(start).items()}
    )


def _as_prediction(frames: Frames, like: Prediction) -> Prediction:
    return Prediction(
        rgb=frames.rgb_fvhwc_u8,
        depth=frames.depth_fvhw_m if like.depth is not None else None,
        proprio=frames.proprio_fd if like.proprio is not None else None,
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
