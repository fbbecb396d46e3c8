"""Checks in the result file: rows, sentences, caveats of a report, and refused metrics.

In: clips of the closed-form scene with one thing wrong. Out: a verdict.
Read next: `evalkit/score/results/checks.py`, `evalkit/score/checks/chunk.py`.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from evalkit.cli.main import app
from evalkit.score.checks.colours import MISTAKES
from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.score.results.checks import CHECK_COLUMNS, Finding, check_row, check_sentences, split_checks
from evalkit.score.results.outcome import STATUSES, Score
from evalkit.score.results.table import read_scores
from tests.doubles.scene import scene_chunk, scene_spec, write_scene_folders

SIZE = (48, 64)
NO_LPIPS = ScoreOptions(lpips_nets=())


def _table(*clips: list[Score]) -> pd.DataFrame:
    rows = [
        {"task": f"clip{number}", "index": 0, **_fields(score)} for number, clip in enumerate(clips) for score in clip
    ]
    return pd.DataFrame(rows)


def _fields(score: Score) -> dict[str, Any]:
    return {name: getattr(score, name) for name in ("subject", "metric", "view", "value", "status", "reason")}


def _finding(**changes: Any) -> Finding:
    return Finding(**{"check": "poses", "subject": "ground_truth", "view": "front", "reason": "It is odd.", **changes})


def test_a_finding_is_a_row_with_a_known_status() -> None:
    warning, refused = check_row(_finding(value=3.0)), check_row(_finding(refuses=("cloud",)), chunk_idx=2)
    assert (warning.metric, warning.status, warning.value, warning.reason) == (
        "check/poses",
        "warning",
        3.0,
        "It is odd.",
    )
    assert (refused.status, refused.chunk_idx) == ("refused", 2)
    assert {warning.status, refused.status} <= set(STATUSES)


def test_sentences_group_by_check_refusals_first() -> None:
    metric = check_row(_finding())
    other = [check_row(_finding(check="depth_unit", view="", reason="Odd too.", refuses=("depth",)))]
    sentences = check_sentences(_table([metric, metric], [metric], other))
    assert sentences == [
        "check/depth_unit: refused in 1 of 3 clips, for example clip2/0000: Odd too.",
        "check/poses: warning in 2 of 3 clips, for example clip0/0000, front: It is odd.",
    ]


@pytest.mark.parametrize("size", [SIZE, (64, 48), (120, 160)])
def test_a_correct_chunk_has_no_finding(size: tuple[int, int]) -> None:
    for seed in range(3):
        scores = score_chunk(scene_chunk(seed=seed, image_hw_px=size, num_frames=2), scene_spec(size), NO_LPIPS)
        assert not len(split_checks(_table(scores))[1])


def _change_cameras(true: Path, view: int, **changes: Any) -> None:
    path = true / "cameras.json"
    data = json.loads(path.read_text())
    data["views"][view].update(changes)
    path.write_text(json.dumps(data))


def test_a_refusal_reaches_terminal_report_and_file(tmp_path: Path) -> None:
    pred, true = tmp_path / "pred", tmp_path / "true"
    chunk = scene_chunk(num_frames=2, image_hw_px=SIZE)
    write_scene_folders(pred, true, chunk)
    _change_cameras(true, 0, intrinsics=np.transpose(chunk.intrinsics_v33_px[0]).tolist())
    done = CliRunner().invoke(
        app, ["score", "folders", str(pred), str(true), "--out", str(tmp_path / "out"), "--lpips", "none"]
    )
    assert done.exit_code == 0
    sentence = "check/intrinsics: refused in 1 of 1 clip, for example true/0000, front: the intrinsics of front"
    assert sentence in " ".join(done.stdout.split())
    assert sentence in (tmp_path / "out/report.md").read_text()
    scores = read_scores(tmp_path / "out/scores.parquet")
    cloud = scores[scores["metric"] == "chamfer_m/l1_half_10m"]
    assert set(cloud["status"]) == {"bad_camera"}
    assert cloud["value"].isna().all()
    assert cloud["reason"].str.contains("they look transposed").all()
    assert scores[scores["metric"] == "absrel/gt_mask_10m"]["value"].notna().all()
    assert len(check_sentences(scores[list(CHECK_COLUMNS)])) == 1


def test_states_in_millimetres_are_one_finding_in_a_report(tmp_path: Path) -> None:
    pred, true = tmp_path / "pred", tmp_path / "true"
    write_scene_folders(pred, true, scene_chunk(num_frames=2, image_hw_px=SIZE))
    states = np.load(pred / "states.npz")["proprio"]
    states[:, 8:11] *= 1000
    np.savez(pred / "states.npz", proprio=states)
    done = CliRunner().invoke(
        app, ["score", "folders", str(pred), str(true), "--out", str(tmp_path / "out"), "--lpips", "none"]
    )
    assert done.exit_code == 0, done.stdout
    scores = read_scores(tmp_path / "out/scores.parquet")
    (found,) = scores[scores["metric"] == "check/state_unit"].itertuples()
    assert (found.subject, found.view) == ("policy", "right")
    assert "look like millimetres" in (tmp_path / "out/report.md").read_text()


def test_every_check_is_documented() -> None:
    root = Path(__file__).resolve().parents[2]
    source = "".join(path.read_text() for path in (root / "evalkit/score").rglob("*.py"))
    used = set(re.findall(r'(?:check=|Oddity\(|_bad_cameras\()\s*"([a-z]+_?[a-z]*)"', source))
    used |= {name for name, _ in MISTAKES.values()}
    page = (root / "docs/scoring.md").read_text().split("## Checks")[1].split("\n## ")[0]
    assert {"pose", "camera_agreement", "depth_unit", "rgb_flip", "frame_order", "state_layout", "views"} <= used
    assert {name for name in used if f"`{name}`" not in page} == set()
