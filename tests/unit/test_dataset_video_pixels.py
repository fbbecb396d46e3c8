"""Decoded colours against a conversion in float64, over matrices, ranges, depths and layouts of chroma.

In: small files with known planes. Out: pixels within half a grey level.
Read next: `evalkit/dataset/video_pixels.py`, `evalkit/dataset/yuv.py`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from evalkit.dataset.videos import UnreadableVideo, probe, read_frames, write_video
from tests.doubles.video_files import FULL, LIMITED, expected_rgb, planes_of, set_display_matrix, write_planes

HW_PX = (24, 40)


def largest_and_mean(image: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    bias = (image - np.rint(expected)).mean(axis=(0, 1))
    return float(np.abs(image - expected).max()), float(np.abs(bias).max())


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p12le", "yuv420p12le"])
@pytest.mark.parametrize("matrix", [1, 2, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
def test_colours_are_those_of_float64(tmp_path: Path, pix_fmt: str, matrix: int, colour_range: int) -> None:
    planes = planes_of(pix_fmt, HW_PX)
    path = write_planes(tmp_path / "a.mkv", [planes], pix_fmt, matrix=matrix, colour_range=colour_range)
    bits = 12 if "12" in pix_fmt else 10 if "10" in pix_fmt else 8
    expected = expected_rgb(planes, bits=bits, matrix=matrix, full_range=colour_range == FULL)
    largest, mean = largest_and_mean(read_frames(path, [0])[0], expected)
    assert largest < 0.51
    assert mean < 0.05


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [
        ("libx264", "mp4", "yuv420p"),
        ("libx264", "mkv", "yuv444p"),
        ("libx264", "mp4", "yuv420p10le"),
        ("libx265", "mp4", "yuv420p"),
        ("libvpx-vp9", "webm", "yuv420p"),
    ],
)
@pytest.mark.parametrize(("matrix", "colour_range"), [(2, 0), (1, LIMITED), (6, FULL)])
def test_tags_of_the_stream_are_used(
    tmp_path: Path, codec: str, suffix: str, pix_fmt: str, matrix: int, colour_range: int
) -> None:
    planes = planes_of(pix_fmt, (32, 48))
    path = tmp_path / f"a.{suffix}"
    write_planes(path, [planes], pix_fmt, codec=codec, matrix=matrix, colour_range=colour_range)
    info = probe(path)
    bits = 10 if "10" in pix_fmt else 8
    assert (info.bits, info.full_range) == (bits, colour_range == FULL)
    assert info.matrix == ("BT.709" if matrix == 1 else "BT.601")
    expected = expected_rgb(planes, bits=bits, matrix=matrix, full_range=colour_range == FULL)
    assert np.abs(read_frames(path, [0])[0] - expected).max() < 0.51


@pytest.mark.parametrize("hw_px", [(23, 39), (17, 64)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv411p", "yuv410p"])
def test_odd_sizes_repeat_the_last_chroma(tmp_path: Path, hw_px: tuple[int, int], pix_fmt: str) -> None:
    down, across = {"yuv420p": (2, 2), "yuv422p": (1, 2), "yuv411p": (1, 4), "yuv410p": (4, 4)}[pix_fmt]
    flat = (-(-hw_px[0] // down), -(-hw_px[1] // across))
    planes = [planes_of("gray", hw_px)[0], np.full(flat, 90, np.uint8), np.full(flat, 170, np.uint8)]
    path = write_planes(tmp_path / "a.mkv", [planes], pix_fmt)
    wide = [planes[0], np.full(hw_px, 90), np.full(hw_px, 170)]
    assert np.abs(read_frames(path, [0])[0] - expected_rgb(wide, bits=8, matrix=2, full_range=False)).max() < 0.51


@pytest.mark.parametrize(("codec", "pix_fmt"), [("mjpeg", "yuvj420p"), ("mpeg1video", "yuv420p")])
def test_chroma_of_jpeg_and_mpeg1_lies_in_the_middle(tmp_path: Path, codec: str, pix_fmt: str) -> None:
    planes = planes_of(pix_fmt, (32, 48))
    planes[1][:] = 100 + 2 * np.arange(planes[1].shape[1], dtype=np.uint8)
    path = write_planes(tmp_path / "a.mkv", [planes], pix_fmt, codec=codec, fps=25, options={"q": "1"})
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        decoded = [
            np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
            for plane in frame.planes
        ]
    expected = expected_rgb(decoded, bits=8, matrix=5, full_range=codec == "mjpeg", centred=True)
    assert np.abs(read_frames(path, [0])[0] - expected).max() < 0.51


def test_rgb_is_exact(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 33, 47, 3), dtype=np.uint8)
    write_video(tmp_path / "gbrp.mp4", frames, fps=10)
    np.testing.assert_array_equal(read_frames(tmp_path / "gbrp.mp4", range(3)), frames)
    for pix_fmt, suffix in (("rgb24", "mov"), ("bgr0", "mkv")):
        path = tmp_path / f"{pix_fmt}.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("png" if pix_fmt == "rgb24" else "ffv1", rate=10)
            stream.height, stream.width, stream.pix_fmt = 33, 47, pix_fmt
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)))
            container.mux(stream.encode(None))
        np.testing.assert_array_equal(read_frames(path, range(3)), frames)


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le", "gray12le", "gray16le"])
def test_grey_values_are_not_scaled(tmp_path: Path, pix_fmt: str) -> None:
    largest = {"gray": 255, "gray10le": 1023, "gray12le": 4095, "gray16le": 65535}[pix_fmt]
    kind = np.uint8 if pix_fmt == "gray" else np.uint16
    values: Any = np.linspace(0, largest, 24 * 40).round().reshape(24, 40).astype(kind)
    path = write_planes(tmp_path / "a.mkv", [[values]], pix_fmt)
    np.testing.assert_array_equal(read_frames(path, [0], "gray16le")[0], values)
    np.testing.assert_array_equal(
        read_frames(path, [0])[0], np.rint(values / largest * 255).astype(np.uint8)[..., None].repeat(3, -1)
    )


def test_colours_are_no_depth(tmp_path: Path) -> None:
    path = write_planes(tmp_path / "a.mkv", [planes_of("yuv420p", HW_PX)], "yuv420p")
    with pytest.raises(UnreadableVideo, match=r"a\.mkv: its pixel format is yuv420p, a grey one"):
        read_frames(path, [0], "gray16le")


def test_unknown_colours_are_refused_by_name(tmp_path: Path) -> None:
    planes = [planes_of("yuv444p", HW_PX)]
    path = write_planes(tmp_path / "a.mp4", planes, "yuv444p", codec="libx264", matrix=8, colour_range=LIMITED)
    for read in (probe, lambda path: read_frames(path, [0])):
        with pytest.raises(UnreadableVideo, match=r"a\.mp4: its colours use matrix 8 of ITU-T H\.273; BT\.2020, BT\.6"):
            read(path)


def test_other_layouts_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=10)
        stream.height, stream.width, stream.pix_fmt = 24, 40, "yuyv422"
        container.mux(stream.encode(av.VideoFrame(40, 24, "yuyv422")))
    with pytest.raises(UnreadableVideo, match="pixel format yuyv422 is not read"):
        read_frames(path, [0])


def test_large_untagged_videos_are_named(tmp_path: Path) -> None:
    for rows, matrix, expected in ((720, 2, 1), (720, 1, 0), (480, 2, 0)):
        planes = [planes_of("yuv420p", (rows, 32))]
        path = write_planes(tmp_path / f"{rows}_{matrix}.mkv", planes, "yuv420p", matrix=matrix)
        assert sum("does not state its colour matrix" in note for note in probe(path).notes) == expected


@pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "PQ (HDR)"), ("arib-std-b67", "HLG (HDR)")])
def test_hdr_is_named(tmp_path: Path, transfer: str, name: str) -> None:
    options = {"x265-params": f"lossless=1:bframes=0:log-level=error:pools=1:transfer={transfer}"}
    planes = [planes_of("yuv420p10le", (32, 48))]
    path = write_planes(tmp_path / "a.mp4", planes, "yuv420p10le", codec="libx265", options=options)
    assert probe(path).notes == (f"Its brightness is coded as {name}; the stored values are used.",)


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    ],
)
def test_images_are_turned_as_the_file_asks(tmp_path: Path, matrix: tuple[int, ...], turned: object) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 24, 40, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", frames, fps=10)
    set_display_matrix(tmp_path / "a.mp4", matrix)  # type: ignore[arg-type]
    info, images = probe(tmp_path / "a.mp4"), read_frames(tmp_path / "a.mp4", range(2))
    np.testing.assert_array_equal(images, [turned(frame) for frame in frames])  # type: ignore[operator]
    assert info.hw_px == images.shape[1:3]
    assert info.is_turned == (matrix != (1, 0, 0, 1)) == bool(info.notes)


def test_other_angles_are_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", np.zeros((1, 24, 40, 3), np.uint8), fps=10)
    set_display_matrix(tmp_path / "a.mp4", (0.8, 0.6, -0.6, 0.8))
    with pytest.raises(UnreadableVideo, match="which is no quarter of a turn"):
        read_frames(tmp_path / "a.mp4", [0])


GOLDEN = {
    "yuv420p": "2ae5ae8983b1ed5f",
    "yuv444p": "02913fcd187157a0",
    "yuv420p10le": "b558d8c39b98a6a2",
}


@pytest.mark.parametrize("pix_fmt", list(GOLDEN))
def test_pixels_are_the_same_on_every_machine(tmp_path: Path, pix_fmt: str) -> None:
    frames = [planes_of(pix_fmt, (64, 96), seed=seed) for seed in range(4)]
    path = write_planes(tmp_path / "a.mkv", frames, pix_fmt, matrix=1)
    assert hashlib.sha256(read_frames(path, range(4)).tobytes()).hexdigest()[:16] == GOLDEN[pix_fmt]
