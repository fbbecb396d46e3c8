"""Data sets on which an import once failed, or gave wrong frames or prompts; each gives the right ones, or is refused.

In: archives in `faults/data` of the shared folder; without it, these tests are skipped. Out: a verdict on each import.
Read next: `test_dataset_lerobot_import.py`, which checks the same kinds on small data sets of our own.
"""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from evalkit.dataset.layout import DataSetError, Track, scan, tracks
from evalkit.dataset.lerobot_import import Imported, import_episodes
from evalkit.dataset.lerobot_read import open_lerobot
from evalkit.dataset.videos import read_frames
from tests.doubles.known import known

DATA = Path(os.environ.get("EVALKIT_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "faults" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}; set EVALKIT_SHARED")


def unpacked(tmp_path: Path, name: str) -> Path:
    with tarfile.open(DATA / f"lerobot{name}.tgz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def imported(theirs: Path, feature_map: Path, ours: Path) -> tuple[Imported, list[Track]]:
    result = import_episodes(open_lerobot(theirs, feature_map), ours)
    assert result.broken == []
    assert scan(ours, decoded=True).broken == []
    return result, list(tracks(ours))


def images_of(track: Track, camera: int = 0) -> np.ndarray:
    view = track.cameras[camera]
    return read_frames(view.rgb_path, range(view.start, view.start + track.num_frames))


def assert_in_sequence(found: list[Track], videos: dict[int, Path]) -> None:
    """Check that episodes show the frames of their video, one after the other; a number is an episode's place."""
    path, first = videos[0], 0
    for place, track in enumerate(found):
        if place in videos:
            path, first = videos[place], 0
        expected = read_frames(path, range(first, first + track.num_frames))
        np.testing.assert_array_equal(images_of(track), expected, err_msg=track.key)
        first += track.num_frames


def test_two_sets_in_one_folder(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, "_two_sets_one_folder")
    feature_map, sets = folder / "map2.json", folder / "lr"
    imported(sets / "many", feature_map, tmp_path / "ours")
    with pytest.raises(DataSetError, match="already holds episodes that come from"):
        imported(sets / "B", feature_map, tmp_path / "ours")
    _, found = imported(sets / "B", feature_map, tmp_path / "other")
    assert len(found) == 60
    assert_in_sequence(found, {0: sets / "B/videos/observation.images.front/chunk-000/file-000.mp4"})


def test_a_quality_label_is_no_prompt(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, "_v20_quality_label")
    _, found = imported(folder / "gr00t_valid", folder / "map_gr00t.json", tmp_path / "ours")
    colours = ("red", "blue")
    assert [track.instructions for track in found] == [(f"put the {colour} block into the bowl",) for colour in colours]


def test_rows_without_frame_index(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, "_v20_no_frame_index")
    theirs = folder / "gr00t_no_frame_index"
    _, found = imported(theirs, folder / "map_gr00t.json", tmp_path / "ours")
    assert [track.num_frames for track in found] == [16, 20]
    videos = sorted((theirs / "videos").rglob("*.mp4"))
    assert_in_sequence(found, dict(enumerate(videos)))


def test_a_variable_frame_rate(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, "_v21_vfr_video")
    result, (track,) = imported(folder / "vfr21", folder / "map1.json", tmp_path / "ours")
    assert "its row 20 is at 0.6667 s, and the nearest video frame 19 is at 0.6333 s" in result.notes[0]
    (video,) = (folder / "vfr21").rglob("*.mp4")
    with av.open(str(video)) as container:
        grey = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]).astype(float)
    luma = images_of(track) @ [0.299, 0.587, 0.114]
    apart = np.abs(luma[:, None] - grey[None]).mean((2, 3))
    assert apart.shape == (100, 100)
    np.testing.assert_array_equal(apart.argmin(axis=1), np.arange(100))


@pytest.mark.parametrize("variant", ["v2401", "vcols", "vfloat"])
def test_metadata_variants(tmp_path: Path, variant: str) -> None:
    folder = unpacked(tmp_path, "_v30_metadata_variants")
    theirs = folder / "lr" / variant
    _, found = imported(theirs, folder / "map1.json", tmp_path / "ours")
    assert [track.num_frames for track in found] == [17, 14, 19, 1, 6]
    videos = sorted((theirs / "videos/observation.images.front").rglob("*.mp4"))
    assert_in_sequence(found, {0: videos[0], 4: videos[1]})


def test_tasks_of_single_frames(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, "_v30_per_frame_tasks")
    theirs = folder / "lr/images"
    _, found = imported(theirs, folder / "map1.json", tmp_path / "ours")
    rows = pq.read_table(theirs / "data/chunk-000/file-000.parquet")
    tasks = ("first half", "second half")
    seen = {(track.key, track.num_frames, *track.instructions) for track in found}
    assert seen == {
        ("chunk-0000/episode_0000000", 3, tasks[0]),
        ("chunk-0010/episode_0010000", 2, tasks[1]),
        ("chunk-0000/episode_0000001", 1, tasks[0]),
        ("chunk-0000/episode_0000002", 4, tasks[0]),
        ("chunk-0010/episode_0010002", 3, tasks[1]),
    }
    states = np.concatenate([track.proprio[:, :3] for track in sorted(found, key=lambda one: one.key[-4:])])
    expected = np.array(rows["observation.state"].to_pylist(), np.float32)[:, :3]
    np.testing.assert_array_equal(np.sort(states, axis=0), np.sort(expected, axis=0))


def test_images_as_arrays(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, "_images_array")
    theirs = folder / "img/array3d"
    _, (track,) = imported(theirs, folder / "map1.json", tmp_path / "ours")
    rows = pq.read_table(theirs / "data/chunk-000/episode_000000.parquet")
    np.testing.assert_array_equal(images_of(track), np.array(rows["observation.images.front"].to_pylist()))


def test_lerobots_own_depth_video(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, "061_depth_video")
    theirs, path = folder / "lerobot061_depth", folder / "lerobot061_depth_map.json"
    with pytest.raises(DataSetError, match="is LeRobot's own depth video of 12-bit codes"):
        open_lerobot(theirs, path)
    feature_map = json.loads(path.read_text())
    (view,) = feature_map["cameras"].values()
    view["depth_mm"] = view.pop("depth")
    path.write_text(json.dumps(feature_map))
    result, found = imported(theirs, path, tmp_path / "ours")
    assert "33.3 % of pixels have no depth or are nearer than 0.01 m" in result.notes[0]
    video = theirs / "videos/observation.images.front_depth/chunk-000/file-000.mp4"
    with av.open(str(video)) as container:
        planes = [
            np.frombuffer(memoryview(frame.planes[0]), "<u2").reshape(48, -1)[:, :64] for frame in _all(container)
        ]
    codes = np.stack(planes).astype(np.float64)
    metres = np.exp(codes / 4095 * (np.log(13.5) - np.log(3.51)) + np.log(3.51)) - 3.5  # as info.json states them
    first = 0
    for track in found:
        (camera,) = track.cameras
        exact = read_frames(known(camera.depth_mm_path), range(track.num_frames), "gray16le")
        rows = slice(first, first := first + track.num_frames)
        assert np.abs(exact - metres[rows] * 1000)[exact > 0].max() <= 0.51
        np.testing.assert_array_equal(exact == 0, codes[rows] == 0)


def _all(container: av.container.InputContainer) -> list[av.VideoFrame]:
    return sorted(container.decode(video=0), key=lambda frame: frame.pts or 0)
