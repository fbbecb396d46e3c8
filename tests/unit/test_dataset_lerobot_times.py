"""Which video frame belongs to which row, where times are odd; rotations of another kind.

In: the sets of `tests/doubles/foreign_sets.py`, edited as other tools write theirs. Out: a verdict on the episodes.
Read next: `evalkit/dataset/lerobot_read.py`, `evalkit/dataset/lerobot_import.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evalkit.dataset.videos import write_video
from tests.doubles.foreign_sets import (
    FPS,
    RGB_ALONE,
    V2_ROWS,
    V2_VIDEO,
    V3_EPISODES,
    V3_ROWS,
    V3_VIDEO,
    assert_shows,
    edit_table,
    foreign,
    imported,
    with_column,
)
from tests.doubles.recordings import key_of, steps_of


def test_a_video_of_more_frames_per_second(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v2.1", depth=False)
    for number, steps in enumerate(both):  # three frames per row; the rows are those of every third
        others = steps_of(90, count=3 * len(steps.rgb)).rgb[:, 0]
        others[::3] = steps.rgb[:, 0]
        write_video(theirs / V2_VIDEO.format(number), others, fps=60)
    assert imported(theirs, ours) == (2, [], [])
    for number, steps in enumerate(both):
        assert_shows(ours, key_of(number), steps)


def test_rows_that_start_later_than_their_video(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v2.1", depth=False)
    before = steps_of(90, count=4).rgb[:, 0]
    write_video(theirs / V2_VIDEO.format(0), np.concatenate([before, both[0].rgb[:, 0]]), fps=20)
    edit_table(theirs / V2_ROWS.format(0), with_column("timestamp", pa.array((np.arange(12) + 4) / 20)))
    note = "episode 0: 'cam': its video has 16 frames for 12 rows; the times of the rows decide which are used."
    assert imported(theirs, ours) == (2, [], [note])
    assert_shows(ours, key_of(0), both[0])


LATE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "one step": lambda times_s, _: times_s + 1 / FPS,
    "half a second, one episode": lambda times_s, number: np.where(number == 0, times_s + 0.5, times_s),
    "since the start of the data set": lambda times_s, number: np.arange(len(times_s)) / FPS,
    "one step early": lambda times_s, number: np.where(number == 1, times_s - 1 / FPS, times_s),
}


@pytest.mark.parametrize("extra", [0, 30])
@pytest.mark.parametrize("form", LATE)
def test_rows_never_show_another_episode(tmp_path: Path, form: str, extra: int) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v3.0", depth=False)
    rows = pq.read_table(theirs / V3_ROWS)
    times_s, numbers = (np.array(rows[name].to_pylist()) for name in ("timestamp", "episode_index"))
    edit_table(theirs / V3_ROWS, with_column("timestamp", pa.array(LATE[form](times_s, numbers))))
    if extra:  # then the order does not tell either
        images = np.concatenate([*(steps.rgb[:, 0] for steps in both), steps_of(90, count=extra).rgb[:, 0]])
        write_video(theirs / V3_VIDEO, images, fps=FPS)
    num_late = {"one step": 2}.get(form, 1)
    count, broken, notes = imported(theirs, ours)
    said = [one.reason for one in broken] if extra else notes
    assert (count, len(said)) == (2 - num_late if extra else 2, num_late)
    assert "s of the video, and meta/episodes states that the episode is from " in said[0]
    for number, steps in enumerate(both):
        if not any(f"episode {number}:" in one.reason for one in broken):
            assert_shows(ours, key_of(number), steps)


def test_an_end_off_by_rounding_is_no_disagreement(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v3.0", depth=False)
    edit_table(theirs / V3_EPISODES, with_column("videos/cam/to_timestamp", [11.2 / FPS, 24.3 / FPS]))
    assert imported(theirs, ours) == (2, [], [])
    assert_shows(ours, key_of(1), both[1])


def test_a_v2_video_with_more_frames_is_noted(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v2.1", depth=False)
    write_video(theirs / V2_VIDEO.format(1), steps_of(1, count=15).rgb[:, 0], fps=FPS)
    count, broken, notes = imported(theirs, ours)
    assert (count, broken, len(notes)) == (2, [], 1)
    assert "episode 1: 'cam': its video has 15 frames for 13 rows; the times of the rows decide" in notes[0]
    assert_shows(ours, key_of(0), both[0])


def test_times_that_disagree_are_named_and_order_decides(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v2.1", depth=False)
    edit_table(theirs / V2_ROWS.format(0), with_column("timestamp", pa.array((np.arange(12) + 4) / 20)))
    count, broken, notes = imported(theirs, ours)
    assert (count, broken) == (2, [])
    assert "episode 0: 'cam': its row 8 is at 0.6000 s, and the nearest video frame 11 is at 0.5500 s" in notes[0]
    assert_shows(ours, key_of(0), both[0])


TIMES: dict[str, tuple[Any, str]] = {
    "another rate": (np.arange(12) / 10, r"its rows are 0\.1 s apart, and fps 20 in meta/info\.json means 0\.05 s"),
    "a gap": (np.r_[:6, 8:14] / 20, r"its rows 5 and 6 are at 0\.2500 s and 0\.4000 s"),
    "the same time twice": (np.r_[:6, 5:11] / 20, r"its rows 5 and 6 are at 0\.2500 s and 0\.2500 s"),
    "no number": (np.full(12, np.nan), "its rows have timestamps that are not finite"),
}


@pytest.mark.parametrize("form", TIMES)
def test_times_that_cannot_be_right_are_named(tmp_path: Path, form: str) -> None:
    theirs = tmp_path / "theirs"
    foreign(theirs, "v2.1", depth=False)
    times_s, reason = TIMES[form]
    edit_table(theirs / V2_ROWS.format(0), with_column("timestamp", pa.array(times_s)))
    count, broken, _ = imported(theirs, tmp_path / "ours")
    assert count == 1
    assert re.search(f"episode 0: {reason}", broken[0].reason)
    assert "\n" not in broken[0].reason


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_times_that_jitter_are_matched(tmp_path: Path, version: str) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, version, depth=False)
    for path in (theirs / "data").rglob("*.parquet"):
        times_s = np.array(pq.read_table(path)["timestamp"].to_pylist())
        noise_s = np.random.default_rng(0).uniform(-0.009, 0.009, len(times_s))
        edit_table(path, with_column("timestamp", pa.array(times_s + noise_s)))
    assert imported(theirs, ours) == (2, [], [])
    for number, steps in enumerate(both):
        assert_shows(ours, key_of(number), steps)


@pytest.mark.parametrize("extra", [0, 1])
def test_episodes_that_claim_the_same_frames(tmp_path: Path, extra: int) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v3.0", depth=False)
    edit_table(theirs / V3_EPISODES, with_column("videos/cam/from_timestamp", [0.0, 0.0]))
    edit_table(theirs / V3_EPISODES, with_column("videos/cam/to_timestamp", [0.6, 0.65]))
    if extra:  # then the order does not tell either
        images = np.concatenate([steps.rgb[:, 0] for steps in both])
        write_video(theirs / V3_VIDEO, np.concatenate([images, images[:1]]), fps=20)
    count, broken, notes = imported(theirs, ours)
    said = [one.reason for one in broken] if extra else notes
    assert count == (0 if extra else 2)
    assert "episode 0: 'cam': its frames and those of episode 1 overlap, as from_timestamp states them" in said[0]
    if not extra:
        assert_shows(ours, key_of(1), both[1])


ROTATIONS: dict[str, tuple[Any, str]] = {
    "not unit": (
        {"columns": [0, 1, 2, 3], "rotation": "quat_xyzw"},
        "quaternions have lengths from .*check the columns",
    ),
    "too few": ({"columns": [3, 4, 5], "rotation": "quat_xyzw"}, "a quat_xyzw has 4 columns, the map names 3"),
    "degrees": (
        {"columns": [8, 9, 10], "rotation": "rotvec"},
        "a rotation vector has the length 90.0, radians are needed",
    ),
}


@pytest.mark.parametrize("kind", ROTATIONS)
def test_rotations_of_another_kind_are_named(tmp_path: Path, kind: str) -> None:
    theirs = tmp_path / "theirs"
    foreign(theirs, "v2.1", depth=False)
    for path in (theirs / "data").rglob("*.parquet"):
        wider = [[*row, 0.0, 0.0, 90.0] for row in pq.read_table(path)["state"].to_pylist()]
        edit_table(path, with_column("state", wider))
    source, reason = ROTATIONS[kind]
    tables = {**RGB_ALONE["proprios"], "left_ee_rotm": {"feature": "state", **source}}
    (theirs / "map.json").write_text(json.dumps({**RGB_ALONE, "proprios": tables}))
    count, broken, _ = imported(theirs, tmp_path / "ours")
    assert (count, len(broken)) == (0, 2)
    assert re.search(f"episode 0: 'state': {reason}", broken[0].reason)
