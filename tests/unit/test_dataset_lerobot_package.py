"""Data sets of the real `lerobot` package: imported frame by frame; our exports in its loader and its tools.

In: Python interpreters that have `lerobot` 0.4.4 and 0.6.1, named by `EVALKIT_LEROBOT_PYTHON_044` and
`EVALKIT_LEROBOT_PYTHON_061`. Without them, these tests are skipped. Out: a verdict on frames, depth and prompts.
Read next: `tests/doubles/lerobot_package.py`, which runs in those interpreters.

To make one (0.6.1 needs Python 3.12):

    python3.11 -m venv lerobot044 && lerobot044/bin/pip install lerobot==0.4.4
    EVALKIT_LEROBOT_PYTHON_044=lerobot044/bin/python pytest tests/unit/test_dataset_lerobot_package.py
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from evalkit.dataset.layout import Track, scan, tracks
from evalkit.dataset.lerobot_export import export
from evalkit.dataset.lerobot_format import MAP
from evalkit.dataset.lerobot_import import import_episodes
from evalkit.dataset.lerobot_read import open_lerobot
from evalkit.dataset.videos import read_frames
from tests.doubles.known import known

SCRIPT = Path(__file__).parents[1] / "doubles" / "lerobot_package.py"
VERSIONS = ("0.4.4", "0.6.1")
LENGTHS, TASKS = (5, 3, 7, 12), ("lift the cube", "open the door")

STATE = "observation.state"
PACKAGE_MAP = {
    "cameras": {name: {"kind": "static", "rgb": name} for name in ("cam", "in_rows")},
    "proprios": {
        "left_ee_pos": {"feature": STATE, "columns": [0, 1, 2]},
        "left_ee_rotm": {"feature": STATE, "columns": [3, 4, 5, 6], "rotation": "quat_xyzw"},
        "left_gripper_pos": {"feature": STATE, "columns": [7]},
    },
    "actions": {"raw_actions": "action"},
}


class Package(NamedTuple):
    """An interpreter with `lerobot`, and data sets that it wrote and edited."""

    python: str
    version: str
    folder: Path

    def run(self, command: str, *arguments: object) -> None:
        """Run a command of the script."""
        given = [self.python, "-W", "ignore", str(SCRIPT), command, *map(str, arguments)]
        done = subprocess.run(given, env=_environment(), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}


@pytest.fixture(scope="module", params=VERSIONS)
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Package:
    name = f"EVALKIT_LEROBOT_PYTHON_{request.param.replace('.', '')}"
    if not (python := os.environ.get(name)):
        pytest.skip(f"{name} names no interpreter with lerobot {request.param}")
    found = subprocess.run(
        [python, "-c", "import importlib.metadata as m; print(m.version('lerobot'))"], capture_output=True, text=True
    ).stdout.strip()
    if found != request.param:
        pytest.skip(f"{name} has lerobot {found or 'missing'}, {request.param} is needed")
    made = Package(python, request.param, tmp_path_factory.mktemp("lerobot"))
    command = "write-depth" if request.param == "0.6.1" else "write"
    for name, first in (("one", 0), ("two", 200)):
        made.run(command, made.folder / name, first)
    made.run("edit", made.folder / "one", made.folder / "two", made.folder / "edited")
    return made


def imported(theirs: Path, ours: Path, feature_map: object = PACKAGE_MAP) -> list[Track]:
    """Return the episodes of a data set, after a check that nothing was left out."""
    path = ours.with_suffix(".json")
    path.write_text(json.dumps(feature_map))
    result = import_episodes(open_lerobot(theirs, path), ours)
    assert result.broken == []
    assert scan(ours, decoded=True).broken == []
    return list(tracks(ours))


def numbers_of(images: np.ndarray) -> np.ndarray:
    """Return the numbers that images show in their black and white squares."""
    bits = images.reshape(len(images), 3, 16, 4, 16, 3).mean((2, 4, 5)) > 127
    return np.asarray(bits.reshape(-1, 12) @ (1 << np.arange(12)))


def rows_of(*episodes: int, first: int = 0) -> list[int]:
    """Return the numbers of the rows of episodes that the script wrote."""
    starts = np.cumsum([first, *LENGTHS])
    return [int(row) for episode in episodes for row in range(starts[episode], starts[episode + 1])]


def assert_frames_fit(found: list[Track], expected: list[int]) -> None:
    """Check that every image of every row shows the number in its state."""
    for track in found:
        for camera in track.cameras:
            images = read_frames(camera.rgb_path, range(camera.start, camera.start + track.num_frames))
            np.testing.assert_array_equal(numbers_of(images), track.proprio[:, 0], err_msg=f"{track.key} {camera.name}")
    assert sorted(int(row) for track in found for row in track.proprio[:, 0]) == sorted(expected)


EDITED = {
    "one": rows_of(0, 1, 2, 3),
    "edited/deleted": rows_of(0, 2, 3),
    "edited/split/a": rows_of(0, 3),
    "edited/split/b": rows_of(1, 2),
    "edited/merged": rows_of(0, 1, 2, 3) + rows_of(0, 1, 2, 3, first=200),
}


@pytest.mark.parametrize("name", EDITED)
def test_what_lerobot_writes_and_edits_is_imported(package: Package, tmp_path: Path, name: str) -> None:
    found = imported(package.folder / name, tmp_path / "ours")
    assert_frames_fit(found, EDITED[name])
    for track in found:
        row = int(track.proprio[0, 0]) % 200
        later = row >= rows_of(3)[6]  # the task of the last episode changes at its seventh row
        odd = row in (*rows_of(1), *rows_of(3)) and not later
        assert track.instructions == (TASKS[1] if odd else TASKS[0],)


def depth_of(number: int) -> np.ndarray:
    """Return the depth that the script gives a row, H,W millimetres."""
    depth = (500 + 10 * number + np.arange(48 * 64) % 3000).astype(np.int64)
    depth[:7] = 0
    return depth.reshape(48, 64)


@pytest.mark.parametrize(("feature", "tolerance_mm"), [("depth_rows", 0), ("depth_video", 2)])
@pytest.mark.parametrize("name", ["one", "edited/deleted", "edited/merged"])
def test_depth_of_lerobot_is_imported(
    package: Package, tmp_path: Path, name: str, feature: str, tolerance_mm: int
) -> None:
    """A code of LeRobot's depth video stands for up to 3 mm at these distances; images in the rows are exact."""
    if package.version != "0.6.1":
        pytest.skip("LeRobot has depth from 0.6 on")
    cameras = {"cam": {"kind": "static", "rgb": "cam", "depth_mm": feature}}
    found = imported(package.folder / name, tmp_path / "ours", {**PACKAGE_MAP, "cameras": cameras})
    assert_frames_fit(found, EDITED[name])
    for track in found:
        (camera,) = track.cameras
        frames = range(camera.start, camera.start + track.num_frames)
        exact = read_frames(known(camera.depth_mm_path), frames, "gray16le").astype(np.int64)
        truth = np.stack([depth_of(int(row)) for row in track.proprio[:, 0]])
        assert np.abs(exact - truth).max() <= tolerance_mm
        assert ((exact == 0) == (truth == 0)).all()


