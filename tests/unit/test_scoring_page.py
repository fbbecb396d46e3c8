"""The commands at the top of docs/scoring.md score the layouts that the page names.

In: docs/scoring.md; clips written as it says. Out: a verdict.
Read next: `test_score_folder_values.py`, which checks the values.
"""

import json
import re
import shlex
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from evalkit.cli.score import app
from evalkit.score.results.table import read_scores
from tests.doubles.folders import GL_FROM_CV, SIZE, images, noisy, room, write_depth_clips, write_video

PAGE = Path(__file__).resolve().parents[2] / "docs/scoring.md"


def write_videos() -> None:
    write_video(Path("pred/clip.mp4"), noisy(images(0), 1), "libx264rgb", "rgb24")
    Path("gt/clip").mkdir(parents=True)
    for frame, image in enumerate(images(0)):
        iio.imwrite(f"gt/clip/{frame:04d}.png", image)


def write_episodes() -> None:
    for side, frames in (("gt", images(0)), ("pred", noisy(images(0), 1))):
        folder = Path(side) / "open_drawer/episode_0"
        folder.mkdir(parents=True)
        for frame, image in enumerate(frames, start=1):
            Image.fromarray(image).save(folder / f"frame_{frame:04d}.jpg")


def write_depth() -> None:
    cameras = room(SIZE)
    write_depth_clips(Path(), cameras, per_m=5000.0)
    views = [
        {"name": name, "kind": "static", "intrinsics": K.tolist(), "T_base_cam": (T @ GL_FROM_CV).tolist()}
        for name, (K, T, _, _) in cameras.items()
    ]
    Path("gt/clip/cameras.json").write_text(json.dumps({"views": views}))


LAYOUTS = {
    0: (write_videos, "ssim/gauss11"),
    1: (write_episodes, "ssim/gauss11"),
    2: (write_depth, "chamfer_m/l1_half_10m"),
}


def commands() -> list[list[str]]:
    opening = PAGE.read_text().split("\n## ")[0]
    return [shlex.split(block) for block in re.findall(r"```bash\n(.*?)```", opening, re.DOTALL)]


def test_the_page_opens_with_three_commands() -> None:
    assert [command[:3] for command in commands()[:3]] == [["evalkit", "score", "folders"]] * 3


@pytest.mark.parametrize("number", LAYOUTS)
def test_a_command_of_the_page_scores_its_layout(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write, metric = LAYOUTS[number]
    write()
    command = commands()[number]
    dry = CliRunner().invoke(app, [*command[2:], "--dry-run"], catch_exceptions=False)
    assert dry.exit_code == 0
    assert not Path("scores").exists()
    assert "pred against gt: 1 clip" in dry.output
    scored = CliRunner().invoke(app, command[2:], catch_exceptions=False)
    assert scored.exit_code == 0
    table = read_scores(Path("scores/scores.parquet"))
    rows = table[(table["metric"] == metric) & (table["subject"] == "policy")]
    assert len(rows)
    assert (rows["status"] == "ok").all()
    assert np.isfinite(rows["value"]).all()
    assert not [name for name in table["metric"] if name.startswith("check/")]
    assert Path("scores/report.md").is_file()
