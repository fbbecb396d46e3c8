"""The same pixels, numbers and facts of videos with several versions of PyAV.

In: interpreters in `EVALKIT_PYAV_PYTHONS`, separated by colons. Out: equal results in all of them.
Read next: `evalkit/dataset/videos.py`.

To make one: `python3.11 -m venv av15 && av15/bin/pip install av==15.1.0 numpy==1.26.4 numba opencv-python-headless`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evalkit.dataset.videos import write_video
from tests.doubles.depth_codes import write_depth_codes
from tests.doubles.video_files import FULL, LIMITED, numbered, planes_of, write_planes

PYTHONS = [path for path in os.environ.get("EVALKIT_PYAV_PYTHONS", "").split(":") if path]

SCRIPT = """
import hashlib, json, sys
from pathlib import Path
from evalkit.dataset.videos import frames_in_order, probe, read_frames
facts = {}
for name in sys.argv[1:]:
    info = probe(Path(name))
    pixels = "gray16le" if info.is_grey else "rgb24"
    digest = hashlib.sha256()
    for frame in frames_in_order(Path(name), pixels):
        digest.update(frame.tobytes())
    last = hashlib.sha256(read_frames(Path(name), [info.num_frames - 1], pixels).tobytes())
    facts[name] = [digest.hexdigest(), last.hexdigest(), repr(info), info.times_s.tolist()]
print(json.dumps(facts))
"""


def write_examples(folder: Path) -> list[Path]:
    """Write one video of each kind that differs between versions of FFmpeg's own conversion, or could."""
    paths, rng = list[Path](), np.random.default_rng(0)
    for pix_fmt in ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gray12le", "gray16le"):
        for matrix, colour_range in ((2, 0), (1, LIMITED), (9, FULL)):
            paths.append(folder / f"{pix_fmt}_{matrix}_{colour_range}.mkv")
            frames = [planes_of(pix_fmt, (48, 64), seed=seed) for seed in range(3)]
            write_planes(paths[-1], frames, pix_fmt, matrix=matrix, colour_range=colour_range)
    for codec, suffix in (("libx264", "mp4"), ("libx265", "mp4"), ("libvpx-vp9", "webm"), ("libsvtav1", "mp4")):
        paths.append(folder / f"{codec}.{suffix}")
        write_planes(paths[-1], numbered(12, (64, 64)), "yuv420p", codec=codec, matrix=1, colour_range=LIMITED)
    hdr = {"x265-params": "lossless=1:bframes=0:log-level=error:pools=1:transfer=smpte2084"}
    paths.append(folder / "hdr.mp4")
    write_planes(paths[-1], [planes_of("yuv420p10le", (32, 48))], "yuv420p10le", codec="libx265", options=hdr)
    paths.append(write_planes(folder / "gap.mp4", numbered(3), "yuv420p", codec="libx264", ticks=[0, 1, 5]))
    paths += [folder / "rgb.mp4", folder / "mm.mkv", folder / "codes.mp4"]
    write_video(folder / "rgb.mp4", rng.integers(0, 256, (9, 33, 47, 3), dtype=np.uint8), fps=20)
    write_video(folder / "mm.mkv", rng.integers(0, 65536, (9, 33, 47), dtype=np.uint16), fps=20)
    write_depth_codes(folder / "codes.mp4", rng.integers(0, 4096, (9, 32, 48), dtype=np.uint16), fps=20)
    return paths


def facts_in(python: str, paths: list[Path]) -> dict[str, list[str]]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [python, "-c", SCRIPT, *map(str, paths)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    facts: dict[str, list[str]] = json.loads(done.stdout)
    return facts


@pytest.mark.slow
@pytest.mark.skipif(not PYTHONS, reason="EVALKIT_PYAV_PYTHONS names no interpreter with another PyAV")
def test_every_version_of_pyav_gives_the_same(tmp_path: Path) -> None:
    paths = write_examples(tmp_path)
    expected = facts_in(sys.executable, paths)
    for python in PYTHONS:
        actual = facts_in(python, paths)
        assert [name for name in expected if actual[name] != expected[name]] == [], python
