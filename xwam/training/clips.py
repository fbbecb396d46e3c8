"""Clips: what training sees of an episode, from one control step on.

In: a data set folder, the shape of a clip. Out: samples of normalised tensors with masks; which clips there are.
Read next: `augment.py` for what is done to the pictures; `../training/batches.py`, which makes batches of them.

Letters: F frames (the seen one and the future ones), K actions, V views, H W rows and columns.
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

from evalkit.contracts.types import ARM_ACTION, ARM_PROPRIO
from evalkit.dataset.depth_video import DepthRange, video_from_depth
from evalkit.dataset.layout import BrokenEpisode, Camera, DataSetError, Track, read_track
from evalkit.dataset.videos import UnreadableVideo, read_frames
from xwam.config import W_POSITIVE, Bounds, ModelConfig
from xwam.robots.actions import with_quaternions_near
from xwam.training.augment import Augmentation, crop, draw_augmentation

PastEnd = Literal["leave_out", "hold"]


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """Which steps of an episode a clip takes.

    Attributes:
        num_actions: K, one a control step.
        num_frames: F, the seen one among them.
        frame_stride: Control steps between frames.
        past_end: What to do with clips that reach beyond the episode: `leave_out` as the released training does, or
            `hold`: the last frame and state stay, the robot is told not to move and to leave the gripper as it is.
    """

    num_actions: int = 32
    num_frames: int = 9
    frame_stride: int = 4
    past_end: PastEnd = "leave_out"

    @property
    def span(self) -> int:
        """Return how many steps after its start a clip's last number lies.

        Example:
            >>> ClipShape().span
            32
        """
        return max(self.num_actions, (self.num_frames - 1) * self.frame_stride)

    def num_starts(self, num_frames: int) -> int:
        """Return at how many steps of an episode a clip may start.

        Example:
            >>> ClipShape().num_starts(60), ClipShape(past_end="hold").num_starts(60)
            (28, 60)
        """
        return num_frames if self.past_end == "hold" else max(0, num_frames - self.span)


class States(NamedTuple):
    """States and actions of one clip, normalised; masks are 1 where there is loss.

    `executed_KA` is what the robot was really told and the pictures show the outcome of; `action_KA` is what to learn.
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
    """Return the numbers of the clip that starts at a step.

    Args:
        track: The episode.
        start: Control step of the seen frame.
        shape: Which steps follow.
        bounds: Sent to -1 and 1.
        quat_side_wxyz: Side on which quaternions are given, see `ModelConfig`.

    Raises:
        IndexError: If the clip reaches beyond an episode that is not to be held.
    """
    if not 0 <= start < shape.num_starts(track.num_frames):
        raise IndexError(f"{track.key} has no clip at step {start}: {shape.num_starts(track.num_frames)} starts.")
    last = track.num_frames - 1
    seen = np.minimum(start + np.arange(shape.num_frames) * shape.frame_stride, last)
    steps = start + np.arange(shape.num_actions)
    trusted = track.trusted[np.minimum(steps, last)]
    told = track.executed if track.raw and track.executed is not None else track.action
    action, executed = (
        np.where((steps > last)[:, None], _standing_still(track), rows[np.minimum(steps, last)])
        for rows in (track.action, told)
    )
    proprio_mask, action_mask = _mask(ARM_PROPRIO, track.arms, 16), _mask(ARM_ACTION, track.arms, 14)
    proprio = with_quaternions_near(track.proprio[seen], track.arms, quat_side_wxyz)
    return States(
        proprio_PS=scaled(proprio, bounds.proprio_low, bounds.proprio_high) * proprio_mask,
        proprio_mask_PS=np.repeat(proprio_mask[None], shape.num_frames, 0),
        action_KA=scaled(action, bounds.action_low, bounds.action_high) * action_mask,
        action_mask_KA=action_mask * (trusted | (steps > last))[:, None].astype(np.float32),
        executed_KA=scaled(executed, bounds.action_low, bounds.action_high) * action_mask,
    )


