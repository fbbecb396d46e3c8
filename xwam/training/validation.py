"""What a model in training imagines on held-out clips, compared with ground truth and with a static world.

In: a model, clips with images. Out: PSNR and SSIM, errors of depth and actions; an image to look at.
Read next: `trainer.py`, which calls it. `evalkit score` evaluates finished models with many more metrics.

Letters: B clips, C colours, F frames, V views, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from evalkit.contracts.files import write_whole
from xwam.checkpoints.bundle import Bundle
from xwam.codecs.codec import decode_views
from xwam.families import family_of
from xwam.flow import sampler
from xwam.serving.imagine import Observations, read_prompts
from xwam.training.clips import Sample

MAX_PSNR_DB = 100.0
"""PSNR of identical images, where it would be infinite."""

SSIM_SETTINGS = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 0}
"""SSIM as Wang et al. (2004) define it: a Gaussian window of 11 pixels, without padding."""


class ImaginedClips(NamedTuple):
    """Imagined clips: videos in [-1, 1], B,3,F,V,H,W, with the present frame first; normalised actions, B,K,A."""

    video_BCFVHW: Tensor
    depth_BCFVHW: Tensor | None
    action_BKA: Tensor


@torch.no_grad()
def imagine_clips(
    bundle: Bundle, samples: Sequence[Sample], schedule: sampler.Schedule, *, device: torch.device, seed: int = 0
) -> ImaginedClips:
    """Return what a model imagines from the first frame, the first state and the prompt of each clip."""
    seen_BCVHW = torch.stack([sample.video_CFVHW[:, 0] for sample in samples]).to(device)
    observations = Observations(
        seen_BCVHW=seen_BCVHW,
        proprio_BS=torch.stack([sample.proprio_PS[0] for sample in samples]),
        text=read_prompts(bundle, [sample.instruction for sample in samples]),
    )
    family = family_of(bundle.model.family)
    (video, depth), action_BKA, _ = family.imagine(bundle, observations, schedule, seed=seed)
    return ImaginedClips(
        video_BCFVHW=decode_views(bundle.codec, video, seen_BCVHW),
        depth_BCFVHW=None if depth is None else decode_views(bundle.codec, depth),
        action_BKA=action_BKA,
    )


def judge(imagined: ImaginedClips, samples: Sequence[Sample]) -> dict[str, float]:
    """Return PSNR (dB) and SSIM of future frames, those of a static world (`_still`), and errors of depth and action.

    Depth and actions are compared in the units of the network (-1 to 1), as mean absolute errors. Of clips that are
    longer than what was imagined, the first frames and actions count.
    """
    num_frames, num_actions = imagined.video_BCFVHW.shape[2], imagined.action_BKA.shape[1]
    true_BCFVHW = torch.stack([sample.video_CFVHW[:, :num_frames] for sample in samples]).to(imagined.video_BCFVHW)
    still_BCFVHW = true_BCFVHW[:, :, :1].expand_as(true_BCFVHW)
    scores = {}
    for name, guess in (("", imagined.video_BCFVHW), ("_still", still_BCFVHW)):
        pair = [((video[:, :, 1:] + 1) / 2).transpose(1, 3).flatten(0, 2) for video in (guess, true_BCFVHW)]
        scores[f"psnr{name}"], scores[f"ssim{name}"] = psnr_db(*pair), ssim(*pair)
    if imagined.depth_BCFVHW is not None:
        depth_BCFVHW = torch.stack([sample.depth_CFVHW for sample in samples]).to(imagined.depth_BCFVHW)
        scores["depth_error"] = float((imagined.depth_BCFVHW - depth_BCFVHW).abs()[:, :, 1:].mean())
    action = torch.stack([sample.action_KA[:num_actions] for sample in samples]).to(imagined.action_BKA)
    mask = torch.stack([sample.action_mask_KA[:num_actions] for sample in samples]).to(imagined.action_BKA)
    scores["action_error"] = float(((imagined.action_BKA - action).abs() * mask).sum() / mask.sum().clamp(min=1))
    return scores


def psnr_db(a_BCHW: Tensor, b_BCHW: Tensor) -> float:
    """Return the peak signal-to-noise ratio of images from 0 to 1, the mean over images, each at most 100.

    Example:
        >>> psnr_db(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1))
        20.0
    """
    with np.errstate(divide="ignore"):
        values = [peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in _pairs(a_BCHW, b_BCHW)]
    return round(float(np.minimum(values, MAX_PSNR_DB).mean()), 6)


def ssim(a_BCHW: Tensor, b_BCHW: Tensor) -> float:
    """Return the structural similarity of images from 0 to 1, the mean over images.

    Example:
        >>> ssim(torch.ones(1, 3, 16, 16) / 2, torch.ones(1, 3, 16, 16) / 2)
        1.0
    """
    values = [structural_similarity(a, b, data_range=1.0, **SSIM_SETTINGS) for a, b in _pairs(a_BCHW, b_BCHW)]
    return round(float(np.mean(values)), 6)


def _pairs(a_BCHW: Tensor, b_BCHW: Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the images of two batches pair by pair, float64."""
    yield from zip(*(batch.double().cpu().numpy() for batch in (a_BCHW, b_BCHW)), strict=True)


def draw_imagined(path: Path, imagined: ImaginedClips, samples: Sequence[Sample]) -> None:
    """Write one image: for each clip and view a row of true frames above a row of imagined ones, then depth."""
    rows = []
    for index, sample in enumerate(samples):
        num_frames = imagined.video_BCFVHW.shape[2]
        pairs = [(sample.video_CFVHW[:, :num_frames], imagined.video_BCFVHW[index])]
        if imagined.depth_BCFVHW is not None:
            pairs.append((sample.depth_CFVHW, imagined.depth_BCFVHW[index]))
        for view_idx in range(sample.video_CFVHW.shape[2]):
            for pair in pairs:
                rows += [_strip(video[:, :, view_idx]) for video in pair]
    encoded, data = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
    assert encoded, "OpenCV writes PNG"
    write_whole(path, data.tobytes())


def _strip(video_CFHW: Tensor) -> np.ndarray:
    """Return frames side by side, H,F*W,3 uint8."""
    bytes_CFHW = ((video_CFHW.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return bytes_CFHW.permute(2, 1, 3, 0).flatten(1, 2).numpy()
