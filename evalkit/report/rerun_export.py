"""A clip as point clouds over time in rerun: ground truth and prediction.

In: a clip. Out: an `.rrd` recording, and a window if asked for; needs the optional package `rerun-sdk`.
Read next: `contact_sheet.py`, which needs nothing; `evalkit/score/frame.py` for the poses of the predicted cloud.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.files import whole_file
from evalkit.contracts.geometry import points_from_depth
from evalkit.report.contact_sheet import colour_depth, depth_error_map, rgb_error_map
from evalkit.score.frame import GroundTruth, predicted_pose
from evalkit.store.clips import ClipChunk, ClipReader

SIDES = ("ground_truth", "prediction")


class ViewerUnavailable(EvalkitError):
    """The viewer's package is not installed."""


def write_rerun(clip: Path, out: Path, *, show: bool = False) -> Path:
    """Write a clip as a rerun recording and return its path.

    The cloud of the ground truth is `ground_truth/cloud`, the predicted one `prediction/cloud`, with the wrist camera
    at the pose that follows from the predicted state. Images, depth images and error maps are under their view. The
    time axis is `control_step`.

    Args:
        clip: The clip's file.
        out: Where the recording goes; it appears whole or not at all.
        show: Also open the viewer.

    Raises:
        ViewerUnavailable: If rerun is not installed.
        RunFolderError: If the clip cannot be read.
    """
    rr = _rerun()
    with whole_file(out) as partial, ClipReader(clip) as reader:
        recording = rr.RecordingStream("evalkit")
        recording.save(str(partial))
        env = reader.header.env_spec
        recording.send_blueprint(_side_by_side([camera.name for camera in env.cameras]))
        for chunk in reader:
            truth = GroundTruth(chunk.true, chunk.intrinsics_v33_px, env)
            for frame_idx in range(truth.num_frames):
                step = chunk.step_idx + (frame_idx + 1) * chunk.frame_stride
                recording.set_time("control_step", sequence=step)
                _log_frame(rr, recording, chunk, truth, frame_idx)
        recording.flush()
        recording.disconnect()
    if show:
        subprocess.Popen([sys.executable, "-m", "rerun", str(out)])
    return out


def coloured_cloud(
    chunk: ClipChunk, truth: GroundTruth, frame_idx: int, *, predicted: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return points and colours of one frame's fused cloud; None where a depth or a pose is missing."""
    rgb, depth_m = chunk.true.rgb_fvhwc_u8, chunk.true.depth_fvhw_m
    if predicted:
        if chunk.predicted is None or chunk.predicted.depth is None or frame_idx >= len(chunk.predicted.depth):
            return None
        rgb, depth_m = chunk.predicted.rgb, chunk.predicted.depth
    points, colours = [], []
    for view in range(depth_m.shape[1]):
        T_base_cam: np.ndarray | None = chunk.true.T_base_cam_fv44[frame_idx, view]
        if predicted and chunk.predicted is not None:
            T_base_cam = predicted_pose(truth, chunk.predicted, frame_idx, view)
        if T_base_cam is None:
            continue
        depth_hw_m = depth_m[frame_idx, view]
        points.append(points_from_depth(depth_hw_m, chunk.intrinsics_v33_px[view], T_base_cam))
        colours.append(rgb[frame_idx, view][np.isfinite(depth_hw_m) & (depth_hw_m > 1e-3)])
    return (np.concatenate(points), np.concatenate(colours)) if points else None


def _side_by_side(cameras: Sequence[str]) -> Any:
    """Return the window's layout: both clouds next to each other, below them one tab of images a camera."""
    import rerun.blueprint as layout

    clouds = layout.Horizontal(*(layout.Spatial3DView(origin=f"{side}/cloud", name=f"{side} cloud") for side in SIDES))
    tabs = [
        layout.Grid(
            *(
                layout.Spatial2DView(origin=f"{side}/{camera}/{modality}", name=f"{side} {modality}")
                for modality in ("rgb", "depth")
                for side in (*SIDES, "error")
            ),
            grid_columns=3,
            name=camera,
        )
        for camera in cameras
    ]
    return layout.Blueprint(layout.Vertical(clouds, layout.Tabs(*tabs)), collapse_panels=True)


def _log_frame(rr: Any, recording: Any, chunk: ClipChunk, truth: GroundTruth, frame_idx: int) -> None:
    for name, is_predicted in zip(SIDES, (False, True), strict=True):
        cloud = coloured_cloud(chunk, truth, frame_idx, predicted=is_predicted)
        if cloud is not None:
            recording.log(f"{name}/cloud", rr.Points3D(cloud[0], colors=cloud[1], radii=0.003))
    for view, camera in enumerate(truth.env.cameras):
        rgb, depth_m = chunk.true.rgb_fvhwc_u8[frame_idx, view], chunk.true.depth_fvhw_m[frame_idx, view]
        recording.log(f"ground_truth/{camera.name}/rgb", rr.Image(rgb))
        recording.log(f"ground_truth/{camera.name}/depth", rr.Image(colour_depth(depth_m)))
        prediction = chunk.predicted
        if prediction is None or frame_idx >= len(prediction.rgb):
            continue
        recording.log(f"prediction/{camera.name}/rgb", rr.Image(prediction.rgb[frame_idx, view]))
        recording.log(f"error/{camera.name}/rgb", rr.Image(rgb_error_map(rgb, prediction.rgb[frame_idx, view])))
        if prediction.depth is not None:
            deep = prediction.depth[frame_idx, view]
            recording.log(f"prediction/{camera.name}/depth", rr.Image(colour_depth(deep)))
            recording.log(f"error/{camera.name}/depth", rr.Image(depth_error_map(depth_m, deep)))


def _rerun() -> Any:
    try:
        import rerun
    except ImportError as error:
        raise ViewerUnavailable(
            "The viewer needs rerun: `pip install -c constraints.txt -e '.[viz]'`. `evalkit view --sheet` writes an "
            "image without it."
        ) from error
    return rerun
