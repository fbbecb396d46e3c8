"""What a model in training imagines on held-out clips, beside the truth and beside a world that stands still.

In: a model, clips with pictures. Out: PSNR and SSIM, errors of actions; a picture for people.
Read next: `trainer.py`, which asks now and then. `evalkit score` judges finished models by many more measures.

Letters: B clips, C colours, F frames, V views, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.contracts.files import write_whole
from xwam.checkpoints.bundle import Bundle
from xwam.codecs.codec import decode_views
from xwam.flow import sampler
from xwam.serving.imagine import Observations, imagine, read_prompts
from xwam.training.clips import Sample

SSIM_WINDOW, SSIM_SIGMA_PX = 11, 1.5
SSIM_FLOORS = (0.01**2, 0.03**2)
"""Keep SSIM finite where pictures are flat; for pictures from 0 to 1."""


class ImaginedClips(NamedTuple):
    """Clips as imagined: videos in [-1, 1], B,3,F,V,H,W, the seen frame first; actions normalised, B,K,A."""

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
    (video, depth), action_BKA, _ = imagine(bundle, observations, schedule, seed=seed)
    return ImaginedClips(
        video_BCFVHW=decode_views(bundle.codec, video, seen_BCVHW),
        depth_BCFVHW=None if depth is None else decode_views(bundle.codec, depth),
        action_BKA=action_BKA,
    )


def judge(imagined: ImaginedClips, samples: Sequence[Sample]) -> dict[str, float]:
    """Return PSNR (dB) and SSIM of future frames, those of a world that stands still, and errors of depth and action.

    Depth and actions are compared in the units of the network (-1 to 1), as mean absolute errors.
    """
    true_BCFVHW = torch.stack([sample.video_CFVHW for sample in samples]).to(imagined.video_BCFVHW)
    still_BCFVHW = true_BCFVHW[:, :, :1].expand_as(true_BCFVHW)
    found = {}
    for name, guess in (("", imagined.video_BCFVHW), ("_still", still_BCFVHW)):
        pair = [((video[:, :, 1:] + 1) / 2).transpose(1, 3).flatten(0, 2) for video in (guess, true_BCFVHW)]
        found[f"psnr{name}"], found[f"ssim{name}"] = psnr_db(*pair), ssim(*pair)
    if imagined.depth_BCFVHW is not None:
        depth_BCFVHW = torch.stack([sample.depth_CFVHW for sample in samples]).to(imagined.depth_BCFVHW)
        found["depth_error"] = float((imagined.depth_BCFVHW - depth_BCFVHW).abs()[:, :, 1:].mean())
    action = torch.stack([sample.action_KA for sample in samples]).to(imagined.action_BKA)
    mask = torch.stack([sample.action_mask_KA for sample in samples]).to(imagined.action_BKA)
    found["action_error"] = float(((imagined.action_BKA - action).abs() * mask).sum() / mask.sum().clamp(min=1))
    return found


def psnr_db(a_BCHW: Tensor, b_BCHW: Tensor) -> float:
    """Return the peak signal-to-noise ratio of pictures from 0 to 1, the mean over pictures, at most 100.

    Example:
        >>> psnr_db(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1))
        20.0
    """
    errors = (a_BCHW - b_BCHW).double().square().flatten(1).mean(1).clamp(min=1e-10)
    return round(float((-10 * errors.log10()).mean()), 6)


def ssim(a_BCHW: Tensor, b_BCHW: Tensor) -> float:
    """Return the structural similarity of pictures from 0 to 1: Gaussian window of 11, no padding, the mean.

    Example:
        >>> ssim(torch.ones(1, 3, 16, 16) / 2, torch.ones(1, 3, 16, 16) / 2)
        1.0
    """
    place = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    line = torch.exp(-place.square() / (2 * SSIM_SIGMA_PX**2))
    window = (torch.outer(line, line) / line.sum() ** 2)[None, None].to(a_BCHW.device)
    a, b = (picture.double().flatten(0, 1)[:, None] for picture in (a_BCHW, b_BCHW))
    moments = [F.conv2d(value, window) for value in (a, b, a * a, b * b, a * b)]
    mean_a, mean_b = moments[:2]
    spread_a, spread_b, shared = moments[2] - mean_a**2, moments[3] - mean_b**2, moments[4] - mean_a * mean_b
    low, high = SSIM_FLOORS
    top = (2 * mean_a * mean_b + low) * (2 * shared + high)
    return round(float((top / ((mean_a**2 + mean_b**2 + low) * (spread_a + spread_b + high))).mean()), 6)


def draw_imagined(path: Path, imagined: ImaginedClips, samples: Sequence[Sample]) -> None:
    """Write one picture: for each clip and view a row of true frames above a row of imagined ones, depth below."""
    rows = []
    for index, sample in enumerate(samples):
        pairs = [(sample.video_CFVHW, imagined.video_BCFVHW[index])]
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
