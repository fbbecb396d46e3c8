"""LeRobot's format: what is exported comes back to the bit, foreign sets come by a map, what is broken is named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evalkit.dataset import lerobot_import
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.depth_video import depth_bytes
from evalkit.dataset.layout import DataSetError, read_track, scan
from evalkit.dataset.lerobot_export import export
from evalkit.dataset.lerobot_format import ACTION_NAMES, INFO, MAP, STATE_NAMES
from evalkit.dataset.lerobot_import import VERSIONS, import_episodes, open_lerobot
from evalkit.dataset.video_pixels import PixelFormat
from evalkit.dataset.videos import read_frames, write_video
from evalkit.dataset.writer import write_episode, write_metadata
from tests.doubles.known import known
from tests.doubles.recordings import RECORDING, cut_off, key_of, steps_of
from xwam import cli
from xwam.cli.data import import_lerobot


def there_and_back(root: Path, tmp_path: Path) -> Any:
    export(root, scan(root), tmp_path / "lerobot")
    return import_episodes(open_lerobot(tmp_path / "lerobot"), tmp_path / "back")


def assert_same(one: Any, two: Any) -> None:
    for name in ("proprio", "action", "trusted", "executed"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    assert (one.instructions, one.arms, one.raw, one.signature) == (two.instructions, two.arms, two.raw, two.signature)
    for camera, again in zip(one.cameras, two.cameras, strict=True):
        for name in ("name", "kind", "fps", "depth_range", "intrinsics", "T_base_cam"):
            assert getattr(camera, name) == getattr(again, name), f"{name} of {camera.name}"
        frames, same = (range(view.start, view.start + one.num_frames) for view in (camera, again))
        np.testing.assert_array_equal(read_frames(camera.rgb_path, frames), read_frames(again.rgb_path, same))


def with_matrices(steps: Any, seed: Any) -> Any:
    """Give the views of an episode matrices of its own, with numbers that float32 does not hold."""
    rng, (count, views) = np.random.default_rng(seed), steps.rgb.shape[:2]
    known = {"intrinsics": rng.normal(size=(views, 3, 3)), "T_base_cam": rng.normal(size=(views, 4, 4))}
    return replace(steps, **{name: np.repeat(one[None], count, axis=0) for name, one in known.items()})


@pytest.mark.parametrize(("layout", "arms"), [("osc_delta_base", ("left",)), ("ee_pose_base", ("left", "right"))])
def test_what_is_exported_comes_back(tmp_path: Path, layout: str, arms: tuple[str, ...]) -> None:
    data, trusted = tmp_path / "data", np.arange(12) % 3 > 0
    for index in (0, 7, 1003):
        steps = with_matrices(replace(steps_of(index, 12, arms), trusted=trusted), index)
        recording = replace(RECORDING, layout=layout, arms=arms)
        write_episode(
            data, index, steps, recording, instructions=["lift it", f"no. {index}"], about=EpisodeAbout(seed=index)
        )
    lengths = write_metadata(data)
    assert there_and_back(data, tmp_path) == (3, [])
    assert json.loads((tmp_path / "back" / "metadata.json").read_text()) == lengths
    for key in lengths:
        one, two = read_track(data, key), read_track(tmp_path / "back", key)
        assert_same(one, two)
        assert [view.intrinsics is not None for view in two.cameras] == [True, True]
        assert [view.T_base_cam is not None for view in two.cameras] == [True, False]  # of a static one alone
        for camera, again in zip(one.cameras, two.cameras, strict=True):
            exact = [read_frames(known(view.depth_mm_path), range(12), "gray16le") for view in (camera, again)]
            np.testing.assert_array_equal(exact[0], exact[1])
            grey = read_frames(known(again.depth_path), range(12))[..., 0]
            np.testing.assert_array_equal(grey, depth_bytes(exact[0] / 1000, RECORDING.depth_range))
        about = [
            json.loads((place / "data" / f"{key}.json").read_text())["about"] for place in (data, tmp_path / "back")
        ]
        assert about[0] == about[1]


def test_what_lerobots_loader_reads(root: Path, tmp_path: Path) -> None:
    tmp_path /= "lerobot"
    export(root, scan(root), tmp_path)
    info = json.loads((tmp_path / INFO).read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_frames"]) == ("v3.0", 20, 3, 120)
    assert info["features"]["observation.state"]["names"] == list(STATE_NAMES)
    assert info["features"]["action"]["names"] == list(ACTION_NAMES)
    steps, track = steps_of(1), read_track(root, key_of(1))
    rows = pq.read_table(tmp_path / "data" / "chunk-000" / "file-001.parquet")
    np.testing.assert_array_equal(np.array(rows["observation.state"].to_pylist(), np.float32), track.proprio)
    np.testing.assert_array_equal(np.array(rows["action"].to_pylist(), np.float32), steps.action)
    np.testing.assert_allclose(rows["timestamp"].to_numpy(), np.arange(40) / 20)
    assert rows["index"].to_pylist() == list(range(40, 80))
    for row in (0, 33):
        png = rows["observation.images.b_depth"][row].as_py()["bytes"]
        depth_mm = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
        assert depth_mm.dtype == np.uint16
        assert np.abs(depth_mm / 1000 - steps.depth[row, 1]).max() <= 0.5e-3 + 1e-6
    place = pq.read_table(tmp_path / "meta" / "episodes" / "chunk-000" / "file-000.parquet").to_pylist()[2]
    assert (place["dataset_from_index"], place["dataset_to_index"], place["tasks"]) == (
        80, 120, ["lift the cube", "pick it up"],
    )  # fmt: skip
    video = tmp_path / info["video_path"].format(
        video_key="observation.images.a",
        **{n: place[f"videos/observation.images.a/{n}"] for n in ("chunk_index", "file_index")},
    )
    np.testing.assert_array_equal(read_frames(video, [39])[0], steps_of(2).rgb[39, 0])
    tasks = pq.read_table(tmp_path / "meta" / "tasks.parquet").to_pandas()
    assert tasks.loc["pick it up"].task_index == 1
    stats = json.loads((tmp_path / "meta" / "stats.json").read_text())
    held = np.concatenate([steps_of(index).action for index in range(3)])
    np.testing.assert_allclose(stats["action"]["std"], held.std(0), atol=1e-6)
    np.testing.assert_allclose(stats["action"]["max"], held.max(0), atol=1e-6)
    frames = np.stack([steps_of(index).rgb[20, 0] for index in range(3)]) / 255
    np.testing.assert_allclose(
        np.array(stats["observation.images.a"]["mean"])[:, 0, 0], frames.mean((0, 1, 2)), atol=1e-6
    )


def test_released_videos_keep_offset_and_unknown_depth(root: Path, tmp_path: Path) -> None:
    (root / "data" / f"{key_of(2)}.json").unlink()
    for number in range(2):
        path = root / "data" / f"{key_of(number)}.json"
        content = json.loads(path.read_text())
        content["num_frames"] = 30
        for part in ("proprios", "actions"):
            content[part] = {name: rows[:30] for name, rows in content[part].items()}
        for view in content["observations"].values():
            view |= {"start": 7, "end": 37}
            del view["depth_mm_path"], view["depth_range"]
        path.write_text(json.dumps(content))
    write_metadata(root)
    assert there_and_back(root, tmp_path) == (2, [])
    for number in range(2):
        one, two = (read_track(place, key_of(number)) for place in (root, tmp_path / "back"))
        assert_same(one, two)
        assert two.cameras[0].start == 7
        depths = [read_frames(known(track.cameras[1].depth_path), range(7, 37)) for track in (one, two)]
    np.testing.assert_array_equal(depths[0], depths[1])


@pytest.mark.parametrize("start", [0, 7])
def test_exact_depth_survives_an_unknown_8_bit_map(root: Path, tmp_path: Path, start: int) -> None:
    path = root / "data" / f"{key_of(0)}.json"
    content = json.loads(path.read_text()) | {"num_frames": 30}
    for part in ("proprios", "actions"):
        content[part] = {name: rows[:30] for name, rows in content[part].items()}
    for view in content["observations"].values():
        view |= {"start": start, "end": start + 30}
        del view["depth_range"]
    path.write_text(json.dumps(content))
    (root / "metadata.json").write_text(json.dumps({key_of(0): 30}))
    assert there_and_back(root, tmp_path) == (1, [])
    one, two = (read_track(place, key_of(0)) for place in (root, tmp_path / "back"))
    assert_same(one, two)
    for camera, again in zip(one.cameras, two.cameras, strict=True):
        frames, same = (range(view.start, view.start + 30) for view in (camera, again))
        kinds: tuple[tuple[str, PixelFormat], ...] = (("depth_path", "rgb24"), ("depth_mm_path", "gray16le"))
        for kind, pixels in kinds:
            held = read_frames(getattr(camera, kind), frames, pixels)
            np.testing.assert_array_equal(held, read_frames(getattr(again, kind), same, pixels))


def test_an_export_goes_on_and_keeps_to_itself(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    export(root, scan(root), whole)
    calls = []

    def stop_after_two() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(root, scan(root), out, on_episode=stop_after_two)
    assert not (out / INFO).exists()
    written = (out / "data" / "chunk-000" / "file-000.parquet").stat().st_mtime_ns
    export(root, scan(root), out)
    assert (out / "data" / "chunk-000" / "file-000.parquet").stat().st_mtime_ns == written
    same = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert all((out / path).read_bytes() == (whole / path).read_bytes() for path in same)
    with pytest.raises(DataSetError, match="already holds a complete data set"):
        export(root, scan(root), out)
    (out / INFO).unlink()
    (root / "metadata.json").write_text(json.dumps({key_of(0): 40}))
    with pytest.raises(DataSetError, match="part of an export of other data"):
        export(root, scan(root), out)
    with pytest.raises(DataSetError, match="is not empty and not an export"):
        export(root, scan(root), root)


def test_episodes_that_differ_are_not_exported_together(root: Path, tmp_path: Path) -> None:
    views = (RECORDING.views[0], replace(RECORDING.views[1], name="c"))
    for index in range(3, 6):
        write_episode(root, index, steps_of(index), replace(RECORDING, views=views), instructions=["x"])
    write_metadata(root)
    with pytest.raises(
        DataSetError, match=rf"{key_of(3)} has the cameras \['a', 'c'\], the first episode has \['a', 'b'\]"
    ):
        export(root, scan(root), tmp_path / "out")


def test_odd_rates_and_missing_cameras_are_not_exported(root: Path, tmp_path: Path) -> None:
    write_episode(root, 3, steps_of(3), replace(RECORDING, control_hz=10.0), instructions=["x"])
    write_metadata(root)
    with pytest.raises(DataSetError, match=f"up to {key_of(3)} they have 10 Hz and 20 Hz"):
        export(root, scan(root), tmp_path / "out")
    path = root / "data" / f"{key_of(3)}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"observations": {}}))
    (root / "metadata.json").write_text(json.dumps({key_of(3): 40}))
    with pytest.raises(DataSetError, match="none, because there is no camera"):
        export(root, scan(root), tmp_path / "other")


# ---- data sets of others

FOREIGN_MAP = {
    "cameras": {"0_front": {"kind": "static", "rgb": "cam", "depth_mm": "cam_depth"}},
    "proprios": {
        "left_ee_pos": {"feature": "state", "columns": [0, 1, 2]},
        "left_ee_rotm": {"feature": "state", "columns": [3, 4, 5, 6], "rotation": "quat_xyzw"},
        "left_gripper_pos": {"feature": "state", "columns": [7]},
    },
    "actions": {"raw_actions": "act"},
}


def foreign(folder: Path, version: Any, *, shared: Any = True) -> Any:
    """Write a data set as another tool would: with depth in the rows, and in v3.0 two episodes in one video."""
    both = [steps_of(index, count=12 + index) for index in range(2)]
    state = [
        np.hstack([s.proprio[:, :3], s.proprio[:, [4, 5, 6, 3]], s.proprio[:, 7:8]]).astype(np.float32) for s in both
    ]
    tables, episodes, done = [], [], 0
    for number, steps in enumerate(both):
        count = len(steps.rgb)
        images = [
            cv2.imencode(".png", np.rint(frame[0] * 1000).astype(np.uint16))[1].tobytes() for frame in steps.depth
        ]
        tables.append(
            pa.table(
                {
                    "state": list(state[number]),
                    "act": list(steps.action[:, :7]),
                    "cam_depth": [{"bytes": image, "path": "x.png"} for image in images],
                    "frame_index": list(range(count)),
                    "episode_index": [number] * count,
                }
            )
        )
        place = {"chunk_index": 0, "file_index": 0}
        row = {"episode_index": number, "tasks": [f"task {number}"], "length": count}
        row |= {f"{part}/{name}": value for part in ("data", "videos/cam") for name, value in place.items()}
        episodes.append({**row, "videos/cam/from_timestamp": done / 20, "stats/act/min": [0.0]})
        done += count
    info = {"codebase_version": version, "fps": 20, "chunks_size": 1000}
    info["features"] = {name: {"dtype": "float32"} for name in ("state", "act")}
    info["features"] |= {"cam": {"dtype": "video"}, "cam_depth": {"dtype": "image", "info": {"is_depth_map": True}}}
    for part in ("meta/episodes/chunk-000", "data/chunk-000"):
        (folder / part).mkdir(parents=True)
    if version == "v3.0":
        info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        pq.write_table(pa.concat_tables(tables), folder / "data/chunk-000/file-000.parquet")
        pq.write_table(pa.Table.from_pylist(episodes), folder / "meta/episodes/chunk-000/file-000.parquet")
        rgb = np.concatenate([steps.rgb[:, 0] for steps in both])
        write_video(folder / "videos/cam/chunk-000/file-000.mp4", rgb, fps=20)
    else:
        info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
        info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
        lines = [{name: row[name] for name in ("episode_index", "tasks", "length")} for row in episodes]
        (folder / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for number, (table, steps) in enumerate(zip(tables, both, strict=True)):
            pq.write_table(table, folder / f"data/chunk-000/episode_{number:06d}.parquet")
            write_video(folder / f"videos/chunk-000/cam/episode_{number:06d}.mp4", steps.rgb[:, 0], fps=20)
    (folder / INFO).write_text(json.dumps(info))
    (folder / "map.json").write_text(json.dumps(FOREIGN_MAP))
    return both


@pytest.mark.parametrize("exact", [True, False], ids=["depth", "colour alone"])
@pytest.mark.parametrize("version", VERSIONS)
def test_anyones_data_set_comes_by_a_map(tmp_path: Path, version: str, exact: bool) -> None:
    both = foreign(tmp_path / "theirs", version)
    if not exact:
        without = {"0_front": {"kind": "static", "rgb": "cam"}}
        (tmp_path / "theirs" / "map.json").write_text(json.dumps({**FOREIGN_MAP, "cameras": without}))
    opened = open_lerobot(tmp_path / "theirs", tmp_path / "theirs" / "map.json")
    assert import_episodes(opened, tmp_path / "ours") == (2, [])
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
    count, broken = import_episodes(open_lerobot(theirs, theirs / "map.json"), tmp_path / "ours")
    assert count == 0
    assert [one.key for one in broken] == [key_of(0), key_of(1)]
    assert "episode_0000000.mp4 is missing or broken" in broken[0].reason
    assert "episode_000001.parquet has 5 rows of it, 13 are needed" in broken[1].reason
    images = [{"bytes": b"no image", "path": ""}] * rows.num_rows
    spoilt = rows.set_column(rows.column_names.index("cam_depth"), "cam_depth", pa.array(images))
    pq.write_table(spoilt, theirs / "data/chunk-000/episode_000001.parquet")
    _, broken = import_episodes(open_lerobot(theirs, theirs / "map.json"), tmp_path / "ours")
    assert "the rows hold no image, an image of uint16 is needed" in broken[1].reason
    foreign(tmp_path / "repaired", "v2.1")
    count, broken = import_episodes(open_lerobot(tmp_path / "repaired", theirs / "map.json"), tmp_path / "ours")
    assert (count, broken) == (2, [])


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
    info = {**json.loads((tmp_path / INFO).read_text()), **change}
    (tmp_path / INFO).write_text(json.dumps({name: value for name, value in info.items() if value is not None}))
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


def test_the_commands(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut_off(root / "video" / "a" / f"{key_of(1)}.mp4")
    assert cli.main(["export-lerobot", str(root), str(tmp_path / "l")]) == 0
    assert "2 episodes, 80 frames; 1 left out" in capsys.readouterr().out
    assert cli.main(["import-lerobot", str(tmp_path / "l"), str(tmp_path / "back")]) == 0
    assert "2 episodes; 0 broken episodes left out" in capsys.readouterr().out
    assert scan(tmp_path / "back").lengths == {key_of(0): 40, key_of(2): 40}
    (tmp_path / "l" / MAP).unlink()
    shutil.rmtree(tmp_path / "back")
    assert cli.main(["import-lerobot", str(tmp_path / "l"), str(tmp_path / "back")]) == 2
    assert "is not one of our exports, so it needs a map of its features" in capsys.readouterr().err
