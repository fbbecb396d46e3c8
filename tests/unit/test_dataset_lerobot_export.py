"""Exports to LeRobot's format: videos shared as in the source, facts as they are, changed sources written again.

In: small data sets, some of them imported from others. Out: a verdict on files, `info.json` and frames.
Read next: `evalkit/dataset/lerobot_export.py`, `evalkit/dataset/lerobot_videos.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from evalkit.dataset.layout import DataSetError, read_track, scan
from evalkit.dataset.lerobot_export import export
from evalkit.dataset.lerobot_format import INFO
from evalkit.dataset.lerobot_import import import_episodes
from evalkit.dataset.lerobot_read import open_lerobot
from evalkit.dataset.lerobot_videos import VideoCodec, codec_named
from evalkit.dataset.videos import read_frames, write_video
from tests.doubles.foreign_sets import V2_ROWS, edit_table, foreign, with_column
from tests.doubles.recordings import STEPS, key_of, steps_of, write_data

RGB = "observation.images.0_front"


def episodes_of(folder: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist())


def shared(tmp_path: Path) -> Path:
    """Return a data set whose two episodes are in one video."""
    foreign(tmp_path / "theirs", "v3.0", depth=False)
    import_episodes(open_lerobot(tmp_path / "theirs", tmp_path / "theirs" / "map.json"), tmp_path / "ours")
    return tmp_path / "ours"


def test_a_shared_video_is_copied_once(tmp_path: Path) -> None:
    ours, out = shared(tmp_path), tmp_path / "out"
    export(ours, scan(ours), out)
    (video,) = (out / "videos").rglob("*.mp4")
    assert video.read_bytes() == (tmp_path / "theirs/videos/cam/chunk-000/file-000.mp4").read_bytes()
    times = [(row[f"videos/{RGB}/from_timestamp"], row[f"videos/{RGB}/to_timestamp"]) for row in episodes_of(out)]
    np.testing.assert_allclose(times, [(0, 12 / 20), (12 / 20, 25 / 20)])
    result = import_episodes(open_lerobot(out), tmp_path / "again")
    assert result == (2, [], [])
    for number in range(2):
        track = read_track(tmp_path / "again", key_of(number))
        frames = range(track.cameras[0].start, track.cameras[0].start + track.num_frames)
        np.testing.assert_array_equal(
            read_frames(track.cameras[0].rgb_path, frames), steps_of(number, count=12 + number).rgb[:, 0]
        )


@pytest.mark.parametrize("codec", ["copy", "hevc", "h264", "av1"])
def test_info_states_what_the_files_are(root: Path, tmp_path: Path, codec: VideoCodec) -> None:
    export(root, scan(root), tmp_path / "out", codec=codec)
    info = json.loads((tmp_path / "out" / INFO).read_text())["features"]["observation.images.a"]
    for path in (tmp_path / "out/videos/observation.images.a").rglob("*.mp4"):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stated = info["info"]
            assert stated["video.codec"] == stream.codec_context.codec.canonical_name
            assert stated["video.pix_fmt"] == stream.pix_fmt
            assert (stated["video.height"], stated["video.width"]) == (stream.height, stream.width)
            assert stated["video.fps"] == stream.average_rate == 20
            assert info["shape"] == [stream.height, stream.width, 3]
    track = read_track(root, key_of(1))
    ours = read_frames(track.cameras[0].rgb_path, range(STEPS)).astype(int)
    theirs = read_frames(tmp_path / "out/videos/observation.images.a/chunk-000/file-001.mp4", range(STEPS))
    if codec in ("copy", "hevc"):
        np.testing.assert_array_equal(theirs, ours)
    else:
        assert abs((theirs - ours).mean()) < 1  # noise loses its details, and keeps its mean


def test_imported_videos_keep_their_codec(tmp_path: Path) -> None:
    ours = shared(tmp_path)
    (video,) = (ours / "video").rglob("*.mp4")
    with av.open(str(video), "w") as container:
        stream: Any = container.add_stream("libsvtav1", rate=20)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for _ in range(25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    export(ours, scan(ours), tmp_path / "out")
    info = json.loads((tmp_path / "out" / INFO).read_text())["features"][RGB]["info"]
    assert (info["video.codec"], info["video.pix_fmt"]) == ("av1", "yuv420p")


def test_a_video_of_another_rate_is_written_again(tmp_path: Path) -> None:
    ours = shared(tmp_path)
    (video,) = (ours / "video").rglob("*.mp4")
    images = read_frames(video, range(25))
    write_video(video, images, fps=30)
    export(ours, scan(ours), tmp_path / "out")
    assert len(list((tmp_path / "out/videos").rglob("*.mp4"))) == 2
    for number, row in enumerate(episodes_of(tmp_path / "out")):
        assert row[f"videos/{RGB}/from_timestamp"] == 0
        path = tmp_path / f"out/videos/{RGB}/chunk-000/file-00{number}.mp4"
        with av.open(str(path)) as container:
            times = sorted(frame.time or 0.0 for frame in container.decode(video=0))
        np.testing.assert_allclose(times, np.arange(12 + number) / 20, atol=1e-4)
        np.testing.assert_array_equal(read_frames(path, range(12 + number)), images[12 * number :][: 12 + number])


def test_a_source_that_changes_while_stopped_is_written_again(root: Path, tmp_path: Path) -> None:
    calls = []

    def stop_after_two() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(root, scan(root), tmp_path / "out", on_episode=stop_after_two)
    other = steps_of(77)
    write_video(root / "video" / "a" / f"{key_of(0)}.mp4", other.rgb[:, 0], fps=20)
    content = json.loads((root / "data" / f"{key_of(1)}.json").read_text())
    content["instructions"] = ["turn it"]
    (root / "data" / f"{key_of(1)}.json").write_text(json.dumps(content))
    export(root, scan(root), tmp_path / "out")
    import_episodes(open_lerobot(tmp_path / "out"), tmp_path / "again")
    track = read_track(tmp_path / "again", key_of(0))
    np.testing.assert_array_equal(read_frames(track.cameras[0].rgb_path, range(STEPS)), other.rgb[:, 0])
    assert read_track(tmp_path / "again", key_of(1)).instructions == ("turn it",)


def test_another_codec_does_not_continue_an_export(root: Path, tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(root, scan(root), tmp_path / "out", on_episode=stop)
    with pytest.raises(DataSetError, match="part of an export of other data"):
        export(root, scan(root), tmp_path / "out", codec="hevc")
    with pytest.raises(DataSetError, match="There is no video codec 'vp9'; copy, hevc, h264, av1 can be written"):
        codec_named("vp9")


def test_split_episodes_share_their_video(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    both = foreign(theirs, "v2.1", depth=False)
    edit_table(theirs / V2_ROWS.format(0), with_column("task_index", [0] * 5 + [1] * 7))
    import_episodes(open_lerobot(theirs, theirs / "map.json"), tmp_path / "ours")
    export(tmp_path / "ours", scan(tmp_path / "ours"), tmp_path / "out")
    assert len(list((tmp_path / "out/videos").rglob("*.mp4"))) == 2
    assert import_episodes(open_lerobot(tmp_path / "out"), tmp_path / "again") == (3, [], [])
    track = read_track(tmp_path / "again", "chunk-0010/episode_0010000")
    assert (track.instructions, track.cameras[0].start) == (("task 1",), 5)
    np.testing.assert_array_equal(read_frames(track.cameras[0].rgb_path, range(5, 12)), both[0].rgb[5:, 0])


def test_statistics_of_episodes_make_those_of_all(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    export(root, scan(root), tmp_path / "out")
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    rows = episodes_of(tmp_path / "out")
    for row, seed in zip(rows, range(3), strict=True):
        np.testing.assert_allclose(row["stats/action/mean"], steps_of(seed).action.mean(0), atol=1e-6)
        assert row["stats/action/count"] == [STEPS]
    np.testing.assert_allclose(stats["action"]["mean"], np.mean([row["stats/action/mean"] for row in rows], axis=0))
    assert np.shape(rows[0]["stats/observation.images.a/mean"]) == (3, 1, 1)


def damage(path: Path) -> None:
    """Overwrite all frames of a video but the first eight; its list of frames stays."""
    with av.open(str(path)) as container:
        places = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for start, size in places[8:]:
        content[start : start + size] = b"\xff" * size
    path.write_bytes(content)


@pytest.mark.parametrize("codec", ["copy", "hevc"])
@pytest.mark.parametrize("broken", [[0], [1], [2], [0, 2]])
def test_a_broken_episode_leaves_nothing_behind(tmp_path: Path, codec: VideoCodec, broken: list[int]) -> None:
    root = write_data(tmp_path / "data")
    for number in broken:
        content = json.loads((root / "data" / f"{key_of(number)}.json").read_text())
        content["instructions"] = [f"task {number}"]
        (root / "data" / f"{key_of(number)}.json").write_text(json.dumps(content))
        damage(root / "video" / "b" / f"{key_of(number)}.mp4")
    out = tmp_path / "out"
    written = export(root, scan(root), out, codec=codec)
    kept = [number for number in range(3) if number not in broken]
    assert (written.num_episodes, len(written.broken)) == (len(kept), len(broken))
    expected = [f"chunk-000/file-00{number}" for number in range(len(kept))]
    assert sorted(f"{path.parent.name}/{path.stem}" for path in (out / "data").rglob("*.parquet")) == expected
    for feature in (out / "videos").iterdir():
        assert sorted(f"{path.parent.name}/{path.stem}" for path in feature.rglob("*.mp4")) == expected
    assert not any("task " in task for task in pq.read_table(out / "meta/tasks.parquet")["task"].to_pylist())
    assert [row["xwam/key"] for row in episodes_of(out)] == [key_of(number) for number in kept]
    assert import_episodes(open_lerobot(out), tmp_path / "again") == (len(kept), [], [])
    assert export(root, scan(root), out, codec=codec) == written


def test_a_complete_export_is_left_as_it_is(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = export(root, scan(root), out)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*") if path.is_file()}
    assert export(root, scan(root), out) == written
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(DataSetError, match=r"complete export of other data, of .* before it changed, or with another"):
        export(root, scan(root), out, codec="hevc")
    write_video(root / "video" / "a" / f"{key_of(0)}.mp4", steps_of(77).rgb[:, 0], fps=20)
    with pytest.raises(DataSetError, match="remove it or give another folder"):
        export(root, scan(root), out)
