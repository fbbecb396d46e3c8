"""Exit codes of `evalkit score`: 0 with scores, 2 without any, 3 with `--strict` where a check found something.

In: folders and runs of the closed-form scene. Out: a verdict.
Read next: `evalkit/cli/score.py`.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from evalkit.cli.main import app
from evalkit.contracts.errors import BadConfig
from evalkit.score.results.table import read_scores
from tests.doubles.known import known
from tests.doubles.scene import scene_chunk, write_scene_folders, write_scene_run

SIZE = (48, 64)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    pred, true = tmp_path / "pred", tmp_path / "true"
    write_scene_folders(pred, true, scene_chunk(num_frames=2, image_hw_px=SIZE))
    return pred, true


def _score(form: str, *arguments: Any) -> Any:
    flags = ["--lpips", "none", "--no-references", "--workers", "1"]
    return CliRunner().invoke(app, ["score", form, *map(str, arguments), *flags])


def _with_ten_fold_depth(pred: Path) -> None:
    depth_m = known(known(scene_chunk(num_frames=2, image_hw_px=SIZE).predicted).depth)
    shutil.rmtree(pred / "depth")
    (pred / "depth").mkdir()
    for view, name in enumerate(("front", "side", "wrist")):
        np.savez(pred / "depth" / f"{name}.npz", depth_m=depth_m[:, view] * np.float32(10))


def test_strict_is_quiet_without_findings(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert _score("folders", *folders, "--out", tmp_path / "out", "--strict").exit_code == 0


def test_strict_exits_with_3_where_a_check_warns(folders: tuple[Path, Path], tmp_path: Path) -> None:
    _with_ten_fold_depth(folders[0])
    assert _score("folders", *folders, "--out", tmp_path / "out").exit_code == 0
    done = _score("folders", *folders, "--out", tmp_path / "out", "--strict")
    assert done.exit_code == 3
    assert "check/depth_unit: warning in 1 of 1 clip" in " ".join(done.stdout.split())


def test_strict_exits_with_3_where_a_clip_is_lost(tmp_path: Path) -> None:
    write_scene_run(tmp_path / "run", outcomes=["success", "failure"], image_hw_px=SIZE)
    assert _score("run", tmp_path / "run", "--strict").exit_code == 0
    (tmp_path / "run/clips/ball/0001.h5").unlink()
    assert _score("run", tmp_path / "run").exit_code == 0
    assert _score("run", tmp_path / "run", "--strict").exit_code == 3


def test_nothing_scored_in_folders_is_an_error(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for path in folders[0].rglob("rgb/*/*.png"):
        path.write_bytes(b"no image")
    shutil.rmtree(folders[0] / "depth")
    (folders[0] / "states.npz").unlink()
    done = _score("folders", *folders, "--out", tmp_path / "out")
    assert isinstance(done.exception, BadConfig)
    assert str(done.exception).startswith("Nothing could be scored: ")
    assert read_scores(tmp_path / "out/scores.parquet")["value"].isna().all()


def test_nothing_scored_in_a_run_is_an_error(tmp_path: Path) -> None:
    write_scene_run(tmp_path / "run", outcomes=["success"], image_hw_px=SIZE)
    (tmp_path / "run/clips/ball/0000.h5").write_bytes(b"no clip")
    done = _score("run", tmp_path / "run")
    assert isinstance(done.exception, BadConfig)
    assert "Nothing could be scored: Cannot read the clip" in str(done.exception)


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_policy_without_frames_is_no_error(tmp_path: Path, dry: list[str]) -> None:
    write_scene_run(tmp_path / "run", outcomes=["success"], image_hw_px=SIZE)
    done = _score("dataset", tmp_path / "run", "--policy", "hold", "--out", tmp_path / "out", *dry)
    assert (done.exit_code, done.exception) == (0, None)
    assert done.stdout.startswith("There is nothing to score: policy 'hold' predicts no frames.")
    assert not (tmp_path / "out").exists()
