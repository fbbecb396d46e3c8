"""Training of the pixel decoder, after that of the network: from imagined latents and recorded images.

In: a data set, a trained model. Out: a `PixelDecoder` for it.
Read next: `xwam/nano/pixel_decoder.py`, the network that is trained; `launch.py`, which calls it.

The network acts and imagines from every few steps of recorded episodes, once, as it will in a run. Then the decoder
learns to reproduce the images recorded next, with the inputs that it will have in a run.

Letters: B clips, N images, F future frames, V views, H W rows and columns, C channels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from evalkit.contracts.requests import seed_of
from evalkit.contracts.types import ARM_PROPRIO
from evalkit.dataset.depth_video import depth_from_video
from evalkit.dataset.layout import BrokenEpisode, Scan, Track
from evalkit.dataset.videos import UnreadableVideo, read_frames
from xwam.checkpoints.bundle import Bundle
from xwam.codecs.patch_dct import PatchDCT, change_of_views
from xwam.config import ModelConfig
from xwam.flow import sampler
from xwam.nano.pixel_decoder import PixelDecoder, Scene, gripper_motion_features
from xwam.network.transformer import TextContext
from xwam.robots.actions import denormalise, tidy_quaternions
from xwam.robots.axes import ee_pose
from xwam.robots.interfaces import INTERFACES
from xwam.serving.imagine import Observations, imagine, read_prompts
from xwam.training.clips import ClipDataset, clip_states

WIDTHS = (32, 48, 64, 96)
"""Channels of a fresh decoder."""

SMALLEST_PX = 16
"""Rows and columns that the decoder reduces to one in its deepest layer."""

REPORT_EVERY = 100
"""Steps between two lines of progress."""

SMALLEST_SQUARE = 1e-10
"""Added to the squared length of features, so that its root has a gradient at 0."""


@dataclass(frozen=True, kw_only=True)
class DecoderRecipe:
    """Settings of the training of a decoder.

    Attributes:
        num_steps: Steps of the optimizer.
        clips: Clips in a step.
        frames: Future frames of each clip, with all views; a frame twice as far ahead is drawn half as often, because
            the first frames are the ones that are executed and evaluated.
        every: Control steps between two clips of an episode.
        learning_rate: Peak learning rate, after `warmup_steps`; a cosine to 1 % follows.
        warmup_steps: Steps of the linear increase from 0.
        depth_weight: Weight of depth relative to one colour.
        coarse_weight: Weight of the images at each of a half, a quarter and an eighth of their size, which gives a
            gradient to pixels that were moved too far.
        edge_weight: Weight of the differences between neighbouring pixels.
        perceptual_weight: Weight of LPIPS with SqueezeNet, which penalises blur and distorted shapes; 0 for none.
        seed: Fixes weights, the order of clips and the network's noise.
    """

    num_steps: int = 6000
    clips: int = 4
    frames: int = 2
    every: int = 8
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    depth_weight: float = 2.0
    coarse_weight: float = 0.5
    edge_weight: float = 0.5
    perceptual_weight: float = 0.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadEpisode:
    """The static views of one episode, and the network's imagination of its clips.

    Attributes:
        rgb_NVCHW: uint8, every control step.
        depth_NVHW: Depth video, float16.
        T_base_ee_N44: Pose of the end effector.
        T_base_ee_imagined_SF44: Imagined `T_base_ee` of the future frames of each clip.
        intrinsics_V33: Pixels.
        T_base_cam_V44: Of each view.
        starts: Control steps at which clips start.
        change_latents: For each clip, the latents after the first frame: C,T,V,H,W of video and of depth, float16.
    """

    rgb_NVCHW: Tensor
    depth_NVHW: Tensor
    T_base_ee_N44: np.ndarray
    T_base_ee_imagined_SF44: np.ndarray
    intrinsics_V33: np.ndarray
    T_base_cam_V44: np.ndarray
    starts: tuple[int, ...]
    change_latents: tuple[tuple[Tensor, Tensor], ...]


class Examples(NamedTuple):
    """Inputs of a decoder and ground truth: N,4,H,W each; features N,5,H,W."""

    seen_NCHW: Tensor
    change_NCHW: Tensor
    features_NCHW: Tensor
    true_NCHW: Tensor


class Episodes:
    """Reads episodes, and lets a network act and imagine from every few steps of them.

    Args:
        clips: The data.
        bundle: The trained model.
        recipe: Distance of the clips, and seed of the network's noise.

    Raises:
        ValueError: If a decoder cannot be trained for the model.
    """

    def __init__(self, clips: ClipDataset, bundle: Bundle, recipe: DecoderRecipe) -> None:
        check_model(bundle.model)
        self.clips, self.bundle, self.recipe = clips, bundle, recipe
        self.schedule = sampler.Schedule(
            num_video_steps=bundle.model.num_video_steps, num_action_steps=bundle.model.num_action_steps
        )

    @torch.no_grad()
    def read(self, key: str) -> ReadEpisode:
        """Return one episode.

        Raises:
            BrokenEpisode: If it cannot be read, or lacks the poses of its cameras.
        """
        track, model = self.clips.track(key), self.bundle.model
        intrinsics, T_base_cam = cameras_of(track, model)
        video_CNVHW, depth_CNVHW = self.clips.whole_episode(track)
        rgb_CNVHW = video_CNVHW[:, :, model.static_views]
        starts = range(0, track.num_frames, self.recipe.every)
        text = read_prompts(self.bundle, [track.instructions[0]])
        imagined = [self._imagined(track, text, video_CNVHW[:, start], start) for start in starts]
        return ReadEpisode(
            rgb_NVCHW=rearrange(
                ((rgb_CNVHW + 1) * 127.5).round().to(torch.uint8), "c n v h w -> n v c h w"
            ).contiguous(),
            depth_NVHW=depth_CNVHW[0][:, model.static_views].half(),
            T_base_ee_N44=ee_pose(track.proprio[:, ARM_PROPRIO[model.arms[0]]]),
            intrinsics_V33=intrinsics,
            T_base_cam_V44=T_base_cam,
            starts=tuple(starts),
            T_base_ee_imagined_SF44=np.stack([T_base_ee_F44 for T_base_ee_F44, _, _ in imagined]),
            change_latents=tuple((video, depth) for _, video, depth in imagined),
        )

    def _imagined(
        self, track: Track, text: TextContext, seen_CVHW: Tensor, start: int
    ) -> tuple[np.ndarray, Tensor, Tensor]:
        """Return future end-effector poses, and latents (video, depth) of the static views after the first frame."""
        model, bounds, clips = self.bundle.model, self.bundle.model.bounds, self.clips
        numbers = clip_states(track, start, clips.shape, clips.bounds, quat_side_wxyz=clips.quat_side_wxyz)
        observations = Observations(
            seen_BCVHW=seen_CVHW[None], proprio_BS=torch.from_numpy(numbers.proprio_PS)[None, 0], text=text
        )
        seed = seed_of("train-decoder", self.recipe.seed, track.key, start)
        latents, _, proprio_BPS = imagine(self.bundle, observations, self.schedule, seed=seed)
        assert latents.depth_BCTVHW is not None, "the model predicts depth"
        states = denormalise(proprio_BPS[0, 1:].numpy(), bounds.proprio_low, bounds.proprio_high)
        T_base_ee_F44 = ee_pose(tidy_quaternions(states, model.arms)[:, ARM_PROPRIO[model.arms[0]]])
        pair = (latents.video_BCTVHW, latents.depth_BCTVHW)
        video, depth = (latent[0][:, 1:, model.static_views].half() for latent in pair)
        return T_base_ee_F44, video, depth


def check_model(model: ModelConfig) -> None:
    """Raise ValueError unless a decoder can be trained for a model."""
    interface = INTERFACES[model.bench]
    plain = interface.env_image_hw_px(model) == model.image_hw_px and interface.crop_frac == 1
    if any(size % SMALLEST_PX for size in model.image_hw_px) or len(model.arms) != 1 or not model.static_views:
        raise ValueError(
            f"A decoder is trained for models of one arm and at least one static view, with images of multiples of "
            f"{SMALLEST_PX} pixels; {model.name} has the arms {model.arms}, the views {model.views} and images of "
            f"{model.image_hw_px[0]}x{model.image_hw_px[1]}."
        )
    if not model.shows_what_it_saw or model.network.depth != "interleaved" or not plain:
        raise ValueError(
            f"A decoder is trained for models whose codec decodes changes of the current frame, with a depth branch, "
            f"on the bench's own images; {model.name} has the codec '{model.codec.kind}', depth '{model.network.depth}'"
            f"{', is blind' if model.blind else ''}{'' if plain else ', and resizes or crops its images'}."
        )


def cameras_of(track: Track, model: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return V,3,3 intrinsics and V,4,4 `T_base_cam` of an episode's static views.

    Raises:
        BrokenEpisode: If they were not recorded, or belong to images of another size than the model's.
    """
    cameras, size = [track.cameras[view] for view in model.static_views], model.image_hw_px
    for camera in cameras:
        try:
            recorded_hw_px = read_frames(camera.rgb_path, [camera.start]).shape[1:3]
        except UnreadableVideo as error:
            raise BrokenEpisode(f"{track.key}: {error}") from error
        if recorded_hw_px != size:
            rows, cols = recorded_hw_px
            camera_text = f"camera '{camera.name}' was recorded with {rows}x{cols} pixels"
            raise BrokenEpisode(f"{track.key}: {camera_text}, the model sees {size[0]}x{size[1]}.")
        if camera.intrinsics is None or camera.T_base_cam is None:
            raise BrokenEpisode(f"{track.key} does not state pose and intrinsics of camera '{camera.name}'.")
    return np.array([camera.intrinsics for camera in cameras]), np.array([camera.T_base_cam for camera in cameras])


