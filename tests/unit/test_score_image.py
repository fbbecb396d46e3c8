"""PSNR and SSIM against golden values, scikit-image and closed forms.

In: images. Out: a verdict.
Read next: `evalkit/score/metrics/image.py`.
"""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from evalkit.score.metrics import image
from tests.doubles.known import known


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    true = rng.integers(0, 256, (40, 56, 3)).astype(np.uint8)
    return true, np.clip(true + rng.normal(0, 20, true.shape), 0, 255).astype(np.uint8)


def test_psnr_equals_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    expected = peak_signal_noise_ratio(*pair, data_range=255)
    assert image.psnr_db(image.mse(*pair)).value == pytest.approx(expected, abs=1e-9)


def test_ssim_equals_scikit_image_in_its_gaussian_form(pair: tuple[np.ndarray, np.ndarray]) -> None:
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(*pair, channel_axis=2, data_range=255, **settings)
    assert image.ssim(*pair) == pytest.approx(expected, rel=1e-5)


def test_ssim_of_a_dark_flat_image_keeps_its_digits() -> None:
    true = np.full((32, 32, 3), 3, np.uint8)
    true[::2] = 4
    pred = true.copy()
    pred[:, ::2] += 1
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(true, pred, channel_axis=2, data_range=255, **settings)
    assert image.ssim(true, pred) == pytest.approx(expected, rel=1e-5)


def test_identical_frames_are_named_and_never_infinite(pair: tuple[np.ndarray, np.ndarray]) -> None:
    true, _ = pair
    assert image.psnr_db(image.mse(true, true)) == (None, "identical_frames", "")
    assert image.psnr_eps_db(image.mse(true, true)) == 80.0
    assert image.ssim(true, true) == pytest.approx(1.0, abs=1e-7)


def test_frame_mean_is_at_least_clip_pooled(pair: tuple[np.ndarray, np.ndarray]) -> None:
    squares = [0.01, 0.0001]
    of_frames = [known(image.psnr_db(square).value) for square in squares]
    pooled = image.psnr_db(float(np.mean(squares))).value
    assert pooled is not None
    assert np.mean(of_frames) > pooled


def test_an_image_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 11 pixels"):
        image.ssim(np.zeros((10, 30, 3), np.uint8), np.zeros((10, 30, 3), np.uint8))
