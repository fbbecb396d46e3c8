"""All metrics of one chunk: predictions against the ground truth.

In: a `ClipChunk` and the cameras. Out: `Score`s, one per metric, frame and view (or arm, or all cameras).
Read next: `frame.py`, what is computed for each frame; `pools.py`, what is pooled over frames; `run.py`, which scores
the clips of a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import Prediction
from evalkit.score.checks.chunk import TRUTH, Checked, check_chunk
from evalkit.score.distribution import chunk_totals
from evalkit.score.extra import Base, Extra, Parts, RobotMasks, add_extra, true_agreement
from evalkit.score.frame import FrameScores, GroundTruth, Named, score_frame, unfit
from evalkit.score.metrics import lpips
from evalkit.score.metrics.device import CPU, is_device_failure
from evalkit.score.pools import Pools
from evalkit.score.references import (
    RoundTrip,
    as_prediction,
    codec_round_trip,
    depth_8bit_scores,
    reference_predictions,
)
from evalkit.score.results.checks import check_row
from evalkit.score.results.names import CONTROLS, METRICS, Family
from evalkit.score.results.outcome import WHOLE_CHUNK, ImageKey, Measure, Score
from evalkit.score.results.totals import Totals, add_totals
from evalkit.score.sources.depth_estimator import EstimatorChoice, EstimatorUnavailable, with_depth
from evalkit.store.clips import ClipChunk


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """What is scored in addition to the metrics that every chunk gets.

    Attributes:
        references: Also score reference predictions; see `names.SUBJECTS`.
        lpips_nets: Networks of LPIPS; where the weights of one are missing, one row per chunk says so.
        lpips_weights: Folder of their weights, searched before the torch hub cache.
        depth_estimator: Estimates depth from predicted RGB, scored as a separate subject; None for no estimator.
        extras: Metrics that take long.
        threads: Cores for one chunk; the values do not depend on it.
        device: Where SSIM, nearest neighbours and LPIPS are computed: `cpu`, `cuda` or `cuda:1`; see
            `metrics/device.py`.
    """

    references: bool = True
    lpips_nets: tuple[lpips.Net, ...] = ("alex",)
    lpips_weights: Path | None = None
    depth_estimator: EstimatorChoice | None = None
    extras: tuple[Extra, ...] = ()
    threads: int = 1
    device: str = CPU


LPIPS_BATCH = 8
"""Frames of a view that LPIPS takes at once; bounds its memory."""

Located = tuple[str, int, Named]
"""A measure with its subject and the index of its frame."""


def score_chunk(
    chunk: ClipChunk,
    env: EnvSpec,
    options: ScoreOptions | None = None,
    *,
    predictions: Mapping[str, Prediction] | None = None,
    codec: RoundTrip | str | None = None,
    problems: Mapping[ImageKey, Measure] | None = None,
    first_frame_idx: int = 0,
    pools: Pools | None = None,
    robot: RobotMasks | None = None,
    totals: Totals | None = None,
) -> list[Score]:
    """Return the scores of a chunk; none if there is no prediction.

    Args:
        chunk: Only frames that have a ground truth are scored.
        env: Names and kinds of the cameras, in the order of the views.
        options: What else is scored.
        predictions: The predictions to score, by subject; the chunk's own, as `policy`, if not given.
        codec: Codec of the policy, for the ceiling; or why it is unavailable. None leaves the ceiling out.
        problems: Images, ground truth or predicted, that could not be read.
        first_frame_idx: Horizon of this part's first frame, where a clip is scored in parts. In every part but the
            first, the first frame was scored with the part before and only serves to measure changes.
        pools: Of a clip that is scored in parts; `pooled_scores` gives its pooled metrics after the last part. None
            if the chunk is a whole clip, whose pooled metrics are then among the scores.
        robot: Pixels of the ground truth that show the robot; None if not given.
        totals: Where the sums for `--extra distribution` are added; see `distribution.ClipSets`. None for no sums.
    """
    if predictions is None:
        predictions = {} if chunk.predicted is None else {"policy": chunk.predicted}
    lead = 1 if first_frame_idx else 0
    if not predictions or len(chunk.true.rgb_fvhwc_u8) <= lead:
        return []
    options = options or ScoreOptions()
    judged = {subject: one for subject, one in predictions.items() if subject not in CONTROLS}
    checked = check_chunk(chunk, env, judged, problems=problems, first=lead)
    whole = Pools() if pools is None else pools
    truth = GroundTruth(
        chunk.true,
        chunk.intrinsics_v33_px,
        env,
        problems={**checked.problems(TRUTH), **(problems or {})},
        bad_cameras=checked.bad_cameras(),
        first=lead,
        device=options.device,
        view_hw_px=chunk.view_hw_px,
    )
    like = next(iter(predictions.values()))
    subjects, unavailable = dict(predictions), list[Located]()
    if options.references:
        subjects |= reference_predictions(chunk, like)
        ceiling = None if codec is None else codec_round_trip(truth, like, codec)
        if isinstance(ceiling, Prediction):
            subjects["codec_round_trip"] = ceiling
        elif ceiling is not None:
            unavailable.append(("codec_round_trip", WHOLE_CHUNK, Named("static", "psnr_db/frame_mean", ceiling)))
    whole.base = whole.base or _base(chunk, truth)
    parts = Parts(truth, whole.base, robot)
    located = [*_scored(truth, subjects, options, whole, parts=parts, checked=checked), *unavailable]
    if options.references and chunk.chunk_idx == 0 and not lead:
        located += _against_itself(truth, like, options, whole)
    if options.depth_estimator is not None:
        located += _estimated(truth, like, options.depth_estimator, options, whole)
    for net in options.lpips_nets:
        located += _lpips(truth, subjects, net, options)
    if options.references and like.depth is not None:
        located += [("depth_8bit", frame_idx, named) for frame_idx, named in depth_8bit_scores(truth)]
        located += [("ground_truth", frame_idx, named) for frame_idx, named in true_agreement(truth)]
    if totals is not None and "distribution" in options.extras:
        truths = {subject: truth.with_problems(checked.problems(subject)) for subject in subjects}
        start = None if lead or not len(chunk.start.rgb_fvhwc_u8) else chunk.start.rgb_fvhwc_u8[0]
        add_totals(totals, chunk_totals(truths, subjects, start, options.lpips_weights))
    shift = first_frame_idx - lead
    scores = [check_row(finding, chunk_idx=chunk.chunk_idx) for finding in checked.findings]
    scores += [
        _score(subject, chunk.chunk_idx, frame_idx if frame_idx == WHOLE_CHUNK else frame_idx + shift, named)
        for subject, frame_idx, named in located
    ]
    return scores if pools is not None else scores + pooled_scores(whole, chunk.chunk_idx)


def _against_itself(truth: GroundTruth, like: Prediction, options: ScoreOptions, pools: Pools) -> Iterator[Located]:
    """Yield the scores of the first frame's ground truth against itself; LPIPS of equal images is 0 by definition."""
    first = truth.first_frame()
    yield from _scored(first, {"ground_truth": as_prediction(first.frames, like)}, options, pools)