# ---- examples


def draw_examples(
    episodes: Sequence[ReadEpisode], model: ModelConfig, codec: PatchDCT, recipe: DecoderRecipe
) -> Iterator[Examples]:
    """Yield the examples of one step after another, without end."""
    rng = np.random.default_rng(recipe.seed)
    clips = [(episode, clip) for episode in episodes for clip in range(len(episode.starts))]
    share_F = 1 / np.arange(1, model.num_future_frames + 1)
    while True:
        parts = []
        for clip_idx in rng.integers(len(clips), size=recipe.clips):
            frames = rng.choice(model.num_future_frames, recipe.frames, replace=False, p=share_F / share_F.sum())
            episode, clip = clips[clip_idx]
            parts.append(clip_examples(episode, clip, frames, model, codec))
        yield Examples(*(torch.cat(part) for part in zip(*parts, strict=True)))


def clip_examples(episode: ReadEpisode, clip: int, frames: np.ndarray, model: ModelConfig, codec: PatchDCT) -> Examples:
    """Return some future frames of one clip, with all views; frames count from 0."""
    start, last = episode.starts[clip], len(episode.rgb_NVCHW) - 1
    later = np.minimum(start + (frames + 1) * model.frame_stride, last)
    scene = Scene(
        depth_vhw_m=depth_from_video(episode.depth_NVHW[start].float().numpy(), model.depth_range),
        intrinsics_v33_px=episode.intrinsics_V33,
        T_base_cam_v44=episode.T_base_cam_V44,
        T_base_ee=episode.T_base_ee_N44[start],
    )
    shares = ((frames + 1) / model.num_future_frames).tolist()
    features = torch.from_numpy(gripper_motion_features(scene, episode.T_base_ee_imagined_SF44[clip, frames], shares))
    change_FVCHW = change_of_views(codec, *episode.change_latents[clip])[frames]

    def images(steps: np.ndarray) -> Tensor:
        video = episode.rgb_NVCHW[steps].float() / 127.5 - 1
        return torch.cat([video, episode.depth_NVHW[steps].float()[:, :, None]], dim=2)

    seen = images(np.full(len(frames), start))
    parts = (seen, change_FVCHW, features, images(later))
    return Examples(*(rearrange(part, "f v c h w -> (f v) c h w") for part in parts))


