"""Clips as files of other people's tools write them, with cameras in closed form.

In: a seed, sizes, a folder. Out: arrays; files written with imageio, Pillow and FFmpeg; the scores of one clip alone.
Read next: `evalkit/score/folders.py`, which scores such files.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio.v3 as iio
import numpy as np
from PIL import Image

from evalkit.score.chunk import ScoreOptions
from evalkit.score.folder_clip import clip_parts, offers_of
from evalkit.score.results.outcome import Score
from evalkit.score.sources.clip_facts import clip_facts
from evalkit.score.sources.clip_files import find_clips
from evalkit.score.sources.folder_options import FolderOptions
from evalkit.score.sources.pairs import ClipPair

SIZE = (48, 64)
GL_FROM_CV = np.diag([1.0, -1.0, -1.0, 1.0])


def images(seed: int, num_frames: int = 4, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return F,H,W,3 smooth images that change from frame to frame."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[: size[0], : size[1]]
    waves = [
        np.sin(u / 5 + 0.4 * f + c + rng.normal() * 0.1) + np.cos(v / 7 - 0.2 * f)
        for f in range(num_frames)
        for c in range(3)
    ]
    stacked = np.stack(waves).reshape(num_frames, 3, *size).transpose(0, 2, 3, 1)
    return np.clip(np.rint(127 + 50 * stacked), 0, 255).astype(np.uint8)


def noisy(true: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-9, 10, true.shape)
    return np.clip(true.astype(int) + noise, 0, 255).astype(np.uint8)


def write_video(path: Path, frames: np.ndarray, codec: str, pix_fmt: str, fps: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            codec, rate=Fraction(fps), options={"crf": "0"} if codec == "libx264rgb" else {}
        )
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
        given = {2: "gray16le", 3: "rgb24"}[frames.ndim - 1]
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=given)))
        container.mux(stream.encode(None))


def room(size: tuple[int, int]) -> dict[str, Any]:
    """Return two cameras that see a plane, and its depth in closed form."""
    height, width = size
    K = np.array([[50.0, 0.0, (width - 1) / 2], [0.0, 52.0, (height - 1) / 2], [0.0, 0.0, 1.0]])
    v, u = np.mgrid[:height, :width]
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(size)], -1)
    views = {}
    for name, angle, x_m in (("front", 0.15, 0.0), ("side", -0.25, 0.4)):
        R = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = R, [x_m, 0.1, -1.0]
        normal, offset = np.array([0.1, 0.2, 1.0]), 0.6  # the plane n p = offset, base frame
        depth = (offset - normal @ T[:3, 3]) / (rays @ R.T @ normal)
        views[name] = (K, T, depth, rays)
    return views


def write_depth_clips(tmp_path: Path, cameras: dict[str, Any], *, per_m: float, num_frames: int = 2) -> Any:
    """Write RGB and 16-bit depth PNGs of both sides with Pillow and imageio; return the stored depths, metres."""
    stored: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    rng = np.random.default_rng(5)
    for side in ("gt", "pred"):
        for frame in range(num_frames):
            for name, (_, _, depth, _) in cameras.items():
                factor = 1 + 0.02 * frame if side == "gt" else 1 + 0.02 * frame + rng.normal(0, 0.02, depth.shape)
                units = np.rint(depth * factor * per_m).astype(np.uint16)
                stored.setdefault((side, frame), {})[name] = units.astype(np.float32) / np.float32(per_m)
                for modality in ("rgb", "depth"):
                    (tmp_path / side / "clip" / modality / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(units).save(tmp_path / side / f"clip/depth/{name}/{frame:04d}.png")
                iio.imwrite(tmp_path / side / f"clip/rgb/{name}/{frame:04d}.png", images(7, 1, depth.shape)[0])
    return stored


def score_folder_clip(
    pred: Path, true: Path, options: ScoreOptions | None = None, files: FolderOptions | None = None
) -> list[Score]:
    """Return the scores of one clip; every unreadable image gives one row with that status.

    Args:
        pred: Folder of the predicted clip; it need not exist.
        true: Folder of the ground truth.
        options: What is scored in addition to the metrics that every clip gets.
        files: How the files are to be understood.

    Raises:
        BadConfig: If the ground truth has no readable frame, or cameras that cannot be read.
    """
    pair = _single(pred, true)
    facts = clip_facts(pair, files or FolderOptions())
    return [score for scores in clip_parts(pair, facts, options, offers_of([pair.pred])) for score in scores]


def _single(pred: Path, true: Path) -> ClipPair:
    """Return two folders as one clip."""
    sides = {"true": find_clips(true), "pred": find_clips(pred)}
    views = {view for clip in sides["true"].clips.values() for _, view in clip.streams}
    clips = {side: find_clips(found.root, views).clip(".") for side, found in sides.items()}
    return ClipPair(name=".", task=true.resolve().name, index=0, pred=clips["pred"], true=clips["true"])
