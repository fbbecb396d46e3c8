"""One odd episode never ends an import: it is named, and the others are read.

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

from evalkit.dataset.layout import DataSetError
from evalkit.dataset.lerobot_format import INFO
from evalkit.dataset.lerobot_read import open_lerobot
from tests.doubles.foreign_sets import (
    RGB_ALONE,
    V2_VIDEO,
    V3_EPISODES,
    V3_ROWS,
    assert_shows,
    edit_info,
    foreign,
    imported,
    with_column,
)
from tests.doubles.recordings import key_of


def _of_one(name: str, value: Any) -> Callable[[Path], None]:
    def spoil(theirs: Path) -> None:
        table = pq.read_table(theirs / V3_EPISODES)
        values = table[name].to_pylist() if name in table.column_names else [None, None]
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


ODD |= {
    "cameras no object": (_of_one("xwam/cameras", "[1]"), r"'xwam/cameras' in meta/episodes must be a JSON object"),
    "cameras a number": (_of_one("xwam/cameras", "5"), r"'xwam/cameras' in meta/episodes must be a JSON object"),
    "cameras with files": (
        _of_one("xwam/cameras", '{"0_front": {"rgb_path": "../a.mp4"}}'),
        "must state intrinsics and T_base_cam of '0_front'",
    ),
    "one camera no object": (_of_one("xwam/cameras", '{"0_front": [1]}'), "must state intrinsics and T_base_cam of"),
    "matrix of another shape": (_of_one("xwam/cameras", '{"0_front": {"intrinsics": [1, 2]}}'), "intrinsics"),
    "about no JSON": (_of_one("xwam/about", "{bad"), "'xwam/about' in meta/episodes must be a JSON object, got '{bad'"),
    "about a number": (_of_one("xwam/about", 5), "'xwam/about' in meta/episodes must be a JSON object, got 5"),
    "task no text": (_of_one("xwam/about", '{"task": 5}'), "'about.task' must be text, got 5"),
    "prompts a number": (_of_one("xwam/instructions", "5"), "'xwam/instructions' in .* must be a JSON array"),
    "prompts a text": (_of_one("xwam/instructions", '"task 0"'), "'xwam/instructions' in meta/episodes must be a JSON"),
    "prompts numbers": (_of_one("xwam/instructions", "[1]"), r"'xwam/instructions' in meta/episodes must be texts"),
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


@pytest.mark.parametrize("key", ["../../evil_0000007", "chunk-0000/lift_a", "/abs/episode_0000001", 5, "episode_1"])
def test_keys_of_another_form_name_no_file(tmp_path: Path, key: Any) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v3.0", depth=False)
    _of_one("xwam/key", key)(theirs)
    before = set(tmp_path.rglob("*"))
    count, broken, notes = imported(theirs, ours)
    assert (count, broken) == (2, [])
    assert notes == [
        f"1 xwam/key in meta/episodes ({key!r}) without the form chunk-0000/episode_0000000; all episodes are called "
        f"by their numbers."
    ]
    assert_shows(ours, key_of(0), both[0])
    assert all(path.is_relative_to(ours) for path in set(tmp_path.rglob("*")) - before)


@pytest.mark.parametrize("name", ["../a", "a/b", "a\\b", "..", ""])
def test_cameras_are_no_paths(tmp_path: Path, name: str) -> None:
    foreign(tmp_path, "v3.0", depth=False)
    (tmp_path / "map.json").write_text(json.dumps({**RGB_ALONE, "cameras": {name: {"kind": "static", "rgb": "cam"}}}))
    with pytest.raises(DataSetError, match="cannot be the name of a camera"):
        open_lerobot(tmp_path, tmp_path / "map.json")


@pytest.mark.parametrize("field", ["data_path", "video_path"])
@pytest.mark.parametrize("path", ["../a.parquet", "/a.parquet", "data/../../a.parquet"])
def test_paths_stay_in_the_data_set(tmp_path: Path, field: str, path: str) -> None:
    foreign(tmp_path, "v3.0", depth=False)
    edit_info(tmp_path, **{field: path})
    with pytest.raises(DataSetError, match=f"'{field}' must be a path inside the data set, got '{path}'"):
        open_lerobot(tmp_path, tmp_path / "map.json")


@pytest.mark.parametrize("facts", ["video", 5, ["video"], {"dtype": "video", "info": "h264"}, {"video_info": [1]}])
def test_features_that_are_no_objects_are_named(tmp_path: Path, facts: Any) -> None:
    foreign(tmp_path, "v3.0", depth=False)
    info = json.loads((tmp_path / INFO).read_text())
    edit_info(tmp_path, features={**info["features"], "cam": facts})
    with pytest.raises(DataSetError, match=r"meta/info\.json: 'cam'.* must be an object, got "):
        open_lerobot(tmp_path, tmp_path / "map.json")


@pytest.mark.parametrize("columns", [[], 5, "abc", [1.5], [-1], {"a": 1}])
def test_columns_that_are_no_numbers_are_named(tmp_path: Path, columns: Any) -> None:
    foreign(tmp_path, "v3.0", depth=False)
    tables = {**RGB_ALONE["proprios"], "left_ee_pos": {"feature": "state", "columns": columns}}
    (tmp_path / "map.json").write_text(json.dumps({**RGB_ALONE, "proprios": tables}))
    with pytest.raises(DataSetError, match=r"columns .*, which must be a list of whole numbers from 0"):
        open_lerobot(tmp_path, tmp_path / "map.json")


def test_an_import_into_its_source_is_refused(tmp_path: Path) -> None:
    foreign(tmp_path, "v3.0", depth=False)
    with pytest.raises(DataSetError, match=r"holds a data set of LeRobot, .*; give another folder"):
        imported(tmp_path, tmp_path)


VALUES = (None, -1, 1.5, "a", "5", '{"a": [1]}', [1], {"a": 1}, float("nan"))


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_no_odd_value_ends_an_import(tmp_path: Path, version: str) -> None:
    """Each field of the metadata of one episode gets odd values; the other episode comes unless none can."""
    theirs = tmp_path / "theirs"
    foreign(theirs, version, depth=False)
    path = theirs / (V3_EPISODES if version == "v3.0" else "meta/episodes.jsonl")
    original = path.read_bytes()
    names = {"episode_index", "length", "tasks", "xwam/key", "xwam/about", "xwam/cameras", "xwam/instructions"}
    if version == "v3.0":
        names |= {name for name in pq.read_schema(path).names if not name.startswith("stats")}
    for number, (name, value) in enumerate((name, value) for name in sorted(names) for value in VALUES):
        path.write_bytes(original)
        if version == "v3.0":
            rows = pq.read_table(path).to_pylist()
            pq.write_table(pa.Table.from_pylist([{**rows[0], name: value}]), path)
            pq.write_table(pa.Table.from_pylist(rows[1:]), path.with_name("file-001.parquet"))
        else:
            rows = [json.loads(line) for line in original.decode().split("\n") if line]
            path.write_text("".join(json.dumps(row) + "\n" for row in [{**rows[0], name: value}, rows[1]]))
        count, broken, _ = imported(theirs, tmp_path / f"ours{number}")
        assert count >= 1 or name == "episode_index", (name, value)
        assert all("\n" not in one.reason and "NoneType" not in one.reason for one in broken), (name, value)
