"""Cuts clips from episodes: images, states and actions from one control step on, as training needs them.

In: a data set folder, the shape of a clip. Out: samples of normalised tensors with masks.
Read next: `augment.py`, which changes the images; `batches.py`, which makes batches.

Letters: F frames (the current one and the future ones), K actions, V views, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from evalkit.contracts.spec import OSC_DELTA_BASE, still_action
from evalkit.contracts.types import ACTION_DIM, ARM_ACTION, ARM_PROPRIO
from evalkit.dataset.depth_video import DepthRange, video_from_depth
from evalkit.dataset.layout import BrokenEpisode, Camera, DataSetError, Track, read_track
from evalkit.dataset.videos import UnreadableVideo, read_frames
from xwam.config import W_POSITIVE, Bounds, ModelConfig
from xwam.robots.actions import normalise, with_quaternions_near
from xwam.training.augment import Augmentation, crop, draw_augmentation

PastEnd = Literal["leave_out", "hold"]


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """The steps of an episode that a clip covers.

    Attributes:
        num_actions: K, one per control step.
        num_frames: F, including the current one.
        frame_stride: Control steps between frames.
        past_end: Handling of clips that reach beyond the episode. `leave_out` drops them, as the released training
            does. `hold` repeats the last frame and state; the actions do not move the robot and keep the gripper.
    """

    num_actions: int = 32
    num_frames: int = 9
    frame_stride: int = 4
    past_end: PastEnd = "leave_out"

    @property
    def span(self) -> int:
        """Return the number of steps from the start of a clip to its last frame or action.

        Example:
            >>> ClipShape().span
            32
        """
        return max(self.num_actions, (self.num_frames - 1) * self.frame_stride)

    def num_starts(self, num_frames: int) -> int:
        """Return the number of steps of an episode at which a clip may start.

        Example:
            >>> ClipShape().num_starts(60), ClipShape(past_end="hold").num_starts(60)
            (28, 60)
        """
        return num_frames if self.past_end == "hold" else max(0, num_frames - self.span)


class States(NamedTuple):
    """Normalised states and actions of one clip; masks are 1 where the loss counts.

    `action_KA` holds the actions to learn. `executed_KA` holds the actions that the robot executed, whose outcome the
    images show.
    """

    proprio_PS: np.ndarray
    proprio_mask_PS: np.ndarray
    action_KA: np.ndarray
    action_mask_KA: np.ndarray
    executed_KA: np.ndarray


class Sample(NamedTuple):
    """One clip; videos are 3,F,V,H,W in [-1, 1]."""

    video_CFVHW: Tensor
    depth_CFVHW: Tensor
    proprio_PS: Tensor
    proprio_mask_PS: Tensor
    action_KA: Tensor
    action_mask_KA: Tensor
    executed_KA: Tensor
    instruction: str


# ---- states and actions


def clip_states(
    track: Track,
    start: int,
    shape: ClipShape,
    bounds: Bounds,
    *,
    quat_side_wxyz: Sequence[float] = W_POSITIVE,
) -> States:
    """Return the states and actions of the clip that starts at a step.

    Args:
        track: The episode.
        start: Control step of the current frame.
        shape: The steps of a clip.
        bounds: Values that become -1 and 1.
        quat_side_wxyz: Sign convention of quaternions, see `ModelConfig`.

    Raises:
        IndexError: If no clip starts there.
    """
    if not 0 <= start < shape.num_starts(track.num_frames):
        raise IndexError(f"{track.key} has no clip at step {start}: {shape.num_starts(track.num_frames)} starts.")
    last = track.num_frames - 1
    frames = np.minimum(start + np.arange(shape.num_frames) * shape.frame_stride, last)
    steps = start + np.arange(shape.num_actions)
    trusted = track.trusted[np.minimum(steps, last)]
    outcome_of = track.executed if track.raw and track.executed is not None else track.action
    action, executed = (
        np.where((steps > last)[:, None], _still_action(track), rows[np.minimum(steps, last)])
        for rows in (track.action, outcome_of)
    )
    proprio_mask, action_mask = _mask(ARM_PROPRIO, track.arms, 16), _mask(ARM_ACTION, track.arms, 14)
    proprio = with_quaternions_near(track.proprio[frames], track.arms, quat_side_wxyz)
    return States(
        proprio_PS=normalise(proprio, bounds.proprio_low, bounds.proprio_high, dtype=np.float32) * proprio_mask,
        proprio_mask_PS=np.repeat(proprio_mask[None], shape.num_frames, 0),
        action_KA=normalise(action, bounds.action_low, bounds.action_high, dtype=np.float32) * action_mask,
        action_mask_KA=action_mask * (trusted | (steps > last))[:, None].astype(np.float32),
        executed_KA=normalise(executed, bounds.action_low, bounds.action_high, dtype=np.float32) * action_mask,
    )


def _still_action(track: Track) -> np.ndarray:
    """Return the action that moves nothing after the last step of an episode."""
    return still_action(track.action[-1], OSC_DELTA_BASE) if track.raw else np.zeros(ACTION_DIM, np.float32)


def _mask(columns: Mapping[str, slice], arms: Sequence[str], size: int) -> np.ndarray:
    mask = np.zeros(size, np.float32)
    for arm in arms:
        mask[columns[arm]] = 1
    return mask


# ---- images


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How the images of a clip are read.

    Attributes:
        image_hw_px: Image size of the model.
        crop_frac: Share of rows and columns that is kept: at a random position in training, else in the middle.
        depth_range: Map from metres to 8-bit depth; must equal the map that the data set states, if it states one.
        exact_depth: Whether depth comes from the millimetres instead of the 8-bit video.
    """

    image_hw_px: tuple[int, int]
    crop_frac: float = 0.95
    depth_range: DepthRange | None = None
    exact_depth: bool = False


