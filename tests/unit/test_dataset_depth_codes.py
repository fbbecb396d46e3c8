"""LeRobot's 12-bit codes of depth: values of LeRobot 0.6.1, exact maps, missing depth, videos.

In: codes and millimetres. Out: the millimetres and codes of LeRobot's own functions.
Read next: `evalkit/dataset/depth_video.py`.

`EVALKIT_LEROBOT_PYTHON_061` names an interpreter with lerobot 0.6.1, for the comparison with the package itself.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.dataset.depth_video import LARGEST_CODE, DepthCodes
from evalkit.dataset.videos import probe, read_frames
from tests.doubles.depth_codes import encoded, exact_codes, info_of, write_depth_codes

MAPS = {
    "default": DepthCodes(),
    "narrow": DepthCodes(depth_min=0.1, depth_max=4.0, shift=0.0),
    "linear": DepthCodes(depth_min=0.5, depth_max=4.595, shift=0.0, use_log=False),
    "wide": DepthCodes(depth_min=0.0, depth_max=65.0, shift=1.0),
}

CODES = [1, 2, 100, 755, 1000, 2000, 3000, 4094, 4095]
MILLIMETRES = {
    "default": [11, 12, 127, 1000, 1377, 3277, 5917, 9996, 10000],
    "narrow": [100, 100, 109, 197, 246, 606, 1492, 3996, 4000],
    "linear": [501, 502, 600, 1255, 1500, 2500, 3500, 4594, 4595],
    "wide": [1, 2, 108, 1165, 1782, 6739, 20528, 64933, 65000],
}
"""Values of `lerobot.datasets.depth_utils.dequantize_depth`, lerobot 0.6.1."""


@pytest.mark.parametrize("name", list(MAPS))
def test_codes_mean_what_lerobot_says(name: str) -> None:
    assert MAPS[name].decode(np.array(CODES)).tolist() == MILLIMETRES[name]


def test_no_depth_has_the_first_code() -> None:
    depth_mm = np.array([0, 1, 10, 11, 12, 5000, 20000], np.uint16)
    codes = encoded(DepthCodes(), depth_mm)
    assert codes.tolist() == [0, 1, 1, 1, 2, 2689, 4095]
    assert DepthCodes().decode(codes).tolist() == [0, 11, 11, 11, 12, 5001, 10000]
    said = DepthCodes().describe_limits(codes)
    assert said == "14.3 % of pixels have no depth or are nearer than 0.01 m, 14.3 % are at 10 m or farther"


@given(st.integers(1, 61000), st.integers(0, LARGEST_CODE - 2))
@settings(max_examples=200, deadline=None)
def test_a_span_of_four_metres_is_exact(nearest_mm: int, span_mm: int) -> None:
    depth_mm = np.array([0, nearest_mm, nearest_mm + span_mm // 2, nearest_mm + span_mm], np.uint16)
    codes = exact_codes(depth_mm)
    np.testing.assert_array_equal(codes.decode(encoded(codes, depth_mm)), depth_mm)


def test_rounding_grows_with_depth() -> None:
    depth_mm = np.arange(12, 10000, dtype=np.uint16)
    error_mm = np.abs(DepthCodes().decode(encoded(DepthCodes(), depth_mm)).astype(int) - depth_mm)
    assert error_mm[depth_mm <= 2500].max() <= 1
    assert error_mm.max() == 2


@pytest.mark.parametrize(
    "info",
    [
        {"video.depth_min": 2.0, "video.depth_max": 1.0},
        {"video.depth_min": -1.0},
        {"video.depth_max": float("inf")},
        {"video.depth_min": 0.0, "video.shift": 0.0},
        {"video.depth_max": "10"},
        {"video.use_log": 1},
        {"video.depth_max": True},
    ],
)
def test_numbers_that_give_no_map_are_refused(info: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="depth"):
        DepthCodes.from_info(info)


def test_a_map_is_stated_and_read_back() -> None:
    for codes in MAPS.values():
        assert DepthCodes.from_info(info_of(codes)) == codes
    assert DepthCodes.from_info({"is_depth_map": True}) == DepthCodes()


def test_codes_above_twelve_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="this video holds 4096"):
        DepthCodes().decode(np.array([4096]))


@pytest.mark.parametrize("hw_px", [(16, 16), (48, 64), (33, 47), (64, 16), (240, 320)])
def test_videos_of_codes_lose_nothing(tmp_path: Path, hw_px: tuple[int, int]) -> None:
    codes = np.random.default_rng(0).integers(0, LARGEST_CODE + 1, (11, *hw_px), dtype=np.uint16)
    write_depth_codes(tmp_path / "a.mp4", codes, fps=20)
    np.testing.assert_array_equal(read_frames(tmp_path / "a.mp4", range(11), "gray16le"), codes)
    info = probe(tmp_path / "a.mp4")
    assert (info.codec, info.pix_fmt, info.bits, info.num_frames, info.hw_px) == ("hevc", "gray12le", 12, 11, hw_px)


SCRIPT = """
import sys
import numpy as np, torch
from lerobot.datasets.depth_utils import dequantize_depth, quantize_depth
from lerobot.datasets.video_utils import decode_video_frames
path, target, depth_min, depth_max, shift, use_log = sys.argv[1:7]
names = dict(depth_min=float(depth_min), depth_max=float(depth_max), shift=float(shift), use_log=use_log == "True")
frames = decode_video_frames(path, [0.0, 0.05, 0.1], 1e-4, "pyav", is_depth=True)
every = torch.arange(4096, dtype=torch.int32).reshape(1, 64, 64)
np.savez(
    target,
    codes=frames.numpy().reshape(3, 48, 64),
    depth_mm=dequantize_depth(frames, **names).numpy().reshape(3, 48, 64),
    every=dequantize_depth(every, **names).numpy().reshape(-1),
    quantized=quantize_depth(np.arange(1, 65536, dtype=np.uint16)[None], video_backend=None, **names).reshape(-1),
)
"""


@pytest.mark.slow
@pytest.mark.skipif("EVALKIT_LEROBOT_PYTHON_061" not in os.environ, reason="EVALKIT_LEROBOT_PYTHON_061 is not set")
@pytest.mark.parametrize("name", list(MAPS))
def test_lerobot_itself_gives_the_same(tmp_path: Path, name: str) -> None:
    codes = np.random.default_rng(0).integers(0, LARGEST_CODE + 1, (3, 48, 64), dtype=np.uint16)
    write_depth_codes(tmp_path / "a.mp4", codes, fps=20)
    info = info_of(MAPS[name])
    arguments = [str(info[f"video.{key}"]) for key in ("depth_min", "depth_max", "shift", "use_log")]
    python = os.environ["EVALKIT_LEROBOT_PYTHON_061"]
    paths = [str(tmp_path / "a.mp4"), str(tmp_path / "out.npz")]
    subprocess.run([python, "-c", SCRIPT, *paths, *arguments], check=True)
    theirs = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(theirs["codes"], codes)
    every = MAPS[name].decode(np.arange(LARGEST_CODE + 1))
    assert np.abs(every[1:] - theirs["every"][1:]).max() <= 1
    assert np.count_nonzero(every[1:] != theirs["every"][1:]) <= 4  # halves, which float32 rounds either way
    nearest_mm = round(info["video.depth_min"] * 1000) + 1
    ours = encoded(MAPS[name], np.arange(nearest_mm, 65536))
    np.testing.assert_array_equal(ours, np.maximum(theirs["quantized"][nearest_mm - 1 :], 1))