def scaled(values: np.ndarray, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    """Return 2 (x - low) / (high - low) - 1; in float32 from end to end, so that it equals the released loader's.

    Example:
        >>> scaled(np.float32([0.0, 5.0, 7.0]), (-1.0, 0.0, 0.0), (1.0, 10.0, 0.0)).tolist()
        [0.0, 0.0, 0.0]
    """
    bottom, top = np.asarray(low, np.float32), np.asarray(high, np.float32)
    span = top - bottom
    return np.where(span > 0, 2 * (values - bottom) / np.where(span > 0, span, np.float32(1)) - 1, np.float32(0))


def _standing_still(track: Track) -> np.ndarray:
    """Return the action that moves nothing: zeros, but a controller's gripper command goes on."""
    still = np.zeros(14, np.float32)
    if track.raw:
        for arm in track.arms:
            still[ARM_ACTION[arm].stop - 1] = track.action[-1, ARM_ACTION[arm].stop - 1]
    return still


def _mask(columns: Mapping[str, slice], arms: Sequence[str], size: int) -> np.ndarray:
    mask = np.zeros(size, np.float32)
    for arm in arms:
        mask[columns[arm]] = 1
    return mask


# ---- pictures


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """What becomes of the pictures of a clip.

    Attributes:
        image_hw_px: Size that the model sees.
        crop_frac: Share of rows and columns that is kept, at a drawn place in training, else in the middle.
        depth_range: Map of the 8-bit depth; must equal the one that the data set names, where it names one.
        exact_depth: Whether depth is taken from the millimetres rather than from the 8-bit video.
    """

    image_hw_px: tuple[int, int]
    crop_frac: float = 0.95
    depth_range: DepthRange | None = None
    exact_depth: bool = False


def read_images(camera: Camera, wanted: Sequence[int], settings: ImageSettings) -> tuple[Tensor, Tensor]:
    """Return RGB and depth of one view, F,3,H,W in [-1, 1] each, in the model's size; depth in three equal channels.

    Raises:
        DataSetError: If the depth was mapped otherwise, or is not there.
        UnreadableVideo: If a file is broken.
    """
    frames = [camera.start + index for index in wanted]
    rgb = torch.from_numpy(read_frames(camera.rgb_path, frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
    depth = _depth(camera, frames, settings)
    size = settings.image_hw_px
    if tuple(rgb.shape[-2:]) != size:
        rgb = F.interpolate(rgb, size, mode="bilinear", align_corners=False)
    if tuple(depth.shape[-2:]) != size:
        depth = F.interpolate(depth, size, mode="nearest")
    return rgb, depth


def _depth(camera: Camera, frames: Sequence[int], settings: ImageSettings) -> Tensor:
    expected, stored = settings.depth_range, camera.depth_range
    if settings.exact_depth:
        if camera.depth_mm_path is None or expected is None:
            raise DataSetError(f"{camera.rgb_path}: there is no depth in millimetres beside it, or no map for it.")
        depth_m = read_frames(camera.depth_mm_path, frames, "gray16le").astype(np.float32) / 1000
        return torch.from_numpy(video_from_depth(depth_m, expected))[:, None].expand(-1, 3, -1, -1)
    if camera.depth_path is None:
        raise DataSetError(f"{camera.rgb_path}: there is no depth video beside it.")
    if expected is not None and stored is not None and expected != stored:
        raise DataSetError(f"{camera.depth_path} was made with {stored}, the model expects {expected}.")
    return torch.from_numpy(read_frames(camera.depth_path, frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


# ---- the data set


class ClipDataset(Dataset[Sample]):
    """All clips of a data set; clip n is found without reading any file but its own.

    Args:
        root: The data set.
        lengths: Usable episodes and their frames, from `scan`.
        shape: Which steps a clip takes.
        images: What becomes of its pictures.
        bounds: Normalisation.
        augmentation: Colour jitter and whether crops move; None for validation.
        quat_side_wxyz: Side on which quaternions are given, see `ModelConfig`.
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
        self._ends = np.cumsum([shape.num_starts(count) for count in lengths.values()])
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
        """Return the clips as a model needs them."""
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

    def where(self, index: int) -> tuple[str, int]:
        """Return the episode and the control step at which clip `index` starts."""
        if not 0 <= index < len(self):
            raise IndexError(f"There are {len(self)} clips, none has the number {index}.")
        episode = int(np.searchsorted(self._ends, index, side="right"))
        return self.keys[episode], index - (int(self._ends[episode - 1]) if episode else 0)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index, np.random.default_rng(index))

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Return one clip; every choice about it comes from `rng`.

        Raises:
            BrokenEpisode: If one of its files turns out broken.
        """
        key, start = self.where(index)
        numbers = self.numbers(index, rng)
        track, shape = self.track(key), self.shape
        wanted = np.minimum(start + np.arange(shape.num_frames) * shape.frame_stride, track.num_frames - 1)
        video_CFVHW, depth_CFVHW = self._images(track, wanted.tolist(), rng)
        return Sample(video_CFVHW, depth_CFVHW, *numbers)

    def numbers(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, str]:
        """Return the numbers of one clip and a prompt, in the order of `Sample`."""
        key, start = self.where(index)
        track = self.track(key)
        found = clip_states(track, start, self.shape, self.bounds, quat_side_wxyz=self.quat_side_wxyz)
        proprio, proprio_mask, action, action_mask, executed = (torch.from_numpy(part) for part in found)
        instruction = track.instructions[int(rng.integers(len(track.instructions)))]
        return proprio, proprio_mask, action, action_mask, executed, instruction

    def track(self, key: str) -> Track:
        """Return an episode's numbers; the most recent ones are kept."""
        return self._track(key)

    def whole_episode(self, track: Track) -> tuple[Tensor, Tensor]:
        """Return all pictures of an episode, 3,N,V,H,W, without augmentation."""
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
            place = (0.5, 0.5) if drawn is None else drawn.places[view_idx]
            rgb, depth = crop(rgb, depth, self.images.crop_frac, place)
            views.append((rgb if drawn is None else drawn.jitter(rgb), depth))
        video_FCVHW, depth_FCVHW = (torch.stack(part, dim=2) for part in zip(*views, strict=True))
        return video_FCVHW.transpose(0, 1), depth_FCVHW.transpose(0, 1)
