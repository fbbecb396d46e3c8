"""Contact sheets and curves of scored folders: what they show, and where the report links them.

In: folders of frames, result files. Out: a verdict.
Read next: `evalkit/report/figures.py`.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from evalkit.cli.main import app
from evalkit.report.curves import NO_CURVES, horizon_curves, write_curves
from evalkit.report.paired import shared_values
from evalkit.report.sheets import MAX_SHEETS, NUM_SHOWN, ContactSheets
from evalkit.score.results.truth import ScoredChunk
from tests.doubles.scene import scene_chunk, scene_spec, write_scene_folders

SIZE = (24, 32)


def _part(index: int, first_frame_idx: int = 0, num_frames: int = 8) -> ScoredChunk:
    chunk = scene_chunk(seed=index, num_frames=num_frames, image_hw_px=SIZE)
    return ScoredChunk(task="ball", index=index, env=scene_spec(SIZE), chunk=chunk, first_frame_idx=first_frame_idx)


def _read(path: Path) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image)


def test_scored_folders_get_sheets_and_curves(tmp_path: Path) -> None:
    for clip in ("a", "b"):
        chunk = scene_chunk(seed=len(clip), num_frames=6, image_hw_px=SIZE)
        write_scene_folders(tmp_path / "pred" / clip, tmp_path / "true" / clip, chunk)
    scored = tmp_path / "scores"
    args = ["score", "folders", str(tmp_path / "pred"), str(tmp_path / "true"), "--out", str(scored), "--lpips", "none"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    text = (scored / "report.md").read_text()
    assert "![curves.png](curves.png)" in text
    assert "Contact sheets of 2 of 2 clips" in text
    linked = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("- [sheets/")]
    assert len(linked) == 2
    assert all(min(_read(scored / link).shape[:2]) > 4 * SIZE[0] for link in [*linked, "curves.png"])


def test_a_report_elsewhere_links_the_sheets(tmp_path: Path) -> None:
    test_scored_folders_get_sheets_and_curves(tmp_path)
    out = tmp_path / "elsewhere/report"
    result = CliRunner().invoke(app, ["report", str(tmp_path / "scores"), "--out", str(out)])
    assert result.exit_code == 0, result.output
    links = [line for line in (out / "report.md").read_text().splitlines() if "sheets/" in line and "](" in line]
    assert len(links) == 2
    assert all((out / line.split("](")[1].rstrip(")")).is_file() for line in links)
    assert (out / "curves_0.png").is_file()


def test_sheets_show_the_whole_clip(tmp_path: Path) -> None:
    with ContactSheets(tmp_path / "all") as sheets:
        for first in (0, 8, 15, 22):
            sheets(_part(0, first))
    with ContactSheets(tmp_path / "start") as start:
        start(_part(0))
    assert (sheets.num_written, sheets.problem) == (1, "")
    whole, beginning = (_read(next((tmp_path / name).glob("*.png"))) for name in ("all", "start"))
    assert whole.shape == beginning.shape  # as many horizons
    assert (whole != beginning).any()


def test_a_recorded_episode_shows_its_first_chunk(tmp_path: Path) -> None:
    with ContactSheets(tmp_path / "many") as many:
        for _ in range(3):
            many(_part(0))
    with ContactSheets(tmp_path / "one") as one:
        one(_part(0))
    assert many.num_written == one.num_written == 1
    assert np.array_equal(_read(tmp_path / "many/ball_0000.png"), _read(tmp_path / "one/ball_0000.png"))


def test_sheets_are_bounded_and_old_ones_go(tmp_path: Path) -> None:
    (tmp_path / "ball_9999.png").write_bytes(b"")
    with ContactSheets(tmp_path) as sheets:
        for index in range(MAX_SHEETS + 3):
            sheets(_part(index, num_frames=1))
    assert len(list(tmp_path.glob("*.png"))) == MAX_SHEETS
    assert not (tmp_path / "ball_9999.png").exists()
    assert NUM_SHOWN > 1


def test_a_sheet_that_cannot_be_written_costs_no_score(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with ContactSheets(tmp_path / "file" / "sheets") as sheets:
        sheets(_part(0))
        sheets(_part(1))
    assert sheets.problem.startswith("A contact sheet is missing: ")


def _values(slope: float, num_frames: int) -> pd.DataFrame:
    rows = [
        ("ssim/gauss11", task, 0, 0, frame, "front", 0.9 - slope * frame + offset)
        for task, offset in (("a", 0.0), ("b", 0.05))
        for frame in range(num_frames)
    ]
    return pd.DataFrame(rows, columns=["metric", "task", "index", "chunk_idx", "frame_idx", "view", "value"])


def test_curves_are_means_on_shared_frames() -> None:
    horizons, ours, theirs = horizon_curves(shared_values(_values(0.01, 12), _values(0.02, 4)).dropna())
    assert list(horizons) == [1, 2, 3, 4]
    assert ours == pytest.approx([0.925, 0.915, 0.905, 0.895])
    assert theirs == pytest.approx([0.925, 0.905, 0.885, 0.865])


def test_without_several_horizons_there_are_no_curves(tmp_path: Path) -> None:
    one = _values(0.0, 1)
    assert "no metric has values of several horizons" in write_curves(one, one, ("a", "b"), tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


def test_missing_matplotlib_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    several = _values(0.0, 3)
    assert write_curves(several, several, ("a", "b"), tmp_path / "c.png") == NO_CURVES