def _base(chunk: ClipChunk, truth: GroundTruth) -> Base:
    """Return the images that the policy saw; if they are not recorded, the first ones of the clip."""
    if len(chunk.start.rgb_fvhwc_u8):
        return Base(chunk.start.rgb_fvhwc_u8[0], chunk.start.depth_fvhw_m[0], {})
    rgb_problems = {
        key.view: problem._replace(status="bad_truth", reason=f"the first image of the clip: {problem.reason}")
        for key, problem in truth.problems.items()
        if key.modality == "rgb" and key.frame_idx == 0 and problem.status == "bad_truth"
    }
    return Base(chunk.true.rgb_fvhwc_u8[0], chunk.true.depth_fvhw_m[0], rgb_problems)


def pooled_scores(pools: Pools, chunk_idx: int = 0) -> list[Score]:
    """Return the scores that are pooled over the frames of a clip, as those of one of its chunks."""
    return [_score(subject, chunk_idx, WHOLE_CHUNK, named) for subject, named in pools.named()]


def _scored(
    truth: GroundTruth,
    subjects: Mapping[str, Prediction],
    options: ScoreOptions,
    pools: Pools,
    *,
    families: tuple[Family, ...] = tuple(get_args(Family)),
    parts: Parts | None = None,
    checked: Checked | None = None,
) -> Iterator[Located]:
    """Yield the metrics of some families of each frame, without LPIPS, which takes batches; fill the pools.

    All subjects of a frame are scored before the next frame, so that trees and windows of few frames are in memory.
    """

    refused = {subject: checked.problems(subject) for subject in subjects} if checked else {}
    truths = {subject: truth.with_problems(problems) for subject, problems in refused.items() if problems}

    def score(frame_idx: int) -> dict[str, FrameScores]:
        scores = {
            subject: score_frame(truths.get(subject, truth), prediction, frame_idx)
            for subject, prediction in subjects.items()
        }
        if parts is not None:
            for subject, prediction in subjects.items():
                add_extra(scores[subject], parts, truths.get(subject, truth), prediction, frame_idx, options.extras)
            parts.forget(frame_idx)
        for shared in (truth, *truths.values()):
            shared.forget(frame_idx)
        return scores

    if options.threads <= 1:
        frames = [score(frame_idx) for frame_idx in truth.frame_idxs]
    else:
        with ThreadPoolExecutor(options.threads) as pool:
            frames = list(pool.map(score, truth.frame_idxs))
    for subject, prediction in subjects.items():
        scores = [frame[subject] for frame in frames]
        pools.add(subject, truths.get(subject, truth), prediction, scores, families)
        for frame_idx, frame in zip(truth.frame_idxs, scores, strict=True):
            for named in frame.named:
                if METRICS[named.metric].family in families:
                    yield subject, frame_idx, named


