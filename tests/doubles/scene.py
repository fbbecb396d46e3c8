"""Clips of a scene known in closed form, for tests and timings without a simulator.

In: a seed and sizes. Out: a `ClipChunk` of a room with a moving ball and a prediction of it with known errors; a run
folder full of them.
Read next: `evalkit/score/chunk.py`, which scores it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np

from evalkit.contracts.geometry import (
    intrinsics_from_fovy,
    quat_from_matrix,
    transform,
)
from evalkit.contracts.spec import OSC_DELTA_BASE, CameraSpec, EnvSpec
from evalkit.contracts.types import ACTION_DIM, PROPRIO_DIM, Episode, Prediction
from evalkit.store.clips import ClipChunk, ClipHeader, ClipWriter, Frames, depth_m_from_mm, depth_mm_from_m
from evalkit.store.plan import PartPlan, Plan
from evalkit.store.records import EpisodeRecord, Outcome
from evalkit.store.run_folder import HeldRun

T_EE_CAM = transform(np.diag([1.0, 1.0, 1.0]), np.array([0.05, 0.0, -0.08]))
ROOM_M = np.array([[-1.2, -1.0, 0.0], [1.2, 1.0, 1.6]])
"""Opposite corners of the room, base frame."""


def scene_spec(image_hw_px: tuple[int, int]) -> EnvSpec:
    """Return the cameras of the scene: two static ones, one on the right arm's wrist."""
    hand_eye = tuple(tuple(float(value) for value in row) for row in T_EE_CAM)
    return EnvSpec(
        env_id="scene/ball",
        cameras=(
            CameraSpec(name="front", kind="static"),
            CameraSpec(name="side", kind="static"),
            CameraSpec(name="wrist", kind="wrist", arm="right", T_ee_cam=hand_eye),
        ),
        image_hw_px=image_hw_px,
        arms=("right",),
        action_layout=OSC_DELTA_BASE,
        control_hz=20.0,
    )


def scene_chunk(
    *,
    seed: int = 0,
    chunk_idx: int = 0,
    num_frames: int = 8,
    image_hw_px: tuple[int, int] = (256, 320),
    depth_error_frac: float = 0.03,
    rgb_error_u8: float = 8.0,
    pose_error_m: float = 0.004,
    backwards: bool = False,
) -> ClipChunk:
    """Return one chunk: the true room, and a prediction of it with smooth errors of the given sizes.

    Args:
        seed: Fixes everything.
        chunk_idx: Position in the episode.
        num_frames: F.
        image_hw_px: Height and width of every view.
        depth_error_frac: Standard deviation of the predicted depth's relative error, smooth over the image.
        rgb_error_u8: Standard deviation of the predicted colour's error, grey levels.
        pose_error_m: Standard deviation of the predicted end effector's position, a coordinate.
        backwards: The ball and the wrist move the other way from the start frame on.
    """
    rng = np.random.default_rng([seed, chunk_idx])
    start = _frames(num_frames=1, first=chunk_idx * num_frames, image_hw_px=image_hw_px)
    step = -1 if backwards else 1
    true = _frames(num_frames=num_frames, first=chunk_idx * num_frames + step, image_hw_px=image_hw_px, step=step)
    noise = _smooth_noise(rng, true.depth_fvhw_m.shape)
    depth_m = true.depth_fvhw_m * (1.0 + depth_error_frac * noise).astype(np.float32)
    rgb = true.rgb_fvhwc_u8 + rgb_error_u8 * _smooth_noise(rng, true.depth_fvhw_m.shape)[..., None]
    proprio = true.proprio_fd.copy()
    proprio[:, 8:11] += rng.normal(0.0, pose_error_m, (num_frames, 3)).astype(np.float32)
    return ClipChunk(
        chunk_idx=chunk_idx,
        step_idx=chunk_idx * num_frames * 4,
        num_executed=num_frames * 4,
        frame_stride=4,
        intrinsics_v33_px=_intrinsics(image_hw_px),
        start=start,
        true=true,
        actions_nd=rng.uniform(-1.0, 1.0, (num_frames * 4, ACTION_DIM)).astype(np.float32),
        predicted=Prediction(
            rgb=np.clip(np.rint(rgb), 0, 255).astype(np.uint8),
            depth=depth_m_from_mm(depth_mm_from_m(depth_m)),
            proprio=proprio,
        ),
    )


