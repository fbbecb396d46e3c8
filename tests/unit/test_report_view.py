"""Contact sheets and recordings: what they show, and what they do without a viewer.

In: synthetic clips. Out: a verdict.
Read next: `evalkit/report/sheet.py`, `evalkit/report/view.py`.
"""

import importlib.util
from dataclasses import replace

import cv2
import numpy as np
import pytest

from evalkit.contracts.errors import BadConfig
from evalkit.report import sheet, view
from evalkit.score import cloud
from evalkit.score.frame import Truth
from evalkit.score.scene import scene_chunk, scene_spec, write_scene_run

SIZE = (24, 32)
HAS_RERUN = importlib.util.find_spec("rerun") is not None


@pytest.fixture
def clip(tmp_path):
    write_scene_run(tmp_path / "run", outcomes=["success"], image_hw_px=SIZE, num_chunks=2, num_frames=3)
    return tmp_path / "run/clips/ball/0000.h5"


def test_a_sheet_has_a_row_for_everything_and_a_column_a_frame(clip, tmp_path):
    picture = cv2.imread(str(sheet.write_sheet(clip, tmp_path / "sheet.png", chunk_idx=1)))
    kinds, views, frames = 6, 3, 3
    assert picture.shape[0] == 20 + views * kinds * (SIZE[0] + sheet.MARGIN_PX)
    assert picture.shape[1] == sheet.LABEL_PX + frames * (SIZE[1] + sheet.MARGIN_PX)
    with pytest.raises(BadConfig, match="has 2 chunks, so no chunk 7"):
        sheet.write_sheet(clip, tmp_path / "sheet.png", chunk_idx=7)


def test_the_true_frame_stands_in_its_place():
    chunk, spec = scene_chunk(num_frames=2, image_hw_px=SIZE), scene_spec(SIZE)
    picture = sheet.sheet(chunk, spec.cameras)
    left = sheet.LABEL_PX + SIZE[1] + sheet.MARGIN_PX
    np.testing.assert_array_equal(picture[20 : 20 + SIZE[0], left : left + SIZE[1]], chunk.true.rgb_fvhwc_u8[1, 0])


def test_a_chunk_without_imagination_or_with_too_few_frames_has_a_sheet_too():
    chunk, spec = scene_chunk(num_frames=2, image_hw_px=SIZE), scene_spec(SIZE)
    assert sheet.sheet(replace(chunk, predicted=None), spec.cameras).shape[0] == 20 + 3 * 2 * (SIZE[0] + 2)
    short = replace(chunk.predicted, **{name: value[:1] for name, value in vars(chunk.predicted).items()})
    assert sheet.sheet(replace(chunk, predicted=short), spec.cameras).ndim == 3


def test_error_maps_are_dark_where_all_is_right_and_bright_where_nothing_is():
    true = np.ones((4, 4), np.float32)
    pred = true.copy()
    pred[0, 0] = np.nan
    colours = sheet.depth_error_map(true, pred).astype(int).sum(axis=-1)
    assert colours[0, 0] > 500
    assert colours[1:].max() < 50
    assert (sheet.depth_error_map(np.zeros((4, 4)), pred) == 90).all()


def test_clouds_of_the_viewer_are_those_that_are_scored():
    chunk = scene_chunk(num_frames=1, image_hw_px=SIZE)
    truth = Truth(chunk.true, chunk.intrinsics_v33_px, scene_spec(SIZE))
    points, colours = view.coloured_cloud(chunk, truth, 0, imagined=False)
    scored = cloud.fuse(chunk.true.depth_fvhw_m[0], chunk.intrinsics_v33_px, chunk.true.T_base_cam_fv44[0])
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(scored, axis=0), atol=1e-12)
    assert colours.shape == points.shape
    assert view.coloured_cloud(replace(chunk, predicted=None), truth, 0, imagined=True) is None


@pytest.mark.skipif(HAS_RERUN, reason="rerun is installed")
def test_without_rerun_the_sheet_is_offered(clip, tmp_path):
    with pytest.raises(view.ViewerUnavailable, match="--sheet"):
        view.write_recording(clip, tmp_path / "clip.rrd")


@pytest.mark.skipif(not HAS_RERUN, reason="rerun is not installed")
def test_a_recording_is_written(clip, tmp_path):
    assert view.write_recording(clip, tmp_path / "clip.rrd").stat().st_size > 1000
