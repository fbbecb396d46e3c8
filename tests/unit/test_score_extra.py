"""Rows of moving pixels, of the robot, of wrist cameras and of optical flow.

In: the synthetic scene, whose ball moves and whose walls do not. Out: a verdict.
Read next: `evalkit/score/extra.py`, `evalkit/score/metrics/motion.py`.
"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evalkit.contracts.types import Prediction
from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.score.extra import EXTRAS, RobotMasks
from evalkit.score.metrics import motion
from evalkit.score.results.names import EXTRA_FAMILIES, METRICS
from evalkit.score.results.outcome import Measure, Score
from evalkit.store.clips import ClipChunk
from tests.doubles.folders import score_folder_clip
from tests.doubles.known import known
from tests.doubles.scene import scene_chunk, scene_spec, write_scene_folders

AGREEMENT = "view_agreement_frac/not_in_front_10m"
SIZE = (96, 128)
SPEC = scene_spec(SIZE)
POLICY_ONLY = ScoreOptions(references=False, lpips_nets=())
WITH_EXTRAS = replace(POLICY_ONLY, extras=EXTRAS)

IMAGES = hnp.arrays(np.uint8, (6, 7, 3))
DEPTHS = hnp.arrays(
    np.float32, (6, 7), elements=st.sampled_from([0.0, 0.5, 1.0, 1.015625, 1.03125, 9.0, 12.0, np.nan, np.inf])
)


@pytest.fixture(scope="module")
def chunk() -> ClipChunk:
    return scene_chunk(num_frames=4, image_hw_px=SIZE)


def _values(scores: list[Score], metric: str, view: str | None = None) -> np.ndarray:
    rows = [score for score in scores if score.metric == metric and view in (None, score.view)]
    return np.array([np.nan if score.value is None else score.value for score in rows])


def _predicted(chunk: ClipChunk, rgb: np.ndarray) -> ClipChunk:
    return replace(chunk, predicted=replace(known(chunk.predicted), rgb=rgb))


@settings(deadline=None)  # the first call compiles
@given(before=IMAGES, after=IMAGES, before_m=DEPTHS, after_m=DEPTHS)
def test_the_moving_mask_equals_its_definition(
    before: np.ndarray, after: np.ndarray, before_m: np.ndarray, after_m: np.ndarray
) -> None:
    colour = np.abs(before.astype(int) - after).max(axis=-1) > 25
    with np.errstate(invalid="ignore"):
        known_depth = (before_m > 1e-3) & (before_m < 10) & (after_m > 1e-3) & (after_m < 10)
        depth = known_depth & (np.abs(after_m - before_m) > 0.02 * before_m)
    assert np.array_equal(motion.moving_mask(before, after, before_m, after_m), colour | depth)


def test_moving_pixels_equal_an_independent_computation(chunk: ClipChunk) -> None:
    scores = score_chunk(chunk, SPEC, POLICY_ONLY)
    pred = known(chunk.predicted)
    for view, name in ((0, "front"), (1, "side")):
        for metric, form in (("psnr_db/moving_pixels", "rgb"), ("absrel/moving_pixels_10m", "depth")):
            expected: list[float] = []
            for frame in range(4):
                before, after = chunk.start.rgb_fvhwc_u8[0, view], chunk.true.rgb_fvhwc_u8[frame, view]
                mask = cv2.absdiff(before, after).max(axis=-1) > 25
                before_m, true_m = chunk.start.depth_fvhw_m[0, view], chunk.true.depth_fvhw_m[frame, view]
                mask |= np.abs(true_m - before_m) > 0.02 * before_m
                if form == "rgb":
                    square = np.mean((after[mask] / 255.0 - pred.rgb[frame, view][mask] / 255.0) ** 2)
                    expected.append(float(-10 * np.log10(square)))
                else:
                    error = np.abs(known(pred.depth)[frame, view][mask] - true_m[mask]) / true_m[mask]
                    expected.append(float(np.mean(error)))
            assert _values(scores, metric, name) == pytest.approx(expected, rel=1e-6)


def test_a_prediction_that_stands_still_loses_on_moving_pixels(chunk: ClipChunk) -> None:
    policy = score_chunk(chunk, SPEC, WITH_EXTRAS)
    still = np.broadcast_to(chunk.start.rgb_fvhwc_u8, known(chunk.predicted).rgb.shape)
    frozen = score_chunk(_predicted(chunk, still), SPEC, WITH_EXTRAS)
    assert _values(policy, "psnr_db/moving_pixels").mean() > _values(frozen, "psnr_db/moving_pixels").mean() + 10
    errors = {
        name: _values(s, "flow_px/dis_moving_pixels").mean() for name, s in (("right", policy), ("still", frozen))
    }
    backwards = scene_chunk(num_frames=4, image_hw_px=SIZE, backwards=True)
    wrong = score_chunk(_predicted(chunk, backwards.true.rgb_fvhwc_u8), SPEC, WITH_EXTRAS)
    errors["wrong"] = _values(wrong, "flow_px/dis_moving_pixels").mean()
    assert 2 * errors["right"] < errors["still"] < errors["wrong"]


def test_flow_of_a_shifted_image_is_the_shift() -> None:
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (96, 128, 3)).astype(np.uint8), (0, 0), 3)
    shifted = np.roll(image, (3, 5), axis=(0, 1))
    inner = np.zeros((96, 128), bool)
    inner[16:-16, 16:-16] = True
    truth = np.broadcast_to(np.array([5.0, 3.0], np.float32), (96, 128, 2))
    assert motion.endpoint_error_px(truth, motion.flow_px(image, shifted), inner) < 0.1
    assert motion.endpoint_error_px(truth, motion.flow_px(image, image), inner) == pytest.approx(34**0.5, abs=1e-3)


def test_the_robot_is_scored_where_its_mask_is(chunk: ClipChunk) -> None:
    shown = np.zeros((4, 3, *SIZE), bool)
    shown[:, 0, :8, :8] = True
    shown[:, 1, 0, :15] = True
    lost = {(3, 0): Measure(None, "bad_truth", "no mask")}
    scores = score_chunk(chunk, SPEC, POLICY_ONLY, robot=RobotMasks(shown, lost))
    front = [score for score in scores if score.metric == "absrel/robot_pixels_10m" and score.view == "front"]
    assert [score.status for score in front] == ["ok", "ok", "ok", "bad_truth"]
    true_m, pred_m = chunk.true.depth_fvhw_m[0, 0, :8, :8], known(known(chunk.predicted).depth)[0, 0, :8, :8]
    assert front[0].value == pytest.approx(np.mean(np.abs(pred_m - true_m) / true_m), rel=1e-6)
    assert {score.status for score in scores if "robot" in score.metric and score.view == "side"} == {"too_few_pixels"}


def test_wrist_rows_do_not_change_the_averages(chunk: ClipChunk) -> None:
    wrong = known(chunk.predicted).rgb.copy()
    wrong[:, 2] = 255 - wrong[:, 2]
    scores, changed = (score_chunk(c, SPEC, WITH_EXTRAS) for c in (chunk, _predicted(chunk, wrong)))
    rows = [[score for score in side if not score.metric.startswith("check/")] for side in (scores, changed)]
    different = {before.metric for before, after in zip(*rows, strict=True) if before.value != after.value}
    assert different == {"psnr_db/frame_mean_wrist", "ssim/gauss11_wrist"}
    assert {score.view for score in scores if score.metric.endswith("_wrist")} == {"wrist"}


def test_a_prediction_without_depth_has_the_colour_rows(chunk: ClipChunk) -> None:
    rgb_only = Prediction(rgb=known(chunk.predicted).rgb, depth=None, proprio=None)
    given = {score.metric for score in score_chunk(replace(chunk, predicted=rgb_only), SPEC, WITH_EXTRAS)}
    extra = {name for name in given if name in METRICS and METRICS[name].family in EXTRA_FAMILIES}
    assert extra == {
        "psnr_db/moving_pixels",
        "flow_px/dis_moving_pixels",
        "psnr_db/frame_mean_wrist",
        "ssim/gauss11_wrist",
    }


def test_views_agree_unless_depth_is_bent(chunk: ClipChunk) -> None:
    scores = score_chunk(chunk, SPEC, ScoreOptions(lpips_nets=()))
    own = _values([score for score in scores if score.subject == "ground_truth"], AGREEMENT)
    assert len(own) == 4
    assert own.min() > 0.98
    shares = []
    for scale in (1.0, 1.1, 1.3):
        depth_m = chunk.true.depth_fvhw_m.copy()
        depth_m[:, 0] *= scale
        pred = Prediction(rgb=chunk.true.rgb_fvhwc_u8, depth=depth_m, proprio=chunk.true.proprio_fd)
        shares.append(_values(score_chunk(replace(chunk, predicted=pred), SPEC, POLICY_ONLY), AGREEMENT).mean())
    assert shares[0] == pytest.approx(own.mean(), abs=1e-3)
    assert max(shares[1:]) < 0.5


def test_a_wrong_predicted_wrist_pose_disagrees(chunk: ClipChunk) -> None:
    states = chunk.true.proprio_fd.copy()
    states[:, 8:11] += 0.2
    pred = Prediction(rgb=chunk.true.rgb_fvhwc_u8, depth=chunk.true.depth_fvhw_m, proprio=states)
    rows = score_chunk(replace(chunk, predicted=pred), SPEC, POLICY_ONLY)
    assert _values(rows, AGREEMENT, "all").max() < 0.9
    without = Prediction(rgb=pred.rgb, depth=pred.depth, proprio=None)
    rows = score_chunk(replace(chunk, predicted=without), SPEC, POLICY_ONLY)
    assert _values(rows, AGREEMENT, "static").min() > 0.98


def test_views_that_share_nothing_have_no_agreement(chunk: ClipChunk) -> None:
    nothing = np.zeros_like(known(known(chunk.predicted).depth))
    pred = replace(known(chunk.predicted), depth=nothing)
    scores = score_chunk(replace(chunk, predicted=pred), SPEC, POLICY_ONLY)
    assert {score.status for score in scores if score.metric == AGREEMENT} == {"no_overlap"}


def test_a_clip_without_start_moves_since_its_first_image(tmp_path: Path, chunk: ClipChunk) -> None:
    write_scene_folders(tmp_path / "pred", tmp_path / "true", chunk)
    (tmp_path / "true/start").rename(tmp_path / "elsewhere")
    rows = [s for s in score_folder_clip(tmp_path / "pred", tmp_path / "true", POLICY_ONLY) if "moving" in s.metric]
    assert {row.status for row in rows if row.frame_idx == 0} == {"too_few_pixels"}
    assert {row.reason for row in rows if row.frame_idx == 0} == {f"fewer than 16 of {96 * 128} pixels move"}
    assert {row.status for row in rows if row.frame_idx == 3} == {"ok"}
