"""Data sets of other tools in LeRobot's format: read right, or refused by name; one odd episode never ends an import.

In: the sets of `tests/doubles/foreign_sets.py`, edited as other tools write theirs. Out: a verdict on the episodes.
Read next: `evalkit/dataset/lerobot_read.py`, `evalkit/dataset/lerobot_import.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evalkit.dataset import lerobot_import
from evalkit.dataset.layout import DataSetError, Track, read_track, scan
from evalkit.dataset.lerobot_export import export
from evalkit.dataset.lerobot_format import INFO
from evalkit.dataset.lerobot_import import Imported, import_episodes
from evalkit.dataset.lerobot_metadata import VERSIONS
from evalkit.dataset.lerobot_read import open_lerobot
from evalkit.dataset.videos import read_frames, write_video
from evalkit.dataset.writer import Steps
from tests.doubles.foreign_sets import (
    FOREIGN_MAP,
    RGB_ALONE,
    V2_ROWS,
    V2_VIDEO,
    V3_EPISODES,
    V3_ROWS,
    V3_VIDEO,
    edit_info,
    edit_table,
    foreign,
    with_column,
)
from tests.doubles.known import known
from tests.doubles.recordings import cut_off, key_of, steps_of, write_data
from xwam.cli.data import import_lerobot


def imported(theirs: Path, ours: Path) -> Imported:
    return import_episodes(open_lerobot(theirs, theirs / "map.json"), ours)


def frames_of(track: Track) -> np.ndarray:
    (camera,) = track.cameras
    return read_frames(camera.rgb_path, range(camera.start, camera.start + track.num_frames))


def assert_shows(ours: Path, key: str, steps: Steps, rows: slice = slice(None)) -> None:
    """Check images, states and actions of an episode against what was recorded."""
    track = read_track(ours, key)
    np.testing.assert_array_equal(frames_of(track), steps.rgb[rows, 0])
    np.testing.assert_allclose(track.proprio, steps.proprio[rows], atol=1e-6)
    np.testing.assert_array_equal(track.action[:, :6], steps.action[rows, :6])


@pytest.mark.parametrize("exact", [True, False], ids=["depth", "colour alone"])
@pytest.mark.parametrize("version", VERSIONS)
def test_anyones_data_set_comes_by_a_map(tmp_path: Path, version: str, exact: bool) -> None:
    both = foreign(tmp_path / "theirs", version, depth=exact)
    assert imported(tmp_path / "theirs", tmp_path / "ours") == (2, [], [])
    assert scan(tmp_path / "ours").broken == []
    for number, steps in enumerate(both):
        track = read_track(tmp_path / "ours", key_of(number))
        count, (camera,) = track.num_frames, track.cameras
        assert (count, track.instructions, camera.kind) == (12 + number, (f"task {number}",), "static")
        np.testing.assert_allclose(track.proprio, steps.proprio, atol=1e-6)
        np.testing.assert_array_equal(track.action[:, :6], steps.action[:, :6])
        np.testing.assert_array_equal(track.action[:, 6], -steps.action[:, 6])  # raw commands close with 1
        frames = range(camera.start, camera.start + count)
        np.testing.assert_array_equal(read_frames(camera.rgb_path, frames), steps.rgb[:, 0])
        assert camera.start == (12 if version == "v3.0" and number and not exact else 0)
        if exact:
            depth_m = read_frames(known(camera.depth_mm_path), frames, "gray16le") / 1000
            assert np.abs(depth_m - steps.depth[:, 0]).max() <= 0.5e-3 + 1e-6


def test_broken_episodes_of_others_are_named_and_left_out(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    foreign(theirs, "v2.1")
    cut_off(theirs / "videos/chunk-000/cam/episode_000000.mp4")
    rows = pq.read_table(theirs / "data/chunk-000/episode_000001.parquet")
    pq.write_table(rows.slice(0, 5), theirs / "data/chunk-000/episode_000001.parquet")
    count, broken, _ = imported(theirs, tmp_path / "ours")
    assert count == 0
    assert [one.key for one in broken] == [key_of(0), key_of(1)]
    assert "episode_000000.mp4 is missing or broken" in broken[0].reason
    assert "episode_000001.parquet has 5 rows of it, 13 are needed" in broken[1].reason
    images = [{"bytes": b"no image", "path": ""}] * rows.num_rows
    spoilt = rows.set_column(rows.column_names.index("cam_depth"), "cam_depth", pa.array(images))
    pq.write_table(spoilt, theirs / "data/chunk-000/episode_000001.parquet")
    _, broken, _ = imported(theirs, tmp_path / "ours")
    assert "the rows hold no image, an image of uint16 or float32 is needed" in broken[1].reason
    foreign(tmp_path / "repaired", "v2.1")
    assert imported(tmp_path / "repaired", tmp_path / "ours") == (2, [], [])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"codebase_version": "v1.6"}, r"is of version v1\.6; v2\.0, v2\.1, v3\.0 can be read"),
        ({"codebase_version": None}, r"is not LeRobot's: it lacks codebase_version"),
        ({"features": {"state": {}, "act": {}}}, r"map\.json names 'cam', which is none of state, act"),
    ],
)
def test_data_sets_that_cannot_be_imported(tmp_path: Path, change: Any, reason: str) -> None:
    foreign(tmp_path, "v3.0")
    edit_info(tmp_path, **change)
    with pytest.raises(DataSetError, match=reason):
        open_lerobot(tmp_path, tmp_path / "map.json")


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (
            {"proprios": {"left_ee_rotm": {"feature": "state", "rotation": "euler"}}},
            "rotation 'euler', which must be one of",
        ),
        (
            {"cameras": {"0": {"kind": "head", "rgb": "cam"}}},
            "kind 'head' of a camera, which must be static or dynamic",
        ),
        ({"actions": None}, "must map features to tables and cameras as docs/data.md"),
    ],
)
def test_maps_that_cannot_be_used(tmp_path: Path, part: Any, reason: str) -> None:
    foreign(tmp_path, "v3.0")
    (tmp_path / "map.json").write_text(json.dumps({**FOREIGN_MAP, **part}))
    with pytest.raises(DataSetError, match=reason):
        open_lerobot(tmp_path, tmp_path / "map.json")


def test_what_can_be_imported_is_said_alike_everywhere() -> None:
    help_text = import_lerobot.__doc__
    docs = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    for text in (help_text, lerobot_import.__doc__, docs):
        assert ", ".join(VERSIONS) in known(text)


# ---- two sets, one folder


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_another_set_in_the_folder_is_refused(tmp_path: Path, version: str) -> None:
    foreign(tmp_path / "a", version)
    foreign(tmp_path / "b", version, seed=50)
    assert imported(tmp_path / "a", tmp_path / "ours").num_episodes == 2
    before = {path: path.read_bytes() for path in (tmp_path / "ours").rglob("*") if path.is_file()}
    with pytest.raises(DataSetError, match=r"already holds episodes that come from .*/a .*Give another folder"):
        imported(tmp_path / "b", tmp_path / "ours")
    assert before == {path: path.read_bytes() for path in (tmp_path / "ours").rglob("*") if path.is_file()}


def test_recorded_episodes_are_not_mixed_with_imported_ones(tmp_path: Path) -> None:
    foreign(tmp_path / "a", "v3.0")
    write_data(tmp_path / "ours")
    with pytest.raises(DataSetError, match="already holds episodes that no import, or one of an older version, wrote"):
        imported(tmp_path / "a", tmp_path / "ours")


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_an_edited_set_is_imported_again(tmp_path: Path, version: str) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    foreign(theirs, version, depth=False)
    imported(theirs, ours)
    foreign(tmp_path / "other", version, seed=50, depth=False)
    for path in (tmp_path / "other").rglob("*"):
        if path.is_file():
            (theirs / path.relative_to(tmp_path / "other")).write_bytes(path.read_bytes())
    assert imported(theirs, ours) == (2, [], [])
    for number in range(2):
        assert_shows(ours, key_of(number), steps_of(50 + number, count=12 + number))
    assert len(list((ours / "video").rglob("*.mp4"))) == (1 if version == "v3.0" else 2)  # no old video stays


def test_one_edited_episode_alone_is_written_again(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    foreign(theirs, "v2.1", depth=False)
    imported(theirs, ours)
    times = [(ours / "data" / f"{key_of(number)}.json").stat().st_mtime_ns for number in range(2)]
    write_video(theirs / V2_VIDEO.format(1), steps_of(50, count=13).rgb[:, 0], fps=20)
    assert imported(theirs, ours) == (2, [], [])
    again = [(ours / "data" / f"{key_of(number)}.json").stat().st_mtime_ns for number in range(2)]
    assert (times[0] == again[0], times[1] == again[1]) == (True, False)
    np.testing.assert_array_equal(frames_of(read_track(ours, key_of(1))), steps_of(50, count=13).rgb[:, 0])


def test_another_map_imports_again(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v3.0", depth=False)
    imported(theirs, ours)
    swapped = dict(RGB_ALONE["proprios"], left_ee_pos={"feature": "state", "columns": [2, 1, 0]})
    (theirs / "map.json").write_text(json.dumps({**RGB_ALONE, "proprios": swapped}))
    imported(theirs, ours)
    np.testing.assert_allclose(read_track(ours, key_of(0)).proprio[:, :3], both[0].proprio[:, [2, 1, 0]], atol=1e-6)


def test_a_deleted_episode_is_removed_with_a_word(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    foreign(theirs, "v2.1", depth=False)
    imported(theirs, ours)
    lines = (theirs / "meta/episodes.jsonl").read_text().splitlines()
    (theirs / "meta/episodes.jsonl").write_text(lines[0] + "\n")
    count, broken, notes = imported(theirs, ours)
    assert (count, broken) == (1, [])
    assert re.search("1 episode removed, because .* no longer holds them: episode_0000001", notes[0])
    assert list(json.loads((ours / "metadata.json").read_text())) == [key_of(0)]


def test_a_moved_set_is_skipped_and_a_stopped_import_goes_on(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v3.0", depth=False)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_episodes(open_lerobot(theirs, theirs / "map.json"), ours, on_episode=stop)
    first = ours / "data" / f"{key_of(0)}.json"
    written = first.stat().st_mtime_ns
    theirs.rename(tmp_path / "moved")
    assert imported(tmp_path / "moved", ours) == (2, [], [])
    assert first.stat().st_mtime_ns == written
    assert_shows(ours, key_of(1), both[1])


def test_a_half_copied_video_is_copied_again(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v3.0", depth=False)
    imported(theirs, ours)
    (video,) = (ours / "video").rglob("*.mp4")
    cut_off(video)
    (ours / "data" / f"{key_of(1)}.json").unlink()
    assert imported(theirs, ours) == (2, [], [])
    assert_shows(ours, key_of(1), both[1])


@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize("harm", ["remove", "cut off", "change"])
def test_a_video_that_is_gone_or_changed_is_made_again(tmp_path: Path, harm: str, depth: bool) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    foreign(theirs, "v3.0", depth=depth)
    imported(theirs, ours)
    before = {path: path.read_bytes() for path in ours.rglob("*.*") if path.suffix != ".mkv"}  # it holds a random id
    copies = [path for path in ours.rglob("*.mp4") if re.search("-[0-9a-f]{16}$", path.stem)]
    for video in copies if harm == "change" else sorted({*ours.rglob("*.mp4"), *ours.rglob("*.mkv")}):
        if harm == "remove":
            video.unlink()
        elif harm == "cut off":
            cut_off(video)
        else:
            video.write_bytes(video.read_bytes()[:-1] + b"x")
    assert imported(theirs, ours) == (2, [], [])
    assert {path: path.read_bytes() for path in ours.rglob("*.*") if path.suffix != ".mkv"} == before
    assert scan(ours, decoded=True).broken == []


def test_an_exported_import_is_imported_once(tmp_path: Path) -> None:
    theirs, ours, lerobot, again = (tmp_path / name for name in ("theirs", "ours", "lerobot", "again"))
    foreign(theirs, "v3.0", depth=False)
    numbers = pq.read_table(theirs / V3_ROWS)["task_index"].to_pylist()
    edit_table(theirs / V3_ROWS, with_column("task_index", [0] * 5 + [1] * 7 + numbers[12:]))
    assert imported(theirs, ours).num_episodes == 3
    export(ours, scan(ours), lerobot)
    assert import_episodes(open_lerobot(lerobot), again) == (3, [], [])
    written = {path: path.stat().st_mtime_ns for path in (again / "data").rglob("*.json")}
    assert import_episodes(open_lerobot(lerobot), again) == (3, [], [])
    assert {path: path.stat().st_mtime_ns for path in (again / "data").rglob("*.json")} == written
    assert not any("imported_parts" in path.read_text() for path in written)


# ---- prompts


def test_the_prompt_is_the_task_of_the_rows(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    foreign(theirs, "v2.0", depth=False)
    lines = [json.loads(line) for line in (theirs / "meta/episodes.jsonl").read_text().splitlines()]
    labelled = [{**line, "tasks": ["valid", *line["tasks"]]} for line in lines]
    (theirs / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in labelled))
    assert imported(theirs, ours) == (2, [], [])
    assert [read_track(ours, key_of(number)).instructions for number in range(2)] == [("task 0",), ("task 1",)]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_an_episode_whose_task_changes_is_split(tmp_path: Path, version: str) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, version, depth=False)
    path = theirs / (V3_ROWS if version == "v3.0" else V2_ROWS.format(0))
    numbers = pq.read_table(path)["task_index"].to_pylist()
    edit_table(path, with_column("task_index", [0] * 5 + [1] * 4 + [0] * 3 + numbers[12:]))
    count, broken, notes = imported(theirs, ours)
    assert (count, broken) == (4, [])
    assert notes == ["episode 0: its task changes at row 5, row 9; it becomes 3 episodes."]
    parts = (key_of(0), "chunk-0010/episode_0010000", "chunk-0020/episode_0020000")
    for key, rows, task in zip(
        parts, (slice(5), slice(5, 9), slice(9, 12)), ("task 0", "task 1", "task 0"), strict=True
    ):
        assert_shows(ours, key, both[0], rows)
        assert read_track(ours, key).instructions == (task,)
    assert_shows(ours, key_of(1), both[1])
    assert scan(ours, decoded=True).broken == []
    assert imported(theirs, ours) == (4, [], [])
    (ours / "data" / f"{parts[1]}.json").unlink()
    assert imported(theirs, ours).num_episodes == 4


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        ("", r"it has 2 tasks \('valid', 'task 0'\), and no 'task_index' in its rows or no table of tasks says which"),
        ('{"task_index": 7, "task": "another"}\n', "its rows name task 0, which the table of tasks does not have"),
        ('{"task_index": 0, "task": " "}\n', "its task 0 is an empty text, which cannot be a prompt"),
    ],
)
def test_an_episode_without_a_clear_task_is_named(tmp_path: Path, tasks: str, reason: str) -> None:
    theirs = tmp_path / "theirs"
    foreign(theirs, "v2.1", depth=False)
    lines = [json.loads(line) for line in (theirs / "meta/episodes.jsonl").read_text().splitlines()]
    lines[0]["tasks"] = ["valid", "task 0"]
    (theirs / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (theirs / "meta/tasks.jsonl").write_text(tasks)
    broken = imported(theirs, tmp_path / "ours").broken
    assert re.search(f"episode 0: {reason}", broken[0].reason)


# ---- valid sets in other forms


def _shuffled(table: pa.Table) -> pa.Table:
    return table.take(pa.array(np.random.default_rng(0).permutation(table.num_rows)))


def _as_lists(table: pa.Table) -> pa.Table:
    for name in ("timestamp", "task_index"):
        table = with_column(name, [[value] for value in table[name].to_pylist()])(table)
    return table


def _as_floats(table: pa.Table) -> pa.Table:
    for name in ("frame_index", "episode_index", "task_index", "index"):
        table = with_column(name, pa.array(np.array(table[name].to_pylist(), np.float64)))(table)
    return table


FORMS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "no frame_index": lambda table: table.drop(["frame_index"]),
    "no timestamp": lambda table: table.drop(["timestamp"]),
    "neither": lambda table: table.drop(["timestamp", "frame_index"]),
    "rows shuffled": _shuffled,
    "rows shuffled, times only": lambda table: _shuffled(table).drop(["frame_index"]),
    "indices as floats": _as_floats,
    "numbers as lists of one": _as_lists,
    "states as float64": lambda table: with_column(
        "state", pa.array(table["state"].to_pylist(), pa.list_(pa.float64()))
    )(table),
    "other columns": with_column("next.done", [True]),
}


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("form", FORMS)
def test_rows_in_other_forms(tmp_path: Path, version: str, form: str) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, version, depth=False)
    for path in (theirs / "data").rglob("*.parquet"):
        change = FORMS[form]
        if form == "other columns":
            change = with_column("next.done", [True] * pq.read_metadata(path).num_rows)
        edit_table(path, change)
    assert imported(theirs, ours) == (2, [], [])
    for number, steps in enumerate(both):
        assert_shows(ours, key_of(number), steps)


def test_metadata_files_with_other_columns_and_floats(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v3.0", depth=False)
    table = pq.read_table(theirs / V3_EPISODES)
    with_note = with_column("note", ["a"])(table.slice(0, 1))
    as_floats = with_column("videos/cam/file_index", [0.0])(with_column("data/file_index", [0.0])(table.slice(1, 1)))
    pq.write_table(with_note, theirs / V3_EPISODES)
    pq.write_table(as_floats, (theirs / V3_EPISODES).with_name("file-001.parquet"))
    assert imported(theirs, ours) == (2, [], [])
    for number, steps in enumerate(both):
        assert_shows(ours, key_of(number), steps)


def test_rows_in_another_file_than_the_metadata_say(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v3.0", depth=False)
    table = pq.read_table(theirs / V3_ROWS)
    pq.write_table(table.slice(0, 12), theirs / V3_ROWS)
    pq.write_table(table.slice(12), (theirs / V3_ROWS).with_name("file-001.parquet"))
    assert imported(theirs, ours) == (2, [], [])
    assert_shows(ours, key_of(1), both[1])


IMAGES: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "png": lambda image, _: {"bytes": cv2.imencode(".png", image[..., ::-1])[1].tobytes(), "path": None},
    "bytes": lambda image, _: cv2.imencode(".png", image[..., ::-1])[1].tobytes(),
    "height, width, channels": lambda image, _: image.tolist(),
    "channels, height, width": lambda image, _: image.transpose(2, 0, 1).tolist(),
}


@pytest.mark.parametrize("form", [*IMAGES, "files"])
def test_images_in_the_rows(tmp_path: Path, form: str) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v2.1", depth=False)
    info = json.loads((theirs / INFO).read_text())
    shape = [3, 32, 48] if form.startswith("channels") else [32, 48, 3]
    info["features"]["cam"] = {"dtype": "image", "shape": shape}
    edit_info(theirs, features=info["features"], video_path=None)
    for number, steps in enumerate(both):
        images = list(steps.rgb[:, 0])
        if form == "files":
            (theirs / "images").mkdir(exist_ok=True)
            rows: list[Any] = [{"bytes": None, "path": f"images/{number}-{row}.png"} for row in range(len(images))]
            for row, image in zip(rows, images, strict=True):
                cv2.imwrite(str(theirs / row["path"]), image[..., ::-1])
        else:
            rows = [IMAGES[form](image, theirs) for image in images]
        edit_table(theirs / V2_ROWS.format(number), with_column("cam", rows))
    assert imported(theirs, ours) == (2, [], [])
    for number, steps in enumerate(both):
        assert_shows(ours, key_of(number), steps)


DEPTHS: dict[str, tuple[Callable[[np.ndarray], Any], str | None, float]] = {
    "16-bit png": (lambda mm: {"bytes": cv2.imencode(".png", mm)[1].tobytes()}, "mm", 0),
    "unit not stated": (lambda mm: {"bytes": cv2.imencode(".png", mm)[1].tobytes()}, None, 0),
    "16-bit tiff": (lambda mm: {"bytes": cv2.imencode(".tiff", mm)[1].tobytes()}, "mm", 0),
    "float tiff in metres": (
        lambda mm: {"bytes": cv2.imencode(".tiff", (mm / 1000).astype(np.float32))[1].tobytes()},
        "m",
        0,
    ),
    "float tiff in millimetres": (
        lambda mm: {"bytes": cv2.imencode(".tiff", mm.astype(np.float32))[1].tobytes()},
        "mm",
        0,
    ),
    "arrays": (lambda mm: mm.tolist(), "mm", 0),
    "arrays with a channel": (lambda mm: mm[..., None].tolist(), "mm", 0),
    "arrays in metres": (lambda mm: (mm / 1000).tolist(), "m", 0),
    "not finite": (lambda mm: np.where(mm == 0, np.nan, mm / 1000).tolist(), None, 0),
}


@pytest.mark.parametrize("form", DEPTHS)
def test_depth_in_the_rows(tmp_path: Path, form: str) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    both = foreign(theirs, "v2.1")
    write, unit, _ = DEPTHS[form]
    info = json.loads((theirs / INFO).read_text())
    info["features"]["cam_depth"]["info"] = {"is_depth_map": True} | ({"depth_unit": unit} if unit else {})
    edit_info(theirs, features=info["features"])
    exact = [np.rint(steps.depth[:, 0].astype(np.float64) * 1000).astype(np.uint16) for steps in both]
    for number, images in enumerate(exact):
        edit_table(theirs / V2_ROWS.format(number), with_column("cam_depth", [write(image) for image in images]))
    assert imported(theirs, ours) == (2, [], [])
    for number, images in enumerate(exact):
        (camera,) = read_track(ours, key_of(number)).cameras
        read = read_frames(known(camera.depth_mm_path), range(len(images)), "gray16le")
        np.testing.assert_array_equal(read, images)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (
            {"bytes": cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes()},
            r"an image of uint8 \(4, 4\), an image",
        ),
        ({"bytes": cv2.imencode(".png", np.zeros((4, 4, 3), np.uint16))[1].tobytes()}, r"uint16 \(4, 4, 3\), an image"),
        ([[70000, 1], [2, 3]], "depth must lie between 0 and 65535 mm, got 1 to 70000"),
        ([[-1, 1], [2, 3]], "depth must lie between 0 and 65535 mm, got -1 to 3"),
        (None, "the rows hold no image, an image of uint16 or float32 is needed"),
    ],
)
def test_depth_that_is_not_exact_is_named(tmp_path: Path, image: Any, reason: str) -> None:
    theirs = tmp_path / "theirs"
    foreign(theirs, "v2.1")
    edit_table(theirs / V2_ROWS.format(1), with_column("cam_depth", [image] * 13))
    count, broken, _ = imported(theirs, tmp_path / "ours")
    assert count == 1
    assert re.search(f"episode 1: .*{reason}", broken[0].reason)


@pytest.mark.parametrize(
    ("feature", "details", "reason"),
    [
        ("cam", {"is_depth_map": True}, "uses 'cam' as RGB; .* marks it as depth"),
        ("cam_depth", {"depth_unit": "cm"}, "'cam_depth' has the unit 'cm' in .*; mm or m is needed"),
    ],
)
def test_features_that_are_something_else(tmp_path: Path, feature: str, details: Any, reason: str) -> None:
    foreign(tmp_path, "v2.1")
    info = json.loads((tmp_path / INFO).read_text())
    info["features"][feature]["info"] = details
    edit_info(tmp_path, features=info["features"])
    with pytest.raises(DataSetError, match=reason):
        open_lerobot(tmp_path, tmp_path / "map.json")


# ---- times


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
    assert imported(theirs, ours) == (2, [], [])
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
    "not unit": ({"columns": [0, 1, 2, 3], "rotation": "quat_xyzw"}, "quaternions have lengths from .*are the columns"),
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


# ---- odd episodes


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