def _lpips(
    truth: GroundTruth, subjects: Mapping[str, Prediction], net: lpips.Net, options: ScoreOptions
) -> Iterator[Located]:
    """Yield the LPIPS of every subject; the features of the ground truth are computed once."""
    metric = f"lpips/{net}_v0.1"
    try:
        network = lpips.load(net, options.lpips_weights, truth.device)
    except lpips.LpipsUnavailable as error:
        first = next(iter(subjects))
        yield first, WHOLE_CHUNK, Named("static", metric, Measure(None, "unavailable", str(error)))
        return
    for view, camera in enumerate(truth.env.cameras):
        if camera.kind == "wrist" and "wrist" not in options.extras:
            continue
        name = metric if camera.kind == "static" else f"{metric}_wrist"
        for begin in range(truth.first, truth.num_frames, LPIPS_BATCH):
            frame_idxs = range(begin, min(begin + LPIPS_BATCH, truth.num_frames))
            for subject, frame_idx, measure in _lpips_batch(network, truth, subjects, view, frame_idxs):
                yield subject, frame_idx, Named(camera.name, name, measure)


def _lpips_batch(
    network: lpips.Lpips, truth: GroundTruth, subjects: Mapping[str, Prediction], view: int, frame_idxs: range
) -> Iterator[tuple[str, int, Measure]]:
    rows, columns = truth.own_pixels(view)
    true_u8 = truth.frames.rgb_fvhwc_u8[frame_idxs.start : frame_idxs.stop, view, rows, columns]
    try:
        features = network.features(true_u8)
    except RuntimeError as error:  # the image is too small for a pooling layer
        if is_device_failure(error):
            raise
        small = Measure(None, "too_small", f"{network.net}: {str(error).splitlines()[0]}")
        yield from ((subject, frame_idx, small) for subject in subjects for frame_idx in frame_idxs)
        return
    for subject, prediction in subjects.items():
        problems = [unfit(truth, ImageKey("rgb", frame_idx, view), prediction.rgb) for frame_idx in frame_idxs]
        fit = [position for position, problem in enumerate(problems) if problem is None]
        values: dict[int, float] = {}
        if fit:
            pred_u8 = prediction.rgb[[frame_idxs[position] for position in fit], view][:, rows, columns]
            distances = network.distances_from([layer[fit] for layer in features], true_u8[fit], pred_u8)
            values = dict(zip(fit, distances.tolist(), strict=True))
        for position, (frame_idx, problem) in enumerate(zip(frame_idxs, problems, strict=True)):
            yield subject, frame_idx, problem or network.measure(values[position])


def _estimated(
    truth: GroundTruth, prediction: Prediction, choice: EstimatorChoice, options: ScoreOptions, pools: Pools
) -> Iterator[Located]:
    """Yield depth and cloud metrics of the depth estimated from the policy's RGB, and from the ground-truth RGB."""
    true = Prediction(rgb=truth.frames.rgb_fvhwc_u8, depth=None, proprio=truth.frames.proprio_fd)
    subjects = {f"policy+{choice.label}": prediction, f"truth+{choice.label}": true}
    unreadable = {
        key._replace(modality="depth"): problem for key, problem in truth.problems.items() if key.modality == "rgb"
    }
    blind = [(key.frame_idx, key.view) for key in unreadable]
    try:
        if truth.view_hw_px is not None:
            raise EstimatorUnavailable("it needs views of one size, got " + ", ".join(map(str, truth.view_hw_px)))
        estimated = {
            name: with_depth(choice, source, truth.frames.depth_fvhw_m, blind=blind)
            for name, source in subjects.items()
        }
    except Exception as error:  # an estimator is anyone's code
        reason = str(error) if isinstance(error, EstimatorUnavailable) else f"{type(error).__name__}: {error}"
        missing = Measure(None, "unavailable", f"depth estimator '{choice.name}': {reason}")
        yield next(iter(subjects)), WHOLE_CHUNK, Named("static", "absrel/gt_mask_10m", missing)
        return
    yield from _scored(truth.with_problems(unreadable), estimated, options, pools, families=("depth", "cloud"))


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
