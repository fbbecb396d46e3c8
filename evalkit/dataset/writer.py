"""Recording: any bench's episodes in the released layout, without loss.

In: what the robot saw and did, step by step. Out: videos and a JSON an episode; `metadata.json` at the end.
Read next: `layout.py`, which describes and reads what is written here.

Letters: N control steps, V views, H W rows and columns.

An episode's JSON is written last, so that an episode is either whole or not listed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.spatial.transform import Rotation

from evalkit.contracts.files import write_whole
from evalkit.contracts.geometry import wxyz_from_xyzw
from evalkit.contracts.spec import EE_POSE_BASE, OSC_DELTA_BASE
from evalkit.contracts.types import ARM_ACTION, ARM_PROPRIO
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.axes import SAME_AXES, Axes, rotation_from_wxyz
from evalkit.dataset.depth_video import DepthRange, depth_bytes, millimetres
from evalkit.dataset.videos import write_video

EPISODES_PER_CHUNK = 1000
SAME_MATRIX = 1e-6
"""How far the numbers of a camera's matrix may spread over an episode in which it stays: metres, pixels."""

STEP_M, STEP_RAD = 0.05, 0.5
"""What 1 means in an action of the layout `osc_delta_base`."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A camera to record.

    Attributes:
        name: Released readers sort views by name; these names must already be sorted in the bench's order.
        kind: `dynamic` for a camera that moves with an arm.
    """

    name: str
    kind: Literal["static", "dynamic"]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What stays the same over a data set.

    Attributes:
        views: Cameras in order.
        arms: Arms that exist.
        layout: What an action means, `osc_delta_base` or `ee_pose_base`.
        control_hz: Control steps a second; there is a frame at every one.
        depth_range: Map from metres to the 8-bit depth video.
        axes: How the model's frames lie in the bench's.
    """

    views: tuple[View, ...]
    arms: tuple[str, ...]
    layout: str
    control_hz: float
    depth_range: DepthRange
    axes: Axes = SAME_AXES

    def __post_init__(self) -> None:
        names = [view.name for view in self.views]
        if names != sorted(set(names)):
            raise ValueError(f"Views are read in the sorted order of their names; {names} are not sorted.")
        if self.layout not in (OSC_DELTA_BASE, EE_POSE_BASE):
            raise ValueError(f"Actions of the layout '{self.layout}' cannot be recorded.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Steps:
    """An episode, step by step, as the bench gives it.

    Attributes:
        rgb: N,V,H,W,3 uint8, what was seen before each action.
        depth: N,V,H,W float32 metres, 0 where there is none.
        proprio: N,16 float32.
        action: N,14 float32, what a learner should do there, in the bench's layout.
        executed: N,14 float32, what the robot was told; None for the same.
        trusted: N bool, actions to learn from; None for all.
        intrinsics: N,V,3,3, pixels, of the images as they are; None where nobody knows.
        T_base_cam: N,V,4,4, camera in the robot base frame; None where nobody knows.
    """

    rgb: np.ndarray
    depth: np.ndarray
    proprio: np.ndarray
    action: np.ndarray
    executed: np.ndarray | None = None
    trusted: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    T_base_cam: np.ndarray | None = None


def episode_key(index: int) -> str:
    """Return the name of an episode.

    Example:
        >>> episode_key(1234)
        'chunk-0001/episode_0001234'
    """
    return f"chunk-{index // EPISODES_PER_CHUNK:04d}/episode_{index:07d}"


def write_episode(
    root: Path,
    index: int,
    steps: Steps,
    recording: Recording,
    *,
    instructions: Sequence[str],
    about: EpisodeAbout | None = None,
) -> str:
    """Write one episode and return its key; files appear whole or not at all, the JSON last.

    Args:
        root: The data set.
        index: Number of the episode.
        steps: What happened.
        recording: What the data set has in common.
        instructions: Prompts that describe it.
        about: Where the episode comes from.

    Raises:
        ValueError: If lengths differ, a state or an action is no number, there is no instruction, or a depth does not
            fit into millimetres of 16 bits.
    """
    key = episode_key(index)
    _check(key, steps, recording)
    if isinstance(instructions, str) or not instructions or not all(one.strip() for one in instructions):
        raise ValueError(
            f"{key}: a list of one or more instructions is needed, none of them empty, got {instructions!r}."
        )
    depth_mm = millimetres(steps.depth)
    depth_u8 = depth_bytes(steps.depth, recording.depth_range)
    views = {}
    for view_idx, view in enumerate(recording.views):
        paths = {name: f"{name}/{view.name}/{key}" for name in ("video", "depth", "depth_mm")}
        rgb, depth, exact = f"{paths['video']}.mp4", f"{paths['depth']}.mp4", f"{paths['depth_mm']}.mkv"
        write_video(root / rgb, steps.rgb[:, view_idx], fps=recording.control_hz)
        grey = np.repeat(depth_u8[:, view_idx, :, :, None], 3, axis=-1)
        write_video(root / depth, grey, fps=recording.control_hz)
        write_video(root / exact, depth_mm[:, view_idx], fps=recording.control_hz)
        views[view.name] = {
            "type": view.kind,
            "rgb_path": rgb,
            "depth_path": depth,
            "depth_mm_path": exact,
            "depth_range": asdict(recording.depth_range),
            "start": 0,
            "end": len(steps.rgb),
            "fps": recording.control_hz,
            **_matrices(steps, view_idx, view),
        }
    content = {
        "num_frames": len(steps.rgb),
        "instructions": list(instructions),
        "observations": views,
        "proprios": _poses(recording.axes.model_from_sim(steps.proprio, recording.arms), recording.arms),
        "actions": _actions(steps, recording),
        "about": (about or EpisodeAbout()).to_json(),
    }
    write_whole(root / "data" / f"{key}.json", json.dumps(content))
    return key


def write_metadata(root: Path, *, on_broken: Callable[[str], None] = print) -> dict[str, int]:
    """List every episode that has a JSON, with its frames; return the list. Where there is nothing to list, no file is.

    Args:
        root: The data set.
        on_broken: Called with a sentence for each JSON that is broken, and whose episode is therefore left out.
    """
    lengths = {}
    for path in sorted((root / "data").glob("chunk-*/episode_*.json")):
        if (content := _read_content(path)) is None:
            on_broken(f"{path} is broken; its episode is left out. Record it again, or remove the file.")
        else:
            lengths[f"{path.parent.name}/{path.stem}"] = content["num_frames"]
    if lengths or (root / "metadata.json").exists():
        write_whole(root / "metadata.json", json.dumps(lengths, indent=1))
    return lengths


def read_about(path: Path) -> EpisodeAbout | None:
    """Return what an episode's JSON says about it; None if there is no such file, or it is none of an episode."""
    content = _read_content(path)
    try:
        return None if content is None else EpisodeAbout.from_json(content.get("about") or {})
    except ValueError:
        return None