def read_images(camera: Camera, wanted: Sequence[int], settings: ImageSettings) -> tuple[Tensor, Tensor]:
    """Return RGB and depth of one view, F,3,H,W in [-1, 1] each, in the model's size; depth in three equal channels.

    Resized as in the release (data/robot_dataset.py): RGB bilinear without antialiasing, depth by `nearest-exact`.

    Raises:
        DataSetError: If there is no depth, or it uses another map.
        UnreadableVideo: If a file is broken.
    """
    frames = [camera.start + index for index in wanted]
    rgb = torch.from_numpy(read_frames(camera.rgb_path, frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
    depth = _depth(camera, frames, settings)
    size = settings.image_hw_px
    if tuple(rgb.shape[-2:]) != size:
        rgb = F.interpolate(rgb, size, mode="bilinear", align_corners=False)
    if tuple(depth.shape[-2:]) != size:
        depth = F.interpolate(depth, size, mode="nearest-exact")
    return rgb, depth


def _depth(camera: Camera, frames: Sequence[int], settings: ImageSettings) -> Tensor:
    expected, stored = settings.depth_range, camera.depth_range
    if settings.exact_depth:
        if camera.depth_mm_path is None or expected is None:
            raise DataSetError(f"{camera.rgb_path} has no depth in millimetres, or the model has no map for it.")
        depth_m = read_frames(camera.depth_mm_path, frames, "gray16le").astype(np.float32) / 1000
        return torch.from_numpy(video_from_depth(depth_m, expected))[:, None].expand(-1, 3, -1, -1)
    if camera.depth_path is None:
        raise DataSetError(f"{camera.rgb_path} has no depth video.")
    if expected is not None and stored is not None and expected != stored:
        raise DataSetError(f"{camera.depth_path} was made with {stored}, the model expects {expected}.")
    return torch.from_numpy(read_frames(camera.depth_path, frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


# ---- the data set


class ClipDataset(Dataset[Sample]):
    """All clips of a data set; reading a clip opens the files of its episode only.

    Args:
        root: The data set.
        lengths: Usable episodes and their numbers of frames, from `scan`.
        shape: The steps of a clip.
        images: How images are read.
        bounds: Values that become -1 and 1.
        augmentation: Colour jitter and random crops; None for neither, as in validation.
        quat_side_wxyz: Sign convention of quaternions, see `ModelConfig`.
    """

    def __init__(
        self,
        root: Path,
        lengths: Mapping[str, int],
        *,
        shape: ClipShape,
        images: ImageSettings,
        bounds: Bounds,
        augmentation: Augmentation | None,
        quat_side_wxyz: Sequence[float] = W_POSITIVE,
    ) -> None:
        self.root, self.shape, self.images = root, shape, images
        self.quat_side_wxyz = quat_side_wxyz
        self.bounds, self.augmentation = bounds, augmentation
        self.keys = list(lengths)
        self._starts = [shape.num_starts(count) for count in lengths.values()]
        self._ends = np.cumsum(self._starts)
        self._track = lru_cache(maxsize=4096)(lambda key: read_track(root, key))

    @classmethod
    def for_model(
        cls,
        root: Path,
        lengths: Mapping[str, int],
        model: ModelConfig,
        *,
        crop_frac: float,
        past_end: PastEnd,
        augmentation: Augmentation | None,
        exact_depth: bool = False,
    ) -> ClipDataset:
        """Return the clips in the form that a model needs."""
        shape = ClipShape(
            num_actions=model.num_actions,
            num_frames=1 + model.num_future_frames,
            frame_stride=model.frame_stride,
            past_end=past_end,
        )
        images = ImageSettings(
            image_hw_px=model.image_hw_px,
            crop_frac=crop_frac,
            depth_range=model.depth_range,
            exact_depth=exact_depth,
        )
        return cls(
            root,
            lengths,
            shape=shape,
            images=images,
            bounds=model.bounds,
            augmentation=augmentation,
            quat_side_wxyz=model.quat_side_wxyz,
        )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def without_clip(self) -> list[str]:
        """Return the episodes that are too short for a clip."""
        return [key for key, count in zip(self.keys, self._starts, strict=True) if not count]

    def where(self, index: int) -> tuple[str, int]:
        """Return the episode and the control step at which clip `index` starts."""
        if not 0 <= index < len(self):
            raise IndexError(f"Clip {index} does not exist; there are {len(self)} clips.")
        episode = int(np.searchsorted(self._ends, index, side="right"))
        return self.keys[episode], index - (int(self._ends[episode - 1]) if episode else 0)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index, np.random.default_rng(index))

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return one clip; `rng` makes every random choice.

        Raises:
            BrokenEpisode: If a file of its episode is broken.
        """
        key, start = self.where(index)
        numbers = self.numbers(index, rng)
        track, shape = self.track(key), self.shape
        wanted = np.minimum(start + np.arange(shape.num_frames) * shape.frame_stride, track.num_frames - 1)
        video_CFVHW, depth_CFVHW = self._images(track, wanted.tolist(), rng)
        return Sample(video_CFVHW, depth_CFVHW, *numbers)

    def numbers(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, str]:
        """Return the states, actions and prompt of one clip, in the order of `Sample`."""
        key, start = self.where(index)
        track = self.track(key)
        states = clip_states(track, start, self.shape, self.bounds, quat_side_wxyz=self.quat_side_wxyz)
        proprio, proprio_mask, action, action_mask, executed = (torch.from_numpy(values) for values in states)
        instruction = track.instructions[int(rng.integers(len(track.instructions)))]
        return proprio, proprio_mask, action, action_mask, executed, instruction

    def track(self, key: str) -> Track:
        """Return an episode without its images; recent ones are cached."""
        return self._track(key)

    def whole_episode(self, track: Track) -> tuple[Tensor, Tensor]:
        """Return all images of an episode, 3,N,V,H,W, without augmentation."""
        return self._images(track, list(range(track.num_frames)), None)

    def _images(self, track: Track, wanted: Sequence[int], rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        drawn = None
        if self.augmentation is not None and rng is not None:
            drawn = draw_augmentation(self.augmentation, len(track.cameras), rng)
        views = []
        for view_idx, camera in enumerate(track.cameras):
            try:
                rgb, depth = read_images(camera, wanted, self.images)
            except UnreadableVideo as error:
                raise BrokenEpisode(f"{track.key}: {error}") from error
            position = None if drawn is None else drawn.positions[view_idx]
            rgb, depth = crop(rgb, depth, self.images.crop_frac, position)
            views.append((rgb if drawn is None else drawn.jitter(rgb), depth))
        video_FCVHW, depth_FCVHW = (torch.stack(frames, dim=2) for frames in zip(*views, strict=True))
        return video_FCVHW.transpose(0, 1), depth_FCVHW.transpose(0, 1)
