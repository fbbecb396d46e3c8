"""Scoring of anyone's predictions: two folders of frames, without a run or a policy.

In: a folder of predictions and one of ground truth. Out: the same result file as for a run, with one task per clip.
Read next: `sources/images.py`, which reads frames; `chunk.py`, which scores them.

Each folder holds one folder per clip, with the same name on both sides (or is itself one clip). A clip holds:

    cameras.json           {"views": [{"name", "kind": "static"|"wrist", "intrinsics": 3x3, "T_base_cam": 4x4 or
                           one per frame, and for a wrist camera "arm" and "T_ee_cam"}], "arms": ["right"]}; needed in
                           the ground truth; `arms` may be left out if wrist cameras name them
    rgb/<view>/0000.png    8-bit colour, named by the frame's number; or rgb/<view>.mp4, or rgb/<view>.npz with `rgb`,
                           F,H,W,3 uint8
    depth/<view>/0000.png  uint16 millimetres, or depth/<view>.npz with `depth_m`, F,H,W; optional
    states.npz             `proprio`, F,16, see `contracts.types.PROPRIO_DIM`; optional
    start/                 the last frame before the prediction, as a clip of one frame; optional, in the ground truth

A clip is read and scored `FRAMES_A_PART` frames at a time, so that memory does not grow with its length. Metrics that
are pooled over a generated clip are pooled over the whole clip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.spec import Arm, EnvSpec
from evalkit.contracts.types import PROPRIO_DIM, OnProgress, Prediction
from evalkit.score.chunk import ScoreOptions, pooled_scores, score_chunk
from evalkit.score.metrics.device import describe
from evalkit.score.pools import Pools
from evalkit.score.results.coverage import NUM_NAMED, clip_row, failure_row
from evalkit.score.results.outcome import ImageKey, Measure, Modality, Score
from evalkit.score.results.table import ClipScores, ScoreWriter
from evalkit.score.sources.cameras import Camera, poses_of, read_cameras
from evalkit.score.sources.images import Frame, View, copy_frame, open_view
from evalkit.store.clips import ClipChunk, Frames

CAMERAS, STATES, START = "cameras.json", "states.npz", "start"
MODALITIES: tuple[Modality, ...] = ("rgb", "depth")
FRAMES_A_PART = 32
"""Frames of a clip that are in memory together."""

UNREADABLE_STATES = np.broadcast_to(np.float32(np.nan), (2**31, PROPRIO_DIM))
"""NaN for any number of frames, in the memory of one number."""

Sides = Mapping[tuple[str, Modality], Sequence[View]]
"""The RGB and depth views of the ground truth (`true`) and the prediction (`pred`)."""

Read = dict[tuple[str, Modality], list[list[Frame]]]
"""Frames of each view of each side."""


class Offers(NamedTuple):
    """What the predictions of at least one clip hold in addition to RGB; it counts as missing in clips without it."""

    depth: bool
    states: bool


def score_folders(
    pred_dir: Path,
    true_dir: Path,
    result: Path,
    *,
    on_progress: OnProgress | None = None,
    options: ScoreOptions | None = None,
) -> Path:
    """Score every clip of two folders and return the path of the result file.

    A clip with unusable ground truth gives one row with that status; a prediction without ground truth does too.

    Args:
        pred_dir: Predictions; the module's docstring has the layout.
        true_dir: Ground truth; determines clips, views, number and size of frames.
        result: Where the Parquet file goes.
        on_progress: Called with (clips done, clips in all).
        options: What is scored in addition to the metrics that every clip gets.

    Raises:
        BadConfig: If there is no clip, no clip has a prediction, or the device does not exist.
        RunFolderError: If the result cannot be written.
    """
    options = options or ScoreOptions()
    scored_on = describe(options.device)
    names = clip_names(true_dir, pred_dir)
    _check_any_predicted(pred_dir, true_dir, names)
    without = [] if names == ["."] else _without_truth(pred_dir, names)
    offers = _offers(pred_dir / name for name in names)
    with ScoreWriter(result, scored_on=scored_on) as writer:
        for num_done, name in enumerate([*names, *without], start=1):
            task = name if name != "." else true_dir.resolve().name
            has_truth = name not in without
            for scores in _clip(pred_dir / name, true_dir / name, options, offers, has_truth=has_truth):
                writer.write(ClipScores(task=task, index=0, outcome="unknown", scores=scores))
            if on_progress is not None:
                on_progress(num_done, len(names) + len(without))
    return result


def _without_truth(pred_dir: Path, names: Sequence[str]) -> list[str]:
    """Return the predicted clips without a ground truth of the same name, sorted."""
    predicted = {path.name for path in pred_dir.iterdir() if (path / "rgb").is_dir()}
    return sorted(predicted - set(names))


def _offers(preds: Iterable[Path]) -> Offers:
    clips = list(preds)
    return Offers(
        depth=any((clip / "depth").is_dir() for clip in clips), states=any((clip / STATES).exists() for clip in clips)
    )


def _clip(
    pred: Path, true: Path, options: ScoreOptions | None, offers: Offers, *, has_truth: bool
) -> Iterator[list[Score]]:
    if not has_truth:
        yield [clip_row("no_truth", f"{true / CAMERAS} does not exist")]
        return
    if not any(pred.glob("rgb/*")):
        yield [clip_row("no_prediction", f"{pred / 'rgb'} {'is empty' if pred.is_dir() else 'does not exist'}")]
        return
    try:
        yield from _clip_parts(pred, true, options, offers)
    except BadConfig as error:
        yield [clip_row("broken_clip", str(error))]
    except Exception as error:
        yield [failure_row(error)]


def _check_any_predicted(pred_dir: Path, true_dir: Path, names: Sequence[str]) -> None:
    """Raise BadConfig unless a clip of the ground truth has a folder of predictions."""
    if not pred_dir.is_dir():
        raise BadConfig(f"{pred_dir} is not a folder of predictions.")
    if not any((pred_dir / name).is_dir() for name in names):
        there = ", ".join(sorted(path.name for path in pred_dir.iterdir() if path.is_dir())[:NUM_NAMED]) or "no folder"
        raise BadConfig(
            f"{pred_dir} holds no prediction folder named {', '.join(names[:NUM_NAMED])}, as the clips of {true_dir} "
            f"are; it holds {there}. Give a clip the same name on both sides."
        )


def clip_names(true_dir: Path, pred_dir: Path | None = None) -> list[str]:
    """Return the clips of a folder of ground truth, sorted; `.` if the folder is itself a clip.

    Args:
        true_dir: The ground truth.
        pred_dir: The predictions; an error then says whether the two folders may be swapped.

    Raises:
        BadConfig: If there is none.
    """
    if (true_dir / CAMERAS).is_file():
        return ["."]
    names = sorted(path.parent.name for path in true_dir.glob(f"*/{CAMERAS}"))
    if not names:
        swapped = pred_dir is not None and ((pred_dir / CAMERAS).is_file() or any(pred_dir.glob(f"*/{CAMERAS}")))
        hint = f" {pred_dir} has one: name the folder of the ground truth second." if swapped else ""
        raise BadConfig(f"{true_dir} holds no clip: neither it nor a folder in it has a {CAMERAS}.{hint}")
    return names


def score_folder_clip(pred: Path, true: Path, options: ScoreOptions | None = None) -> list[Score]:
    """Return the scores of one clip; every unreadable image gives one row with that status.

    Raises:
        BadConfig: If the ground truth has no usable `cameras.json` or no readable frame.
    """
    return [score for scores in _clip_parts(pred, true, options, _offers([pred])) for score in scores]


def _clip_parts(pred: Path, true: Path, options: ScoreOptions | None, offers: Offers) -> Iterator[list[Score]]:
    """Yield the scores of one clip, part by part; raises as `score_folder_clip` does."""
    cameras, arms = read_cameras(true / CAMERAS)
    names = [camera.spec.name for camera in cameras]
    sides = {
        (side, modality): [open_view(folder, modality, name) for name in names]
        for side, folder in (("true", true), ("pred", pred))
        for modality in MODALITIES
    }
    states = {"true": _states(true / STATES), "pred": _states(pred / STATES)}
    has_depth = any(view.exists for view in sides["true", "depth"])
    size: tuple[int, int] | None = None
    start, first = _no_frame(cameras, (0, 0)), 0
    before: Read = {}
    pools = Pools()
    while new := _read(sides):
        size = size or _size(true, new["true", "rgb"])
        env = _env(cameras, arms, size)
        if first == 0 and (true / START).is_dir():
            start, problem = _start(true / START, cameras, size, with_depth=offers.depth)
            if problem is not None:
                yield [_without_floor(problem)]
        read = {key: [old + frames for old, frames in zip(before[key], new[key], strict=True)] for key in before} or new
        chunk, problems = _chunk(read, states, cameras, size, start, offers, has_depth=has_depth, first=first)
        yield score_chunk(chunk, env, options, problems=problems, first_frame_idx=first, pools=pools)
        first += len(new["true", "rgb"][0])
        before = {key: [frames[-1:] for frames in views] for key, views in new.items()}
    if size is None:
        raise BadConfig(f"{true} has no readable RGB frame, so there is no ground truth to compare with.")
    yield pooled_scores(pools)


def _read(sides: Sides) -> Read:
    """Return the next frames of every view, as many as the ground truth still has; none at its end."""
    true_rgb = [view.take(FRAMES_A_PART) for view in sides["true", "rgb"]]
    count = max(map(len, true_rgb))
    if count == 0:
        return {}
    read: Read = {}
    for key, views in sides.items():
        taken = true_rgb if key == ("true", "rgb") else [view.take(count) for view in views]
        for view, frames in zip(views, taken, strict=True):
            side, modality = key
            frames_of = "predicted" if side == "pred" else "ground-truth"
            number = view.num_read or "no"
            reason = f"there are {number} {frames_of} {modality} frames"
            missing = Measure(None, "missing_frame", reason)
            frames += [missing] * (count - len(frames))
        read[key] = taken
    return read


def _chunk(
    read: Read,
    states: Mapping[str, np.ndarray | None],
    cameras: Sequence[Camera],
    size: tuple[int, int],
    start: Frames,
    offers: Offers,
    *,
    has_depth: bool,
    first: int,
) -> tuple[ClipChunk, dict[ImageKey, Measure]]:
    """Return one part as a chunk that starts with the last frame of the part before, and what could not be read."""
    num_frames = len(read["true", "rgb"][0])
    begin = first - (1 if first else 0)
    problems: dict[ImageKey, Measure] = {}

    def stack(side: str, modality: Modality) -> np.ndarray:
        shape = (num_frames, len(cameras), *size, *((3,) if modality == "rgb" else ()))
        array = np.zeros(shape, np.uint8 if modality == "rgb" else np.float32)
        for view, frames in enumerate(read[side, modality]):
            for frame_idx, frame in enumerate(frames):
                problem = copy_frame(array[frame_idx, view], frame)
                if problem is not None:
                    problem = problem if side == "pred" else problem._replace(status="bad_truth")
                    problems.setdefault(ImageKey(modality, frame_idx, view), problem)
        return array

    true_states = np.full((num_frames, PROPRIO_DIM), np.nan, np.float32)
    if states["true"] is not None:
        known = states["true"][begin : begin + num_frames]
        true_states[: len(known)] = known
    true_depth = np.zeros((num_frames, len(cameras), *size), np.float32)
    pred_states = states["pred"]
    if pred_states is None and offers.states:
        pred_states = np.zeros((0, PROPRIO_DIM), np.float32)
    chunk = ClipChunk(
        chunk_idx=first // FRAMES_A_PART,
        step_idx=first,
        num_executed=0,
        frame_stride=1,
        intrinsics_v33_px=np.stack([camera.intrinsics_33_px for camera in cameras]),
        start=start,
        true=Frames(
            rgb_fvhwc_u8=stack("true", "rgb"),
            depth_fvhw_m=stack("true", "depth") if has_depth else true_depth,
            proprio_fd=true_states,
            T_base_cam_fv44=np.stack([poses_of(camera, begin, num_frames) for camera in cameras], axis=1),
        ),
        predicted=Prediction(
            rgb=stack("pred", "rgb"),
            depth=stack("pred", "depth") if offers.depth else None,
            proprio=None if pred_states is None else pred_states[begin : begin + num_frames],
        ),
    )
    return chunk, problems


def _without_floor(problem: Measure) -> Score:
    row = clip_row(problem.status, f"the start frame: {problem.reason}", chunk_idx=0)
    return replace(row, subject="repeat_last_frame", view="static", metric="psnr_db/frame_mean")


def _env(cameras: Sequence[Camera], arms: tuple[Arm, ...], size: tuple[int, int]) -> EnvSpec:
    return EnvSpec(
        env_id="folders",
        cameras=tuple(camera.spec for camera in cameras),
        image_hw_px=size,
        arms=arms,
        action_layout="none",
        control_hz=0.0,
    )


def _size(true: Path, views: Sequence[Sequence[Frame]]) -> tuple[int, int]:
    for frames in views:
        for frame in frames:
            if not isinstance(frame, Measure) and frame.ndim == 3:
                return frame.shape[0], frame.shape[1]
    raise BadConfig(f"{true} has no readable RGB frame, so there is no ground truth to compare with.")


def _states(path: Path) -> np.ndarray | None:
    """Return F,16 states; None if there are none, NaN for every frame if they cannot be read."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            states = np.asarray(file["proprio"], np.float32)
    except Exception:  # a broken archive raises whatever its decoder raises
        return UNREADABLE_STATES
    return states if states.ndim == 2 and states.shape[1] == PROPRIO_DIM else UNREADABLE_STATES