@pytest.mark.parametrize("codec", ["copy", "hevc"])
def test_our_exports_load_in_lerobot(package: Package, root: Path, tmp_path: Path, codec: str) -> None:
    export(root, scan(root), tmp_path / "theirs", codec=codec)  # type: ignore[arg-type]
    package.run("read", tmp_path / "theirs", tmp_path / "read.npz")
    read, first = np.load(tmp_path / "read.npz"), 0
    for track in tracks(root):
        rows = slice(first, first := first + track.num_frames)
        np.testing.assert_array_equal(read["observation.state"][rows], track.proprio)
        np.testing.assert_array_equal(read["action"][rows], track.action)
        assert set(read["task"][rows]) == {track.instructions[0]}
        for camera in track.cameras:
            frames = range(camera.start, camera.start + track.num_frames)
            rgb = read[f"observation.images.{camera.name}"][rows].transpose(0, 2, 3, 1) * 255
            assert np.abs(rgb - read_frames(camera.rgb_path, frames)).max() < 0.01
            depth = read[f"observation.images.{camera.name}_depth"][rows].squeeze()
            np.testing.assert_array_equal(depth, read_frames(known(camera.depth_mm_path), frames, "gray16le"))


def test_our_exports_survive_lerobots_tools(package: Package, tmp_path: Path) -> None:
    imported(package.folder / "one", tmp_path / "ours")
    export(tmp_path / "ours", scan(tmp_path / "ours"), tmp_path / "theirs", codec="hevc")
    package.run("delete", tmp_path / "theirs", tmp_path / "deleted")
    feature_map = json.loads((tmp_path / "theirs" / MAP).read_text())
    found = imported(tmp_path / "deleted", tmp_path / "again", feature_map)
    assert_frames_fit(found, rows_of(0, 2, 3))