# ---- training


Distance = Callable[[Tensor, Tensor], Tensor]
"""From two batches of images, N,3,H,W in [-1, 1], to one number for each pair."""


@functools.cache
def perceptual_distance() -> Distance:
    """Return LPIPS with SqueezeNet (Zhang et al. 2018, arXiv 1801.03924) and the weights of the package `lpips`.

    Evaluation uses another backbone by default: AlexNet.

    Raises:
        ValueError: If the package or the weights of its backbone are not available.
    """
    try:
        import lpips

        model: Any = lpips.LPIPS(net="squeeze", verbose=False).eval().requires_grad_(False)
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(
            f"A perceptual loss needs the packages lpips and torchvision (pip install 'evalkit[lpips]' torchvision), "
            f"and SqueezeNet's weights: {error}."
        ) from error

    def features(rgb_N3HW: Tensor) -> list[Tensor]:
        return [unit_length(layer) for layer in model.net(model.scaling_layer(rgb_N3HW))]

    def distance(decoded_N3HW: Tensor, true_N3HW: Tensor) -> Tensor:
        with torch.no_grad():
            true = features(true_N3HW)
        layers = zip(model.lins, features(decoded_N3HW), true, strict=True)
        return torch.stack([lin((a - b).square()).mean(dim=(1, 2, 3)) for lin, a, b in layers]).sum(dim=0)

    return distance


