"""Judging imagined clips: against scikit-image, and by hand."""

import numpy as np
import pytest
import torch

from xwam.training.clips import Sample
from xwam.training.validation import ImaginedClips, judge, psnr_db, ssim


def test_ssim_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    a = rng.random((3, 24, 20))
    b = np.clip(a + rng.normal(0, 0.1, a.shape), 0, 1)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = metrics.structural_similarity(a, b, channel_axis=0, full=True, **settings)[1][:, 5:-5, 5:-5].mean()
    assert ssim(torch.from_numpy(a)[None], torch.from_numpy(b)[None]) == pytest.approx(expected, abs=1e-5)


def test_a_still_world_is_judged_like_a_still_guess() -> None:
    video = torch.rand(3, 9, 2, 16, 16) * 2 - 1
    sample = Sample(video, video, torch.zeros(9, 16), torch.ones(9, 16), *[torch.ones(32, 14)] * 3, "x")
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