def _start(
    folder: Path, cameras: Sequence[Camera], size: tuple[int, int], *, with_depth: bool
) -> tuple[Frames, Measure | None]:
    """Return the start frame; or no frame, and what is wrong with it."""
    rgb = np.zeros((1, len(cameras), *size, 3), np.uint8)
    depth = np.zeros((1, len(cameras), *size), np.float32)
    wanted: dict[Modality, np.ndarray] = {"rgb": rgb, "depth": depth} if with_depth else {"rgb": rgb}
    for modality, array in wanted.items():
        for view, camera in enumerate(cameras):
            missing = Measure(None, "missing_frame", f"{folder} holds no {modality} of {camera.spec.name}")
            frames = open_view(folder, modality, camera.spec.name).take(1) or [missing]
            problem = copy_frame(array[0, view], frames[0])
            if problem is not None:
                return _no_frame(cameras, size), problem
    states, proprio = _states(folder / STATES), np.full((1, PROPRIO_DIM), np.nan, np.float32)
    if states is not None and len(states):
        proprio[0] = states[0]
    poses = np.zeros((1, len(cameras), 4, 4))
    return Frames(rgb_fvhwc_u8=rgb, depth_fvhw_m=depth, proprio_fd=proprio, T_base_cam_fv44=poses), None


def _no_frame(cameras: Sequence[Camera], size: tuple[int, int]) -> Frames:
    count = len(cameras)
    return Frames(
        rgb_fvhwc_u8=np.zeros((0, count, *size, 3), np.uint8),
        depth_fvhw_m=np.zeros((0, count, *size), np.float32),
        proprio_fd=np.zeros((0, PROPRIO_DIM), np.float32),
        T_base_cam_fv44=np.zeros((0, count, 4, 4)),
    )