def unit_length(layer_NCHW: Tensor) -> Tensor:
    """Return features of length 1 at each pixel; unlike the package's, their gradient is finite even at 0."""
    return layer_NCHW / (layer_NCHW.square().sum(dim=1, keepdim=True) + SMALLEST_SQUARE).sqrt()


def decoder_loss(
    decoder: PixelDecoder, batch: Examples, recipe: DecoderRecipe, perceptual: Distance | None = None
) -> Tensor:
    """Return the loss: mean absolute differences of pixels, of smaller images and of edges, and the perceptual one."""
    decoded, true = decoder(batch.seen_NCHW, batch.change_NCHW, batch.features_NCHW).blended_NCHW, batch.true_NCHW
    loss = torch.zeros(())
    if perceptual is not None:
        loss = loss + recipe.perceptual_weight * perceptual(decoded[:, :3], true[:, :3]).mean()
    for axis in (-1, -2):
        loss = loss + recipe.edge_weight * (decoded.diff(dim=axis) - true.diff(dim=axis)).abs().mean()
    weight_C11 = torch.tensor([1.0, 1.0, 1.0, recipe.depth_weight])[:, None, None]
    for scale_weight in (1.0, *[recipe.coarse_weight] * 3):
        loss = loss + scale_weight * ((decoded - true).abs() * weight_C11).mean()
        decoded, true = F.avg_pool2d(decoded, 2), F.avg_pool2d(true, 2)
    return loss


def train_decoder(
    decoder: PixelDecoder,
    examples: Iterator[Examples],
    recipe: DecoderRecipe,
    *,
    say: Callable[[str], None] = print,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Train a decoder in place.

    Raises:
        ValueError: If the recipe has a perceptual loss that is not available.
    """
    perceptual = perceptual_distance() if recipe.perceptual_weight else None
    decoder.train().requires_grad_(True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=recipe.learning_rate, weight_decay=1e-4)
    since: list[float] = []
    for step in range(recipe.num_steps):
        decay = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * step / recipe.num_steps))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, step / max(1, recipe.warmup_steps)) * decay
        batch = next(examples)
        with torch.autocast("cpu", torch.bfloat16):
            loss = decoder_loss(decoder, batch, recipe, perceptual)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        since.append(loss.item())
        on_progress(step + 1, recipe.num_steps)
        if (step + 1) % REPORT_EVERY == 0 or step + 1 == recipe.num_steps:
            say(f"step {step + 1}/{recipe.num_steps}: loss {sum(since) / len(since):.4f}")
            since = []
    decoder.eval().requires_grad_(False)


def choose(scan: Scan, most: int, recipe: DecoderRecipe) -> list[str]:
    """Return at most `most` episodes to learn from, in random order."""
    keys = sorted(scan.lengths)
    return [keys[index] for index in np.random.default_rng(recipe.seed).permutation(len(keys))[:most]]


def read_episodes(
    reader: Episodes,
    keys: Sequence[str],
    *,
    say: Callable[[str], None] = print,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ReadEpisode]:
    """Return the usable episodes; `say` reports those left out."""
    episodes: list[ReadEpisode] = []
    for done, key in enumerate(keys, start=1):
        try:
            episodes.append(reader.read(key))
        except BrokenEpisode as error:
            say(f"left out: {error}")
        on_progress(done, len(keys))
    return episodes


def fresh_decoder(seed: int, widths: Sequence[int] = WIDTHS) -> PixelDecoder:
    """Return an untrained decoder, which copies the present; the global random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PixelDecoder(widths)