def write_scene_run(
    run_dir: Path,
    *,
    outcomes: Sequence[Outcome],
    num_chunks: int = 1,
    num_frames: int = 2,
    image_hw_px: tuple[int, int],
    alike: bool = False,
) -> None:
    """Write a run folder of one task, `ball`, with a clip for each episode that is a success or a failure.

    Args:
        run_dir: Where; must not exist yet.
        outcomes: How each episode ended, in order.
        image_hw_px: Height and width of every view.
        num_chunks: Chunks of each clip.
        num_frames: Frames of each chunk.
        alike: All chunks show the same: quick to write, for timings.
    """
    spec = scene_spec(image_hw_px)
    shown = scene_chunk(num_frames=num_frames, image_hw_px=image_hw_px) if alike else None
    episodes = tuple(_episode(index) for index in range(len(outcomes)))
    part = {"config": {}, "provenance": {"version": "1"}}
    plan = Plan(
        bench=PartPlan(name="scene", specs={"ball": spec.to_json()}, **part),
        policy=PartPlan(name="noise", specs={"noise": {"privileged_keys": [], "predicts": ["rgb", "depth"]}}, **part),
        setting="default",
        protocol="scene/closed-form",
        departures=(),
        seed=0,
        episodes=episodes,
    )
    with HeldRun(run_dir, plan) as folder:
        for episode, outcome in zip(episodes, outcomes, strict=True):
            clip = folder.clip_path(episode) if outcome in ("success", "failure") else None
            if clip is not None:
                header = ClipHeader(
                    episode=episode, env_spec=spec, policy_spec={}, outcome=outcome, plan_sha256=plan.sha256
                )
                chunks = [
                    scene_chunk(seed=episode.seed, chunk_idx=idx, num_frames=num_frames, image_hw_px=image_hw_px)
                    if shown is None
                    else replace(shown, chunk_idx=idx)
                    for idx in range(num_chunks)
                ]
                write_clip(clip, header, chunks)
            folder.append(_record(episode, outcome, None if clip is None else str(clip.relative_to(run_dir))))


def write_scene_folders(pred_dir: Path, true_dir: Path, chunk: ClipChunk) -> None:
    """Write one chunk of the scene as a folder of predictions and one of ground truth (`evalkit/score/folders.py`)."""
    assert chunk.predicted is not None
    size = chunk.true.rgb_fvhwc_u8.shape[2], chunk.true.rgb_fvhwc_u8.shape[3]
    cameras = scene_spec(size).cameras
    views = [
        {
            **asdict(camera),
            "intrinsics": chunk.intrinsics_v33_px[view].tolist(),
            "T_base_cam": chunk.true.T_base_cam_fv44[:, view].tolist(),
        }
        for view, camera in enumerate(cameras)
    ]
    (true_dir / "start").mkdir(parents=True)
    (true_dir / "cameras.json").write_text(json.dumps({"views": views}))
    for folder, images in ((true_dir, chunk.true), (pred_dir, chunk.predicted), (true_dir / "start", chunk.start)):
        rgb, depth_m, proprio = _arrays(images)
        for view, camera in enumerate(cameras):
            for what in ("rgb", "depth"):
                (folder / what / camera.name).mkdir(parents=True)
            for frame in range(len(rgb)):
                name = f"{camera.name}/{frame:04d}.png"
                _write_png(folder / "rgb" / name, rgb[frame, view][..., ::-1])
                _write_png(folder / "depth" / name, depth_mm_from_m(depth_m[frame, view]))
        np.savez(folder / "states.npz", proprio=proprio)


