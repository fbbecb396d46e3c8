"""A world whose dynamics are known: a red point that actions push, and a green goal, drawn as images of 32 pixels.

In: a seed. Out: clips for a training, and what truly follows from actions.
Read next: `tests/unit/test_uwm_point_world.py`.

The point moves by 0.25 times the action in each of four steps, in a square from -1 to 1. Under the prompt `go` the
actions are those of an expert, which goes straight to the goal; under `wander` one random action is repeated.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from baselines.uwm.config import UwmConfig
from baselines.uwm.models import MODELS
from xwam.codecs.codec import encode_views
from xwam.config import ModelConfig
from xwam.flow.losses import Batch

GO, WANDER = "go", "wander"
NUM_STEPS, STEP_LENGTH, PIXELS, RADIUS_PX = 4, 0.25, 32, 4.0

EXPERT_SHARE = 1 / 4

SPAN = 0.75
"""Share of the image's half width that the square reaches."""

SCALE = 2.0
"""Standard deviation of latents and actions. Levels are shifted towards noise by 5, which suits videos of many pixels;
numbers of this size in place of 1 undo some of it, so that minutes of training see all levels."""

MEAN, STD, ACTION_STD = -0.9, 0.3 / SCALE, 0.58 / SCALE
"""Mean and unit of pixels, unit of actions."""

NETWORK = UwmConfig(
    width=64,
    ffn_width=128,
    num_heads=2,
    num_blocks=2,
    num_depth_blocks=0,
    num_views=1,
    patch_hw=(1, 1),
    place_grid=(2, 2),
    text_width=16,
    text_len=4,
    time_width=32,
    depth="none",
    video_prediction="clean",
    actions_per_frame=1,
)

MODEL: ModelConfig = replace(
    MODELS["nano"],
    name="uwm-point",
    network=NETWORK,
    image_hw_px=(PIXELS, PIXELS),
    views=("static",),
    num_actions=NUM_STEPS,
    num_future_frames=NUM_STEPS,
    frame_stride=1,
    execute_steps=NUM_STEPS,
)


class QuarterPixels:
    """A codec without loss worth naming here: the last frame of each four, at a quarter of its size."""

    channels = 48

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """Return 4x4 averaged pixels of three colours as the 48 channels of a cell."""
        small = torch.nn.functional.avg_pool3d(video_BCTHW[:, :, ::4], (1, 4, 4))
        return (rearrange(small, "b c t (h p) (w q) -> b (c p q) t h w", p=4, q=4) - MEAN) / STD

    def decode(self, latent_BCTHW: Tensor, seen_BCHW: Tensor | None = None) -> Tensor:
        """Return frames of a quarter of the size, one for each latent frame."""
        return rearrange(latent_BCTHW * STD + MEAN, "b (c p q) t h w -> b c t (h p) (w q)", p=4, q=4)


@dataclass(frozen=True, eq=False)
class Clips:
    """Clips of the world: positions N,5,2, goals N,2, actions N,4,2, and whether the expert acts."""

    position: np.ndarray
    goal: np.ndarray
    action: np.ndarray
    expert: np.ndarray

    def video(self) -> Tensor:
        """Return the images, N,3,F,V,H,W in [-1, 1]."""
        return drawn(self.position, self.goal)

    def batch(self, codec: QuarterPixels) -> Batch:
        """Return latents and actions; states are hidden, so that images are all there is to see."""
        video, count = encode_views(codec, self.video()), len(self.action)
        action, mask = torch.zeros(count, NUM_STEPS, 14), torch.zeros(count, NUM_STEPS, 14)
        action[..., :2], mask[..., :2] = torch.from_numpy(self.action) / ACTION_STD, 1
        states = torch.zeros(count, 1 + NUM_STEPS, 16)
        return Batch(
            video_BCTVHW=video,
            depth_BCTVHW=video[:, :0],
            action_BKA=action,
            proprio_BPS=states,
            action_mask_BKA=mask,
            proprio_mask_BPS=states,
            executed_BKA=action,
        )


def clips(count: int, rng: np.random.Generator, *, expert: bool | None = None) -> Clips:
    """Return clips; a quarter of them by the expert, or all or none."""
    start, goal = rng.uniform(-0.9, 0.9, (2, count, 2)).astype(np.float32)
    chosen = rng.random(count) < EXPERT_SHARE if expert is None else np.full(count, expert)
    position, action = [start], []
    wander = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    for _ in range(NUM_STEPS):
        straight = np.clip((goal - position[-1]) / STEP_LENGTH, -1, 1)
        pushed = np.where(chosen[:, None], straight, wander)
        moved = pushed_by(position[-1], pushed)
        action.append(pushed)
        position.append(moved)
    return Clips(np.stack(position, 1), goal, np.stack(action, 1).astype(np.float32), chosen)


def pushed_by(position: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Return positions after one action; the walls stop the point."""
    return np.clip(position + STEP_LENGTH * action, -1, 1).astype(np.float32)


def actions_of(action_BKA: Tensor) -> np.ndarray:
    """Return actions of the network in the units of the world, N,K,2."""
    return ACTION_STD * action_BKA[..., :2].numpy()


def outcome(position: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Return positions, N,2, after the actions N,K,2."""
    for step in range(action.shape[1]):
        position = pushed_by(position, np.clip(action[:, step], -1, 1))
    return position


def drawn(position: np.ndarray, goal: np.ndarray) -> Tensor:
    """Return images of positions, N,F,2, and goals, N,2, as N,3,F,V,H,W in [-1, 1]."""
    red = _blob(position)
    green = np.broadcast_to(_blob(goal[:, None]), red.shape)
    frames = np.stack([red, green, np.zeros_like(red)], axis=1)
    return torch.from_numpy(frames * 2 - 1)[:, :, :, None].float()


def found(video_NCFVHW: Tensor) -> np.ndarray:
    """Return where the red point is in the last frame of videos of any size, N,2: the centre of what is red."""
    red = ((video_NCFVHW[:, 0, -1, 0] + 1) / 2).double().numpy()
    weight = np.clip(red - 0.3 * red.max(axis=(1, 2), keepdims=True), 0, None)
    axis, total = _axis(red.shape[-1]), weight.sum(axis=(1, 2))
    return np.stack([(weight.sum(1) * axis).sum(1), (weight.sum(2) * axis).sum(1)], axis=1) / total[:, None] / SPAN


def _blob(position_NF2: np.ndarray) -> np.ndarray:
    """Return brightness, N,F,H,W; x is the column, y the row."""
    axis, radius = _axis(PIXELS), RADIUS_PX * 2 / PIXELS
    x, y = (np.exp(-(((axis - position_NF2[..., i, None] * SPAN) / radius) ** 2) / 2) for i in (0, 1))
    return y[..., :, None] * x[..., None, :]


def _axis(pixels: int) -> np.ndarray:
    return (np.arange(pixels) + 0.5) * 2 / pixels - 1
