"""Writes the episodes of any bench in the released layout, without loss.

In: observations and actions of an episode, step by step. Out: its videos and its JSON; `metadata.json` at the end.
Read next: `layout.py`, which describes the layout and reads it.

Letters: N control steps, V views, H W rows and columns.

The JSON of an episode is written last. Without it, the episode does not count.
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
from evalkit.contracts.spec import EE_POSE_BASE, OSC_DELTA_BASE, OSC_STEP_M, OSC_STEP_RAD, EnvSpec
from evalkit.contracts.types import ARM_ACTION, ARM_PROPRIO, QUAT_WXYZ, ROTVEC_RAD, Observation
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.axes import SAME_AXES, Axes, rotation_from_wxyz
from evalkit.dataset.depth_video import DepthRange, depth_bytes, millimetres
from evalkit.dataset.layout import CAMERA_KINDS
from evalkit.dataset.videos import write_video

EPISODES_PER_CHUNK = 1000
SAME_MATRIX = 1e-6
"""Largest spread of a value of a constant camera matrix over an episode: metres, pixels."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A camera to record.

    Attributes:
        name: Readers sort views by name, so the names must be sorted in the order of the bench.
        kind: `dynamic` for a camera that moves with an arm.
    """

    name: str
    kind: Literal["static", "dynamic"]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The settings that all episodes of a data set share.

    Attributes:
        views: Cameras, in order.
        arms: Arms that exist.
        layout: Action layout, `osc_delta_base` or `ee_pose_base`.
        control_hz: Control rate; there is one frame per control step.
        depth_range: Map from metres to the 8-bit depth video.
        axes: Rotation between the frames of the bench and those of the released data.
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
            raise ValueError(
                f"Actions of the layout '{self.layout}' cannot be recorded: a data set holds those of end effectors "
                f"({OSC_DELTA_BASE}, {EE_POSE_BASE})."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Steps:
    """An episode, step by step, in the frames and units of the bench.

    Attributes:
        rgb: N,V,H,W,3 uint8, the images before each action.
        depth: N,V,H,W float32 metres, 0 where unknown. None for an episode without depth.
        proprio: N,16 float32.
        action: N,14 float32, the actions to learn.
        executed: N,14 float32, the actions that the robot executed. None if they are the same.
        trusted: N bool, actions to learn from. None for all.
        intrinsics: N,V,3,3, pixels, of the images as recorded. None if unknown.
        T_base_cam: N,V,4,4, camera in the robot base frame. None if unknown.
    """

    rgb: np.ndarray
    depth: np.ndarray | None
    proprio: np.ndarray
    action: np.ndarray
    executed: np.ndarray | None = None
    trusted: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    T_base_cam: np.ndarray | None = None

    @classmethod
    def of(cls, observations: Sequence[Observation], action: np.ndarray, executed: np.ndarray | None = None) -> Steps:
        """Return the steps of an episode from the observation before each action."""
        names = ("rgb", "depth", "proprio", "intrinsics", "T_base_cam")
        stacked = {name: np.stack([getattr(observation, name) for observation in observations]) for name in names}
        return cls(action=action, executed=executed, **stacked)


def recording_of(spec: EnvSpec, axes: Axes) -> Recording:
    """Return how the episodes of an env are written; views are numbered, because data sets are read in name order."""
    return Recording(
        views=tuple(
            View(name=f"{index}_{camera.name}", kind=CAMERA_KINDS[camera.kind])
            for index, camera in enumerate(spec.cameras)
        ),
        arms=spec.arms,
        layout=spec.action_layout,
        control_hz=spec.control_hz,
        depth_range=DepthRange(),
        axes=axes,
    )


def episode_key(index: int) -> str:
    """Return the key of an episode.

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
    """Write one episode and return its key. Each file appears whole or not at all, the JSON last.

    Args:
        root: The data set.
        index: Number of the episode.
        steps: Its observations and actions.
        recording: The settings of the data set.
        instructions: Prompts; each of them describes the episode.
        about: Bench, task, seed and policy of the episode.

    Raises:
        ValueError: If lengths differ, a state or an action is not finite, an instruction is missing, or a depth does
            not fit into 16 bits of millimetres.
    """
    key = episode_key(index)
    _check(key, steps, recording)
    if isinstance(instructions, str) or not instructions or not all(one.strip() for one in instructions):
        raise ValueError(
            f"{key}: a list of one or more instructions is needed, none of them empty, got {instructions!r}."
        )
    content = {
        "num_frames": len(steps.rgb),
        "instructions": list(instructions),
        "observations": _write_views(root, key, steps, recording),
        "proprios": _poses(recording.axes.model_from_sim(steps.proprio, recording.arms), recording.arms),
        "actions": _actions(steps, recording),
        "about": (about or EpisodeAbout()).to_json(),
    }
    write_whole(root / "data" / f"{key}.json", json.dumps(content))
    return key


def write_metadata(root: Path, *, on_broken: Callable[[str], None] = print) -> dict[str, int]:
    """Write `metadata.json`, the number of frames of every episode that has a JSON; return its content.

    Without any episode, no file is written.

    Args:
        root: The data set.
        on_broken: Called with a sentence for each broken JSON; its episode is left out.
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
    """Return the `about` of an episode's JSON; None if the file is missing or broken."""
    content = _read_content(path)
    try:
        return None if content is None else EpisodeAbout.from_json(content.get("about") or {})
    except ValueError:
        return None