def _read_content(path: Path) -> dict[str, Any] | None:
    """Return what an episode's JSON holds; None if there is no such file, or it is none of an episode."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    count = content.get("num_frames") if isinstance(content, dict) else None
    return content if type(count) is int and count > 0 else None


def _check(key: str, steps: Steps, recording: Recording) -> None:
    count, views = len(steps.rgb), len(recording.views)
    given = {name: value for name, value in vars(steps).items() if value is not None}
    wrong = {name: value.shape for name, value in given.items() if len(value) != count}
    if wrong or count == 0 or steps.rgb.shape[:4] != steps.depth.shape or steps.rgb.shape[1] != views:
        shapes = {name: value.shape for name, value in given.items()}
        raise ValueError(f"{key}: {views} views and equal numbers of steps are needed, got {shapes}.")
    for name in ("proprio", "action", "executed"):
        if name in given and not (finite := np.isfinite(given[name]).all(axis=1)).all():
            raise ValueError(f"{key}: '{name}' must hold finite numbers alone; at step {finite.argmin()} it does not.")


def _matrices(steps: Steps, view_idx: int, view: View) -> dict[str, list[list[float]]]:
    """Return a view's intrinsics, and the pose of a static one, where they are known and stay what they are.

    A moving camera's pose is that of its arm times hand-eye, so it needs no place of its own.
    """
    known = {"intrinsics": steps.intrinsics, "T_base_cam": steps.T_base_cam if view.kind == "static" else None}
    return {
        name: np.asarray(matrices[0, view_idx], np.float64).tolist()
        for name, matrices in known.items()
        if matrices is not None and np.ptp(matrices[:, view_idx], axis=0).max() <= SAME_MATRIX
    }


def _poses(proprio: np.ndarray, arms: Sequence[str]) -> dict[str, list[list[float]]]:
    """Return states, N,16, as the layout lists them."""
    listed = {}
    for arm in arms:
        state = np.asarray(proprio, np.float64)[:, ARM_PROPRIO[arm]]
        listed[f"{arm}_ee_pos"] = state[:, :3].tolist()
        matrices = rotation_from_wxyz(state[:, 3:7]).as_matrix()
        listed[f"{arm}_ee_rotm"] = matrices.reshape(-1, 9).tolist()
        listed[f"{arm}_gripper_pos"] = state[:, 7:].tolist()
    return listed


def _actions(steps: Steps, recording: Recording) -> dict[str, list[list[float]]]:
    """Return actions as the layout lists them: poses to go to, and raw ones where the controller takes deltas."""
    arms, executed = recording.arms, steps.action if steps.executed is None else steps.executed
    listed = _poses(recording.axes.model_from_sim(_goals(steps, recording), arms), arms)
    listed["executed"] = np.asarray(executed, np.float64).tolist()
    if steps.trusted is not None:
        listed["trusted"] = np.asarray(steps.trusted, np.float64)[:, None].tolist()
    if recording.layout == OSC_DELTA_BASE:
        opens = np.array([1.0] * 6 + [-1.0])  # released data hold robosuite's own sign, which closes with 1
        raw = [np.asarray(steps.action, np.float64)[:, ARM_ACTION[arm]] * opens for arm in arms]
        listed["raw_actions"] = np.hstack(raw).tolist()
    return listed


def _goals(steps: Steps, recording: Recording) -> np.ndarray:
    """Return the poses, N,16 in the bench's frame, that the actions ask for."""
    goals = np.zeros((len(steps.action), 16))
    for arm in recording.arms:
        action = np.asarray(steps.action, np.float64)[:, ARM_ACTION[arm]]
        state = np.asarray(steps.proprio, np.float64)[:, ARM_PROPRIO[arm]]
        position_m, turn = action[:, :3], Rotation.from_rotvec(action[:, 3:6])
        if recording.layout == OSC_DELTA_BASE:
            position_m = state[:, :3] + STEP_M * action[:, :3]
            turn = Rotation.from_rotvec(STEP_RAD * action[:, 3:6]) * rotation_from_wxyz(state[:, 3:7])
        goals[:, ARM_PROPRIO[arm]] = np.hstack([position_m, wxyz_from_xyzw(turn.as_quat()), action[:, 6:]])
    return goals