def _arrays(images: Frames | Prediction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if isinstance(images, Frames):
        return images.rgb_fvhwc_u8, images.depth_fvhw_m, images.proprio_fd
    assert images.depth is not None
    assert images.proprio is not None
    return images.rgb, images.depth, images.proprio


def _write_png(path: Path, image: np.ndarray) -> None:
    path.write_bytes(cv2.imencode(".png", np.ascontiguousarray(image))[1].tobytes())


def _episode(index: int) -> Episode:
    return Episode(
        bench="scene",
        setting="default",
        protocol="scene/closed-form",
        task="ball",
        index=index,
        seed=index,
        instruction="watch the ball",
        max_steps=100,
    )


def _record(episode: Episode, outcome: Outcome, clip: str | None) -> EpisodeRecord:
    return EpisodeRecord(
        outcome=outcome,
        task=episode.task,
        index=episode.index,
        seed=episode.seed,
        instruction=episode.instruction,
        blame="env" if outcome == "error" else None,
        reason={"error": "The simulator stopped.", "skipped": "No plan reaches the ball."}.get(outcome),
        clip=clip,
        scene={"ball": episode.index},
        first_state_sha256=f"{episode.index:064x}",
        settle_steps=20 if outcome == "success" else None,
        success_after_settling=episode.index == 0 if outcome == "success" else None,
    )


def _frames(*, num_frames: int, first: int, image_hw_px: tuple[int, int], step: int = 1) -> Frames:
    """Return frames `first`, `first + step`, ... of the true scene."""
    K = _intrinsics(image_hw_px)
    rgb, depth_m, proprio, poses = [], [], [], []
    for time in range(first, first + step * num_frames, step):
        T_base_ee = _look_at(np.array([0.5 + 0.01 * time, 0.1, 0.5]), np.array([0.4, 0.0, 0.1]))
        T_base_cam = [
            _look_at(np.array([0.9, -0.8, 1.2]), np.array([0.0, 0.0, 0.3])),
            _look_at(np.array([-0.9, -0.7, 1.0]), np.array([0.3, 0.2, 0.2])),
            T_base_ee @ T_EE_CAM,
        ]
        ball_m = np.array([0.3, 0.02 * time - 0.1, 0.15])
        views = [_render(K[view], T, ball_m, image_hw_px) for view, T in enumerate(T_base_cam)]
        rgb.append([view[0] for view in views])
        depth_m.append([view[1] for view in views])
        poses.append(T_base_cam)
        state = np.zeros(PROPRIO_DIM, np.float32)
        state[8:11], state[11:15], state[15] = T_base_ee[:3, 3], quat_from_matrix(T_base_ee[:3, :3]), 1.0
        proprio.append(state)
    return Frames(
        rgb_fvhwc_u8=np.array(rgb, np.uint8),
        depth_fvhw_m=depth_m_from_mm(depth_mm_from_m(np.array(depth_m))),
        proprio_fd=np.array(proprio, np.float32),
        T_base_cam_fv44=np.array(poses, np.float64),
    )


def _render(
    K: np.ndarray, T_base_cam: np.ndarray, ball_m: np.ndarray, image_hw_px: tuple[int, int], radius_m: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    """Return colour (a checker of the hit point) and depth of the room's walls and the ball, by ray casting."""
    height, width = image_hw_px
    v, u = np.mgrid[:height, :width].astype(np.float64)
    rays_cam = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], axis=-1)
    rays, origin = rays_cam @ T_base_cam[:3, :3].T, T_base_cam[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        walls = np.where(rays > 0, (ROOM_M[1] - origin) / rays, (ROOM_M[0] - origin) / rays)
    depth_m = np.nanmin(walls, axis=-1)
    a, b = np.sum(rays * rays, axis=-1), rays @ (origin - ball_m)
    inside = b * b - a * (np.dot(origin - ball_m, origin - ball_m) - radius_m**2)
    to_ball = np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0.0))) / a, np.inf)
    on_ball = (to_ball > 0) & (to_ball < depth_m)
    depth_m = np.where(on_ball, to_ball, depth_m)
    points = origin + depth_m[..., None] * rays
    checker = (np.floor(points / 0.1).sum(axis=-1) % 2).astype(bool)
    shade = np.where(checker, 180.0, 90.0)[..., None] * np.where(on_ball[..., None], [1.2, 0.5, 0.4], [0.9, 1.0, 1.1])
    return np.clip(np.rint(shade), 0, 255).astype(np.uint8), depth_m


def _look_at(position_m: np.ndarray, target_m: np.ndarray) -> np.ndarray:
    """Return a pose at a position whose z axis points to the target and whose y axis points down."""
    z = (target_m - position_m) / np.linalg.norm(target_m - position_m)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    return transform(np.stack([x, np.cross(z, x), z], axis=1), position_m)


def _intrinsics(image_hw_px: tuple[int, int]) -> np.ndarray:
    height, width = image_hw_px
    return np.stack([intrinsics_from_fovy(np.radians(60.0), height_px=height, width_px=width)] * 3)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return noise of standard deviation near 1 that changes over a sixteenth of the last two axes."""
    *leading, height, width = shape
    coarse = rng.normal(0.0, 1.0, (*leading, 17, 17))
    rows, columns = np.linspace(0.0, 15.999, height), np.linspace(0.0, 15.999, width)
    i, j = rows.astype(int), columns.astype(int)
    fi, fj = (rows - i)[:, None], (columns - j)[None, :]
    corner = [coarse[..., i[:, None] + di, j[None, :] + dj] for di in (0, 1) for dj in (0, 1)]
    return np.asarray(
        corner[0] * (1 - fi) * (1 - fj) + corner[1] * (1 - fi) * fj + corner[2] * fi * (1 - fj) + corner[3] * fi * fj
    )


def write_clip(path: Path, header: ClipHeader, chunks: Iterable[ClipChunk]) -> None:
    """Write one episode's clip."""
    writer = ClipWriter()
    for chunk in chunks:
        writer.add(chunk)
    writer.save(path, header)