def _read_content(path: Path) -> dict[str, Any] | None:
    """Return the content of an episode's JSON; None if the file is missing or broken."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    count = content.get("num_frames") if isinstance(content, dict) else None
    return content if type(count) is int and count > 0 else None


def _write_views(root: Path, key: str, steps: Steps, recording: Recording) -> dict[str, dict[str, Any]]:
    """Write the videos of all views; return their entries in the episode's JSON."""
    entries = {}
    for view_idx, view in enumerate(recording.views):
        rgb = f"video/{view.name}/{key}.mp4"
        write_video(root / rgb, steps.rgb[:, view_idx], fps=recording.control_hz)
        depth_m = None if steps.depth is None else steps.depth[:, view_idx]
        entries[view.name] = {
            "type": view.kind,
            "rgb_path": rgb,
            **({} if depth_m is None else _write_depth(root, f"{view.name}/{key}", depth_m, recording)),
            "start": 0,
            "end": len(steps.rgb),
            "fps": recording.control_hz,
            **_matrices(steps, view_idx, view, recording.axes),
        }
    return entries


def _write_depth(root: Path, name: str, depth_m: np.ndarray, recording: Recording) -> dict[str, Any]:
    """Write both depth videos of a view, N,H,W metres; return what the episode's JSON says about them."""
    grey, exact = f"depth/{name}.mp4", f"depth_mm/{name}.mkv"
    depth_mm = millimetres(depth_m)
    depth_u8 = np.repeat(depth_bytes(depth_m, recording.depth_range)[..., None], 3, axis=-1)
    write_video(root / grey, depth_u8, fps=recording.control_hz)
    write_video(root / exact, depth_mm, fps=recording.control_hz)
    return {"depth_path": grey, "depth_mm_path": exact, "depth_range": asdict(recording.depth_range)}


def _check(key: str, steps: Steps, recording: Recording) -> None:
    count, views = len(steps.rgb), len(recording.views)
    given = {name: value for name, value in vars(steps).items() if value is not None}
    wrong = {name: value.shape for name, value in given.items() if len(value) != count}
    fits = steps.depth is None or steps.rgb.shape[:4] == steps.depth.shape
    if wrong or count == 0 or not fits or steps.rgb.shape[1] != views:
        shapes = {name: value.shape for name, value in given.items()}
        raise ValueError(f"{key}: {views} views and equal numbers of steps are needed, got {shapes}.")
    for name in ("proprio", "action", "executed"):
        if name in given and not (finite := np.isfinite(given[name]).all(axis=1)).all():
            raise ValueError(f"{key}: '{name}' must hold finite values only; step {finite.argmin()} does not.")


def _matrices(steps: Steps, view_idx: int, view: View, axes: Axes) -> dict[str, list[list[float]]]:
    """Return the intrinsics of a view, and the pose of a static one in the data's base, if known and constant.

    The pose of a moving camera follows from the end effector's pose and the hand-eye transform, so it is not written.
    """
    known = {"intrinsics": steps.intrinsics, "T_base_cam": steps.T_base_cam if view.kind == "static" else None}
    constant = {
        name: np.asarray(matrices[0, view_idx], np.float64)
        for name, matrices in known.items()
        if matrices is not None and np.ptp(matrices[:, view_idx], axis=0).max() <= SAME_MATRIX
    }
    if "T_base_cam" in constant:
        constant["T_base_cam"] = axes.base_to_model(constant["T_base_cam"])
    return {name: matrix.tolist() for name, matrix in constant.items()}


def _poses(proprio: np.ndarray, arms: Sequence[str]) -> dict[str, list[list[float]]]:
    """Return states, N,16, as tables of the layout."""
    tables = {}
    for arm in arms:
        state = np.asarray(proprio, np.float64)[:, ARM_PROPRIO[arm]]
        tables[f"{arm}_ee_pos"] = state[:, :3].tolist()
        matrices = rotation_from_wxyz(state[:, QUAT_WXYZ]).as_matrix()
        tables[f"{arm}_ee_rotm"] = matrices.reshape(-1, 9).tolist()
        tables[f"{arm}_gripper_pos"] = state[:, 7:].tolist()
    return tables


def _actions(steps: Steps, recording: Recording) -> dict[str, list[list[float]]]:
    """Return actions as tables of the layout: goal poses, and raw actions if the controller takes deltas."""
    arms, executed = recording.arms, steps.action if steps.executed is None else steps.executed
    tables = _poses(recording.axes.model_from_sim(_goals(steps, recording), arms), arms)
    tables["executed"] = np.asarray(executed, np.float64).tolist()
    if steps.trusted is not None:
        tables["trusted"] = np.asarray(steps.trusted, np.float64)[:, None].tolist()
    if recording.layout == OSC_DELTA_BASE:
        opens = np.array([1.0] * 6 + [-1.0])  # the released data keep robosuite's sign: 1 closes
        raw = [np.asarray(steps.action, np.float64)[:, ARM_ACTION[arm]] * opens for arm in arms]
        tables["raw_actions"] = np.hstack(raw).tolist()
    return tables


def _goals(steps: Steps, recording: Recording) -> np.ndarray:
    """Return the goal poses of the actions, N,16 in the frame of the bench."""
    goals = np.zeros((len(steps.action), 16))
    for arm in recording.arms:
        action = np.asarray(steps.action, np.float64)[:, ARM_ACTION[arm]]
        state = np.asarray(steps.proprio, np.float64)[:, ARM_PROPRIO[arm]]
        position_m, turn = action[:, :3], Rotation.from_rotvec(action[:, ROTVEC_RAD])
        if recording.layout == OSC_DELTA_BASE:
            position_m = state[:, :3] + OSC_STEP_M * action[:, :3]
            turn = Rotation.from_rotvec(OSC_STEP_RAD * action[:, ROTVEC_RAD]) * rotation_from_wxyz(state[:, QUAT_WXYZ])
        goals[:, ARM_PROPRIO[arm]] = np.hstack([position_m, wxyz_from_xyzw(turn.as_quat()), action[:, 6:]])
    return goals
