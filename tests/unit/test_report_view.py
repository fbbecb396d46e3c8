"""Contact sheets and recordings: what they show, and what they do without a viewer.

In: synthetic clips. Out: a verdict.
Read next: `evalkit/report/contact_sheet.py`, `evalkit/report/rerun_export.py`.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from evalkit.cli.main import app
from evalkit.contracts.errors import BadConfig, RunFolderError
from evalkit.report import contact_sheet as sheet
from evalkit.report import rerun_export as view
from evalkit.score.frame import GroundTruth
from evalkit.score.metrics import cloud
from tests.doubles.known import known
from tests.doubles.scene import scene_chunk, scene_spec, write_scene_run

SIZE = (24, 32)
HAS_RERUN = importlib.util.find_spec("rerun") is not None


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_scene_run(tmp_path / "run", outcomes=["success"], image_hw_px=SIZE, num_chunks=2, num_frames=3)
    return tmp_path / "run/clips/ball/0000.h5"


def _tiles(grid: Any) -> Any:
    return [tile for line in grid.tiles for tile in line]


def test_every_layout_shows_everything(clip: Path, tmp_path: Path) -> None:
    image = cv2.imread(str(sheet.write_contact_sheet(clip, tmp_path / "sheet.png", chunk_idx=1)))
    assert image.shape[1] > image.shape[0]
    kinds, views, frames = 6, 3, 3
    for grid in sheet.grids(*sheet.read_chunk(clip, 1)):
        assert len(grid.rows) * len(grid.columns) == len(_tiles(grid)) == kinds * views * frames
        assert all(tile is not None for tile in _tiles(grid))
    with pytest.raises(BadConfig, match="has 2 chunks, so no chunk 7"):
        sheet.write_contact_sheet(clip, tmp_path / "sheet.png", chunk_idx=7)


def test_every_tile_stands_under_its_labels() -> None:
    chunk, spec = scene_chunk(num_frames=2, image_hw_px=SIZE), scene_spec(SIZE)
    by_view_and_frame, by_kind, by_view_and_kind = sheet.grids(chunk, spec.cameras)
    true = chunk.true.rgb_fvhwc_u8
    row = by_view_and_frame.rows.index("side frame 2")
    np.testing.assert_array_equal(
        known(by_view_and_frame.tiles[row][by_view_and_frame.columns.index(["ground truth"])]), true[1, 1]
    )
    column = by_kind.columns.index(["side", "frame 2"])
    np.testing.assert_array_equal(known(by_kind.tiles[by_kind.rows.index("ground truth")][column]), true[1, 1])
    row = by_view_and_kind.rows.index("side prediction")
    tile = by_view_and_kind.tiles[row][by_view_and_kind.columns.index(["frame 2"])]
    np.testing.assert_array_equal(known(tile), known(chunk.predicted).rgb[1, 1])


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4])
def test_a_sheet_of_few_frames_is_wider_than_tall(num_frames: int) -> None:
    chunk, spec = scene_chunk(num_frames=num_frames, image_hw_px=(128, 128)), scene_spec((128, 128))
    height, width, _ = sheet.contact_sheet(chunk, spec.cameras).shape
    assert 1.0 < width / height < 2.5


def test_no_label_is_cut_off() -> None:
    """A row's label ends before its first tile: between them the image is white."""
    chunk, cameras = scene_chunk(num_frames=2, image_hw_px=(128, 128)), scene_spec((128, 128)).cameras
    long = tuple(replace(camera, name=f"{camera.name}_robot0_eye_in_hand") for camera in cameras)
    for grid in sheet.grids(chunk, long):
        empty = replace(grid, tiles=[[np.full((128, 128, 3), 255, np.uint8)] * len(line) for line in grid.tiles])
        bare = replace(empty, rows=[""] * len(grid.rows), columns=[[""] * len(column) for column in grid.columns])
        image, blank = (sheet.grid_image(layout, (128, 128)) for layout in (empty, bare))
        label_px = image.shape[1] - len(grid.columns) * (
            max([128, *(sheet.text_px(line) for column in grid.columns for line in column)]) + sheet.MARGIN_PX
        )
        assert label_px >= max(sheet.text_px(row) for row in grid.rows)
        assert (image[:, label_px - sheet.PAD_PX : label_px] == 255).all()
        assert (image[:, -sheet.PAD_PX :] == 255).all()
        assert (blank == 255).all()


def test_a_sheet_needs_no_prediction_and_few_frames() -> None:
    chunk, spec = scene_chunk(num_frames=2, image_hw_px=SIZE), scene_spec(SIZE)
    (grid, *_) = sheet.grids(replace(chunk, predicted=None), spec.cameras)
    assert grid.columns == [["ground truth"], ["true depth"]]
    predicted = known(chunk.predicted)
    short = replace(predicted, **{name: value[:1] for name, value in vars(predicted).items()})
    (grid, *_) = sheet.grids(replace(chunk, predicted=short), spec.cameras)
    assert sum(tile is None for tile in _tiles(grid)) == 3 * 4
    none = replace(chunk.true, **{name: value[:0] for name, value in vars(chunk.true).items()})
    for changed in ({"predicted": None}, {"predicted": short}, {"true": none}):
        assert sheet.contact_sheet(replace(chunk, **changed), spec.cameras).ndim == 3


def test_error_maps_are_dark_at_0_and_bright_at_large_errors() -> None:
    true = np.ones((4, 4), np.float32)
    pred = true.copy()
    pred[0, 0] = np.nan
    colours = sheet.depth_error_map(true, pred).astype(int).sum(axis=-1)
    assert colours[0, 0] > 500
    assert colours[1:].max() < 50
    assert (sheet.depth_error_map(np.zeros((4, 4)), pred) == 90).all()


def test_clouds_of_the_viewer_are_those_that_are_scored() -> None:
    chunk = scene_chunk(num_frames=1, image_hw_px=SIZE)
    truth = GroundTruth(chunk.true, chunk.intrinsics_v33_px, scene_spec(SIZE))
    points, colours = known(view.coloured_cloud(chunk, truth, 0, predicted=False))
    scored = cloud.fuse(chunk.true.depth_fvhw_m[0], chunk.intrinsics_v33_px, chunk.true.T_base_cam_fv44[0])
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(scored, axis=0), atol=1e-12)
    assert colours.shape == points.shape
    assert view.coloured_cloud(replace(chunk, predicted=None), truth, 0, predicted=True) is None


@pytest.mark.skipif(HAS_RERUN, reason="rerun is installed")
def test_without_rerun_the_sheet_is_offered(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(view.ViewerUnavailable, match="--sheet"):
        view.write_rerun(clip, tmp_path / "clip.rrd")


@pytest.mark.skipif(not HAS_RERUN, reason="rerun is not installed")
def test_a_recording_is_written(clip: Path, tmp_path: Path) -> None:
    assert view.write_rerun(clip, tmp_path / "clip.rrd").stat().st_size > 1000


def test_a_sheet_that_cannot_be_written_costs_no_recording(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = ["view", str(clip), "--sheet", str(tmp_path / "file" / "sheet.png")]
    alone = CliRunner().invoke(app, command)
    assert isinstance(alone.exception, RunFolderError)
    both = CliRunner().invoke(app, [*command, "--rrd", str(tmp_path / "clip.rrd")])
    assert "no contact sheet: Cannot write" in both.output
    assert both.exit_code == (0 if HAS_RERUN else 1)
    assert (tmp_path / "clip.rrd").exists() is HAS_RERUN
