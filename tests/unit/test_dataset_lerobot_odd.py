"""One odd episode never ends an import: it is named, and the others are read.

In: the sets of `tests/doubles/foreign_sets.py`, edited as other tools write theirs. Out: a verdict on the episodes.
Read next: `evalkit/dataset/lerobot_read.py`, `evalkit/dataset/lerobot_import.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.doubles.foreign_sets import (
    V2_VIDEO,
    V3_EPISODES,
    V3_ROWS,
    assert_shows,
    foreign,
    imported,
    with_column,
)
from tests.doubles.recordings import key_of


def _of_one(name: str, value: Any) -> Callable[[Path], None]:
    def spoil(theirs: Path) -> None:
        table = pq.read_table(theirs / V3_EPISODES)
        values = table[name].to_pylist()
        pq.write_table(with_column(name, [value, *values[1:]])(table), theirs / V3_EPISODES)

    return spoil


def _rows_of_one(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def spoil(theirs: Path) -> None:
        table = pq.read_table(theirs / V3_ROWS)
        pq.write_table(pa.concat_tables([change(table.slice(0, 12)), table.slice(12)]), theirs / V3_ROWS)

    return spoil


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "longer": (_of_one("length", 15), r"12 rows of it, 15 are needed"),
    "length not whole": (_of_one("length", 11.5), r"'length' must be a whole number, got 11\.5"),
    "no length": (_of_one("length", None), "it lacks length"),
    "no number": (_of_one("episode_index", None), "it lacks episode_index"),
    "listed twice": (_of_one("episode_index", 1), "episode 1 is listed a second time"),
    "no rows": (_of_one("episode_index", 5), "no file in .*data has rows of it"),
    "no start": (
        _of_one("videos/cam/from_timestamp", None),
        "from_timestamp' in meta/episodes must be a number of seconds",
    ),
    "another span": (_of_one("videos/cam/to_timestamp", 0.3), r"from_timestamp and to_timestamp are 6\.0 frames apart"),
    "no such file": (_of_one("videos/cam/file_index", 7), "file-007.mp4"),
    "frame missing": (
        _rows_of_one(
            lambda rows: with_column("frame_index", [*range(6), *range(7, 13)])(rows).select(rows.column_names)
        ),
        "its rows have frame 7 after frame 5; frame numbers must follow each other",
    ),
    "state not finite": (
        _rows_of_one(
            lambda rows: with_column("state", pa.array([[np.nan] * 8] * 12, rows["state"].type))(rows).select(
                rows.column_names
            )
        ),
        "'state' holds values that are not finite",
    ),
    "no state": (
        _rows_of_one(
            lambda rows: with_column("state", pa.array([None] * 12, rows["state"].type))(rows).select(rows.column_names)
        ),
        "'state' has no value in 12 of 12 rows",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_episode_is_named_and_the_rest_imported(tmp_path: Path, kind: str) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v3.0", depth=False)
    spoil, reason = ODD[kind]
    spoil(theirs)
    _, broken, _ = imported(theirs, ours)
    assert re.search(reason, broken[0].reason)
    assert "\n" not in broken[0].reason
    if kind != "listed twice":  # then the other one is left out
        assert len(broken) == 1
        assert_shows(ours, key_of(1), both[1])


@pytest.mark.parametrize("line", ["not JSON", "[]", '{"episode_index": 0}', "null"])
def test_a_broken_line_of_the_metadata_is_named(tmp_path: Path, line: str) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v2.1", depth=False)
    lines = (theirs / "meta/episodes.jsonl").read_text().splitlines()
    (theirs / "meta/episodes.jsonl").write_text(f"{line}\n{lines[1]}\n")
    count, broken, _ = imported(theirs, ours)
    assert (count, len(broken)) == (1, 1)
    assert "episodes.jsonl:1: " in broken[0].reason
    assert_shows(ours, key_of(1), both[1])


def test_an_unreadable_source_removes_nothing(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v2.1", depth=False)
    imported(theirs, ours)
    (theirs / V2_VIDEO.format(0)).rename(theirs / "elsewhere.mp4")
    count, broken, _ = imported(theirs, ours)
    assert count == 2
    assert "it cannot be compared with its source, so the imported one stays: " in broken[0].reason
    assert_shows(ours, key_of(0), both[0])
