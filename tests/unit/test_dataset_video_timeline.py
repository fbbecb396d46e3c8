"""Frames by their numbers in order of presentation: rates, gaps, B-frames, edit lists, containers, cut-off files.

In: small files whose images tell their numbers. Out: the right image for every number, or an error that names the file.
Read next: `evalkit/dataset/video_timeline.py`, `evalkit/dataset/videos.py`.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from evalkit.dataset.videos import UnreadableVideo, decode, frames_in_order, probe, read_frames, write_video
from tests.doubles.video_files import numbered, numbers_in, write_planes

COUNT = 40
LONG_GOP = {"bf": "3", "b_strategy": "0", "x264-params": "scenecut=0"}


def check_all(path: Path, count: int = COUNT) -> None:
    """Assert that every way of reading gives each frame of a numbered video."""
    assert probe(path).num_frames == count
    in_order = np.stack(list(frames_in_order(path)))
    assert numbers_in(in_order) == list(range(count))
    for number in range(count):
        np.testing.assert_array_equal(read_frames(path, [number])[0], in_order[number])
    drawn = np.random.default_rng(0).integers(0, count, 12)
    np.testing.assert_array_equal(read_frames(path, drawn.tolist()), in_order[drawn])
    for first in (0, count // 2):
        decode(path, range(first, count))


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("libx264", "mp4", LONG_GOP),
        ("libx264", "mkv", LONG_GOP),
        ("libx264", "mov", LONG_GOP),
        ("libx264", "ts", LONG_GOP),
        ("libx264", "avi", {"bf": "0"}),
        ("libx264", "avi", LONG_GOP),
        ("libx264", "avi", LONG_GOP | {"x264-params": "bframes=3:b-pyramid=normal:scenecut=0:keyint=8"}),
        ("libx264", "mp4", LONG_GOP | {"x264-params": "open-gop=1:bframes=3:scenecut=0:keyint=8:min-keyint=8"}),
        ("libx264", "mp4", {"x264-params": "intra-refresh=1:keyint=10:bframes=0"}),
        ("libx265", "mp4", {"x265-params": "lossless=1:bframes=4:keyint=12:open-gop=1:log-level=error:pools=1"}),
        ("libvpx-vp9", "webm", {"lag-in-frames": "16", "auto-alt-ref": "1", "cpu-used": "8"}),
        ("libvpx", "webm", {"lag-in-frames": "16", "auto-alt-ref": "1", "crf": "4", "b": "2M", "cpu-used": "8"}),
        ("libsvtav1", "mp4", {"crf": "5", "preset": "12"}),
        ("mpeg4", "avi", {"bf": "2", "qmin": "1", "qmax": "1"}),
        ("mpeg4", "mp4", {"bf": "2", "qmin": "1", "qmax": "1"}),
        ("mpeg2video", "ts", {"bf": "2", "qmin": "1", "qmax": "1"}),
        ("ffv1", "mkv", {}),
    ],
)
def test_every_number_gives_its_frame(tmp_path: Path, codec: str, suffix: str, options: dict[str, str]) -> None:
    fps = 25 if codec == "mpeg2video" else 10
    frames = numbered(COUNT, (64, 64))
    check_all(write_planes(tmp_path / f"a.{suffix}", frames, "yuv420p", codec=codec, options=options, fps=fps))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize("gap_at", [None, 1, 20, COUNT - 1])
def test_gaps_and_late_starts_change_no_number(tmp_path: Path, suffix: str, first: int, gap_at: int | None) -> None:
    ticks = [first + number + (3 if gap_at is not None and number >= gap_at else 0) for number in range(COUNT)]
    path = tmp_path / f"a.{suffix}"
    write_planes(path, numbered(COUNT), "yuv420p", codec="libx264", ticks=ticks, options=LONG_GOP)
    check_all(path)
    info = probe(path)
    assert info.first_uneven == gap_at
    np.testing.assert_allclose(np.diff(info.times_s), np.diff(ticks) / 10, atol=1e-3)
    if gap_at is None:
        assert info.fps == 10
    else:
        assert info.notes == (
            f"Its rate varies: frame {gap_at} comes 0.4000 s after the one before, 0.1000 s is usual.",
        )


@pytest.mark.parametrize(("fps", "suffix"), [(30, "mkv"), (24, "mkv"), (15, "webm"), (30, "mp4"), (60, "mkv")])
def test_rounded_times_are_a_constant_rate(tmp_path: Path, fps: int, suffix: str) -> None:
    codec = "libvpx-vp9" if suffix == "webm" else "libx264"
    info = probe(write_planes(tmp_path / f"a.{suffix}", numbered(COUNT), "yuv420p", codec=codec, fps=fps))
    assert info.fps == fps
    assert not info.is_vfr


def test_times_that_jitter_are_a_variable_rate(tmp_path: Path) -> None:
    ticks = (np.arange(COUNT) * 33 + np.random.default_rng(0).integers(-8, 9, COUNT)).tolist()
    path = write_planes(tmp_path / "a.mkv", numbered(COUNT), "yuv420p", codec="libx264", ticks=ticks, fps=1000)
    check_all(path)
    assert probe(path).is_vfr
    assert probe(path).fps == Fraction((COUNT - 1) * 1000, ticks[-1] - ticks[0])


def test_frames_that_an_edit_list_hides_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_planes(path, numbered(COUNT), "yuv420p", codec="libx264", options={"bf": "0"}, gop_size=8, ticks=range(COUNT))
    data = bytearray(path.read_bytes())
    edit = data.find(b"elst") + 12  # after the version and the number of edits
    duration, _ = struct.unpack(">Ii", data[edit : edit + 8])
    timescale = struct.unpack(">I", data[data.find(b"mdhd") + 16 :][:4])[0]
    hidden = 11
    data[edit : edit + 8] = struct.pack(">Ii", duration * (COUNT - hidden) // COUNT, hidden * timescale // 10)
    path.write_bytes(data)
    assert probe(path).num_frames == COUNT - hidden
    in_order = np.stack(list(frames_in_order(path)))
    assert numbers_in(in_order) == list(range(hidden, COUNT))
    for number in range(COUNT - hidden):
        np.testing.assert_array_equal(read_frames(path, [number])[0], in_order[number])


def test_streams_without_times_are_counted(tmp_path: Path) -> None:
    write_planes(tmp_path / "a.mp4", numbered(COUNT), "yuv420p", codec="libx264", options=LONG_GOP)
    with av.open(str(tmp_path / "a.mp4")) as source, (tmp_path / "raw.h264").open("wb") as raw:
        stream = source.streams.video[0]
        to_annex_b = av.BitStreamFilterContext("h264_mp4toannexb", stream)
        for packet in source.demux(stream):
            for part in to_annex_b.filter(packet if packet.size else None):
                raw.write(bytes(part))
    check_all(tmp_path / "raw.h264")
    assert np.isnan(probe(tmp_path / "raw.h264").times_s).all()


@pytest.mark.parametrize("ticks", [[0, 1, 1, 2, 3], [0, 0, 0, 0, 0], [0, 1, 2, 2, 2]])
def test_times_that_occur_twice_are_counted(tmp_path: Path, ticks: list[int]) -> None:
    check_all(write_planes(tmp_path / "a.mkv", numbered(5), "yuv420p", ticks=ticks), 5)


def test_times_below_zero_change_no_number(tmp_path: Path) -> None:
    """An mp4 hides what comes before zero; the other formats move all times."""
    for suffix, hidden in (("mkv", 0), ("ts", 0), ("mp4", 7)):
        path = tmp_path / f"a.{suffix}"
        ticks = range(-7, COUNT - 7)
        write_planes(path, numbered(COUNT), "yuv420p", codec="libx264", ticks=ticks, options=LONG_GOP)
        assert numbers_in(np.stack(list(frames_in_order(path)))) == list(range(hidden, COUNT))
        assert numbers_in(read_frames(path, range(COUNT - hidden))) == list(range(hidden, COUNT))


@pytest.mark.parametrize("hw_px", [(16, 16_500), (20_000, 16)])
def test_sizes_that_cannot_be_written_get_a_sentence(tmp_path: Path, hw_px: tuple[int, int]) -> None:
    frames = np.zeros((1, *hw_px, 3), np.uint8)
    with pytest.raises(ValueError, match=rf"a\.mp4: libx264rgb does not encode images of {hw_px[0]} x {hw_px[1]}"):
        write_video(tmp_path / "a.mp4", frames, fps=5)
    assert list(tmp_path.iterdir()) == []


def test_two_streams_in_one_file_are_named(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        streams = [container.add_stream("ffv1", rate=5) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 48, 32, "gray"
        for grey, stream in zip((50, 200), streams, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48), grey, np.uint8), format="gray")
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    assert probe(tmp_path / "a.mkv").notes == ("It holds 2 video streams; the first one is read.",)
    assert read_frames(tmp_path / "a.mkv", [0])[0, 0, 0, 0] == 50


def test_images_of_several_sizes_are_refused(tmp_path: Path) -> None:
    parts = []
    for size in ((32, 48), (48, 64)):
        path = write_planes(tmp_path / f"{size[0]}.h264", numbered(2, size), "yuv420p", codec="libx264")
        parts.append(path.read_bytes())
    (tmp_path / "a.h264").write_bytes(b"".join(parts))
    with pytest.raises(UnreadableVideo, match=r"several sizes: \(32, 48\) and \(48, 64\)"):
        read_frames(tmp_path / "a.h264", range(4))


def test_an_unknown_codec_is_named(tmp_path: Path) -> None:
    path = write_planes(tmp_path / "a.mkv", numbered(2), "yuv420p")
    path.write_bytes(path.read_bytes().replace(b"V_FFV1", b"V_NONE"))
    with pytest.raises(UnreadableVideo, match=r"a\.mkv is missing or broken: its codec is unknown here"):
        probe(path)


def test_a_missing_frame_is_named_with_the_count(tmp_path: Path) -> None:
    path = write_planes(tmp_path / "a.mp4", numbered(5), "yuv420p", codec="libx264")
    with pytest.raises(UnreadableVideo, match=r"a\.mp4 has no frame 5; it holds 5 frames\."):
        read_frames(path, [1, 5])
    with pytest.raises(UnreadableVideo, match="has no frame -1"):
        read_frames(path, [-1])


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    for count in (5, 9):
        write_planes(path, numbered(count), "yuv420p", codec="libx264")
        assert probe(path).num_frames == count


def test_a_file_that_ends_early_gives_what_it_has(tmp_path: Path) -> None:
    path = write_planes(tmp_path / "a.mkv", numbered(COUNT, (64, 64)), "yuv420p", codec="ffv1")
    path.write_bytes(path.read_bytes()[:-3000])
    images, reader = list[np.ndarray](), frames_in_order(path)
    with pytest.raises(UnreadableVideo, match=r"cut off after \d+ frames"):
        images.extend(reader)
    assert 10 < len(images) < COUNT
    assert numbers_in(np.stack(images)) == list(range(len(images)))


def test_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for name in ("text.mp4", "sound.mp4", "none.mp4"):
        with pytest.raises(UnreadableVideo, match=f"{name} is missing or broken"):
            probe(tmp_path / name)
