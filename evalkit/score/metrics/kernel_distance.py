"""Distance between the distributions of predicted and of true video, unbiased for few clips.

In: frames as features of AlexNet, summed over each clip. Out: one number per clip, whose mean is the distance.
Read next: `evalkit/score/distribution.py`, which collects the clips; `lpips.py`, the network.

The distance is the squared maximum mean discrepancy (Gretton et al. 2012), because Frechet's distance is biased upwards
by an amount that depends on the number of frames, and needs more frames than features. Only frames of different clips
are compared, so neither the likeness of frames of one clip nor that of a prediction to its own ground truth biases it.

A sample is one frame: the mean of AlexNet's last features over the image, and the mean of their absolute change since
the frame before. Without the change, a frozen video is nearly as good as a true one; signed changes cancel in the mean.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from evalkit.score.metrics.lpips import Lpips

NUM_CHANNELS = 256
NUM_FREQUENCIES = 512
KERNEL_WIDTH = 0.5
"""Of the gaussian kernel: a usual distance between samples of different clips."""

CHANGE_WEIGHT = 2.0
"""Factor of the change, which is smaller than the features themselves."""

MIN_CLIPS = 5
"""Clips of a task from which on the distance has a value; with fewer, its interval holds almost anything."""

BATCH = 8
"""Frames that the network takes at once."""


def samples(network: Lpips, rgb_nhwc_u8: np.ndarray) -> np.ndarray:
    """Return the samples of N images in order of time, one for each but the first, N-1,512.

    Raises:
        RuntimeError: If the images are too small for the network.
    """
    import torch

    batches = [rgb_nhwc_u8[begin : begin + BATCH] for begin in range(0, len(rgb_nhwc_u8), BATCH)]
    with torch.inference_mode():
        layer = torch.cat([network.features(batch)[-1] for batch in batches])
        change = (layer[1:] - layer[:-1]).abs()
        parts = layer[1:].mean(dim=(2, 3)), CHANGE_WEIGHT * change.mean(dim=(2, 3))
        return torch.cat(parts, dim=1).double().cpu().numpy()


def embed(samples_nd: np.ndarray) -> np.ndarray:
    """Return vectors whose inner products approximate the gaussian kernel of samples (Rahimi and Recht 2007), N,1024.

    Example:
        >>> a, b = embed(np.array([[0.0] * 512, [0.02] * 512]))
        >>> round(float(a @ a), 6), abs(float(a @ b) - np.exp(-0.5 * 512 * 0.02**2 / KERNEL_WIDTH**2)) < 0.05
        (1.0, True)
    """
    phases = samples_nd @ _frequencies()
    return np.concatenate([np.cos(phases), np.sin(phases)], axis=1) / np.sqrt(NUM_FREQUENCIES)


@lru_cache(maxsize=1)
def _frequencies() -> np.ndarray:
    """Return the same random frequencies always, 512,512."""
    random = np.random.RandomState(0)  # its numbers are the same in every version of numpy
    return random.standard_normal((2 * NUM_CHANNELS, NUM_FREQUENCIES)) / KERNEL_WIDTH


def pseudo_values(true_ce: np.ndarray, pred_ce: np.ndarray) -> np.ndarray:
    """Return one number for each of C clips: their mean is the distance, their spread that of the jackknife.

    Args:
        true_ce: C,1024, the mean of `embed` over the true frames of each clip; C is at least 3.
        pred_ce: The same of the predicted frames.

    Returns:
        C numbers. The mean estimates the distance without bias, so it can fall below 0 where the distance is near 0. It
        is the mean of (true - pred) @ (true - pred) over all pairs of different clips.
    """
    num_clips, gaps = len(true_ce), true_ce - pred_ce
    products = gaps @ gaps.T
    with_others = (products.sum(axis=1) - np.diag(products)) / (num_clips - 1)
    distance = with_others.mean()
    return np.asarray((2 * (num_clips - 1) * with_others - num_clips * distance) / (num_clips - 2))
