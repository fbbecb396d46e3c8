"""The affine alignment of a clip: outliers do not move it, and without outliers it is least squares.

In: depths made from an exact affine map, or numpy's own least squares. Out: a verdict.
Read next: `evalkit/score/metrics/disparity.py`.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.score.metrics import depth, disparity
from evalkit.score.results.outcome import Measure

SLOPE_FRAC = 1e-4
"""What float32 depths leave of an exact map."""


def _fit(true: np.ndarray, pred: np.ndarray) -> disparity.DisparityFit:
    fit = disparity.fit_robustly(true, pred)
    assert isinstance(fit, disparity.DisparityFit)
    return fit


def _scene(kind: str, rng: np.random.Generator, count: int = 3000) -> np.ndarray:
    """Return true depths: spread over the range, or most of them a wall at 2 m."""
    near = rng.uniform(0.4, 4.0, count)
    return near if kind == "spread" else np.where(rng.random(count) < 0.7, 2.0, near)


def _outliers(kind: str, right: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drawn = rng.uniform(0.01, 9.0, right.shape)
    return {
        "1 mm": np.full(right.shape, 0.001),
        "65 m": np.full(right.shape, 65.535),
        "any": drawn,
        "three times": right * 3,
        "a little near": right * 0.8,
    }[kind]


@pytest.mark.parametrize("outliers", ["1 mm", "65 m", "any", "three times", "a little near"])
@pytest.mark.parametrize("scene", ["spread", "wall"])
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), share=st.floats(0.0, 0.3), scale=st.floats(0.2, 3.0), shift=st.floats(0.0, 1.0))
def test_outliers_do_not_move_it(
    scene: str, outliers: str, seed: int, share: float, scale: float, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    true = _scene(scene, rng)
    right = 1.0 / (scale / true + shift)
    pred = np.where(rng.random(true.shape) < share, _outliers(outliers, right, rng), right)
    fit = _fit(true.astype(np.float32), pred.astype(np.float32))
    assert fit.scale == pytest.approx(1 / scale, rel=SLOPE_FRAC)
    assert fit.shift == pytest.approx(-shift / scale, abs=SLOPE_FRAC / scale)


@pytest.mark.parametrize("noise", ["of depth", "of disparity"])
@pytest.mark.parametrize("scene", ["spread", "wall"])
def test_without_outliers_it_is_least_squares(scene: str, noise: str) -> None:
    rng = np.random.default_rng(3)
    true = _scene(scene, rng, 20_000)
    exact = 0.7 / true + 0.3
    spread = exact * 0.03 if noise == "of depth" else 0.02
    pred = 1.0 / (exact + spread * rng.normal(0.0, 1.0, true.shape))
    scale, shift = np.polyfit(1.0 / pred, 1.0 / true, 1)
    assert disparity.fit_least_squares(true, pred) == pytest.approx((scale, shift))
    assert _fit(true, pred) == pytest.approx((scale, shift))


def test_one_pixel_at_1_mm_does_not_decide() -> None:
    true = np.random.default_rng(0).uniform(0.5, 2.0, 3072)
    pred = true.copy()
    pred[100] = 0.001
    least = disparity.fit_least_squares(true, pred)
    assert least is not None
    assert depth.depth_errors(true, least.apply(pred)).absrel().value > 0.2  # type: ignore[operator]
    assert depth.depth_errors(true, _fit(true, pred).apply(pred)).absrel().value == pytest.approx(1 / 3072, rel=0.01)


@pytest.mark.parametrize(
    ("true", "pred", "said"),
    [
        (np.linspace(1, 2, 50), np.ones(50), "the predicted depth is 1.000 m everywhere"),
        (np.ones(50), np.linspace(1, 2, 50), "the true depth is 1.000 m everywhere"),
        (np.linspace(1, 2, 50), np.linspace(2, 1, 50), "swaps near and far"),
        (np.linspace(1, 2, 50), np.where(np.arange(50) < 45, 1.0, 0.001), "without outliers"),
        (np.array([1.0, 0.0]), np.ones(2), "1 pixels have a true and a predicted depth"),
    ],
)
def test_a_degenerate_fit_is_named(true: np.ndarray, pred: np.ndarray, said: str) -> None:
    measure = disparity.fit_robustly(true, pred)
    assert isinstance(measure, Measure)
    assert (measure.value, measure.status) == (None, "degenerate_alignment")
    assert said in measure.reason


def _pooled(*images: tuple[np.ndarray, np.ndarray]) -> Measure:
    pool = disparity.AlignedAbsrel()
    for true, pred in images:
        pool.add(true, pred)
    return pool.measure()


def test_a_clip_has_one_map() -> None:
    true = np.random.default_rng(1).uniform(0.5, 2.0, (2, 400))
    assert _pooled((true[0], 2 * true[0]), (true[1], 2 * true[1])).value == pytest.approx(0.0, abs=1e-6)
    assert _pooled((true[0], true[0]), (true[1], 2 * true[1])).value > 0.1  # type: ignore[operator]


def test_a_pixel_without_prediction_is_an_error_of_1() -> None:
    true = np.random.default_rng(1).uniform(0.5, 2.0, 400)
    pred = np.where(np.arange(400) < 100, np.nan, 3 * true)
    assert _pooled((true, pred)).value == pytest.approx(0.25, abs=1e-6)
    assert _pooled((true, pred)).status == "some_invalid_depth"
    assert _pooled((true, np.zeros(400))) == (1.0, "all_invalid_depth", "")
    assert _pooled((np.zeros(400), true)).status == "no_valid_truth"


def test_a_long_clip_is_thinned(monkeypatch: Any) -> None:
    rng = np.random.default_rng(2)
    true = rng.uniform(0.5, 2.0, (40, 1000))
    pred = true * (1 + 0.05 * rng.normal(size=true.shape))
    pred[:, :100] = 0.0
    whole = _pooled(*zip(true, pred, strict=True))
    monkeypatch.setattr(disparity, "MAX_PAIRS", 5000)
    pool = disparity.AlignedAbsrel()
    for image in zip(true, pred, strict=True):
        pool.add(*image)
        assert pool.num_kept <= 5000
    assert pool.measure().value == pytest.approx(whole.value, rel=0.01)
    assert pool.measure() == pool.measure()


def test_a_depth_at_the_near_end_is_counted_once() -> None:
    """float32 has no 0.001; its nearest number lies above it, so in the mask."""
    true = np.array([1e-3, 1.0, 2.0, 4.0], np.float32)
    pool = disparity.AlignedAbsrel()
    pool.add(true, true)
    assert pool.measure().status == "ok"
    assert pool.num_kept == depth.depth_errors(true, true).num_valid == depth.mask_size(true)


def test_images_give_the_fit_of_their_pixels_together() -> None:
    """Added one by one, with a different number of valid pixels each."""
    rng = np.random.default_rng(3)
    true = rng.uniform(0.3, 4.0, (5, 700))
    pred = 1.0 / (1.5 / true + 0.2 + rng.normal(0, 0.01, true.shape))
    pred[1] = 0.0
    pred[2, ::3] = 0.001
    pool = disparity.AlignedAbsrel()
    for image in zip(true, pred, strict=True):
        pool.add(*image)
    aligned = _fit(true, pred).apply(pred)
    assert pool.measure().value == pytest.approx(depth.depth_errors(true, aligned).absrel().value, rel=1e-9)
