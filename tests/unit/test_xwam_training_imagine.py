"""Judging imagined clips: against the definition of SSIM, and worked examples."""

from typing import Any

import numpy as np
import pytest
import torch

from xwam.training.clips import Sample
from xwam.training.validation import ImaginedClips, judge, psnr_db, ssim


def gaussian_ssim(a_CHW: np.ndarray, b_CHW: np.ndarray) -> float:
    """Return SSIM from its definition: moments under every 11x11 Gaussian window that lies inside the image."""
    index = np.arange(11) - 5
    line = np.exp(-(index**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    sliding: Any = np.lib.stride_tricks.sliding_window_view
    blocks = [sliding(image, (11, 11), axis=(1, 2)) for image in (a_CHW, b_CHW)]
    mean_a, mean_b, aa, bb, ab = (
        (value * window).sum((-1, -2)) for value in (*blocks, blocks[0] ** 2, blocks[1] ** 2, blocks[0] * blocks[1])
    )
    top = (2 * mean_a * mean_b + 0.01**2) * (2 * (ab - mean_a * mean_b) + 0.03**2)
    bottom = (mean_a**2 + mean_b**2 + 0.01**2) * (aa - mean_a**2 + bb - mean_b**2 + 0.03**2)
    return float((top / bottom).mean())


def test_ssim_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    a = rng.random((3, 24, 20))
    b = np.clip(a + rng.normal(0, 0.1, a.shape), 0, 1)
    found = ssim(torch.from_numpy(a)[None], torch.from_numpy(b)[None])
    assert found == pytest.approx(gaussian_ssim(a, b), abs=1e-6)


def test_a_still_world_is_judged_like_a_still_guess() -> None:
    video = torch.rand(3, 9, 2, 16, 16) * 2 - 1
    actions = torch.ones(32, 14)
    sample = Sample(video, video, torch.zeros(9, 16), torch.ones(9, 16), actions, actions, actions, "x")
    still = video[:, :1].expand(-1, 9, -1, -1, -1)
    found = judge(ImaginedClips(still[None], video[None], torch.zeros(1, 32, 14)), [sample])
    assert found["psnr"] == found["psnr_still"]
    assert found["ssim"] == found["ssim_still"]
    assert (found["depth_error"], found["action_error"]) == (0.0, 1.0)
    perfect = judge(ImaginedClips(video[None], None, torch.ones(1, 32, 14)), [sample])
    assert perfect["psnr"] == 100.0
    assert perfect["ssim"] == 1.0
    assert "depth_error" not in perfect


def test_frames_are_judged_one_by_one() -> None:
    truth = torch.zeros(2, 3, 4, 4)
    guess = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert psnr_db(guess, truth) == pytest.approx(30.0)
