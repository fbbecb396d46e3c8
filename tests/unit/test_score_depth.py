"""Depth errors: masks, invalid predictions, alignments, closed forms.

In: depths. Out: a verdict.
Read next: `evalkit/score/metrics/depth.py`.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evalkit.score.metrics import depth

DEPTHS = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(0.015625, 9.0, width=32))


@settings(deadline=None)  # the first call compiles
@given(true=DEPTHS, scale=st.floats(0.1, 3.0))
def test_absrel_of_a_depth_scaled_by_s_is_s_minus_1(true: np.ndarray, scale: float) -> None:
    assume(abs(max(scale, 1 / scale) - 1.25) > 1e-6)  # at delta's very bound, rounding decides
    errors = depth.depth_errors(true, true.astype(np.float64) * scale)
    assert errors.absrel().value == pytest.approx(abs(scale - 1.0), abs=1e-9)
    assert errors.delta(1).value == float(max(scale, 1 / scale) < 1.25)


@settings(deadline=None)  # the first call compiles
@given(true=DEPTHS, bad=st.sampled_from([np.nan, 0.0, -1.0, np.inf]), data=st.data())
def test_the_mask_comes_from_truth_alone(true: np.ndarray, bad: float, data: st.DataObject) -> None:
    pred = true.copy()
    where = data.draw(hnp.arrays(bool, true.shape))
    pred[where] = bad
    errors = depth.depth_errors(true, pred)
    assert errors.num_valid == true.size
    assert errors.num_invalid_pred == where.sum()
    assert errors.absrel().value == pytest.approx(where.mean())
    assert errors.delta(3).value == pytest.approx(1 - where.mean())


@settings(deadline=None)  # the first call compiles
@given(true=DEPTHS, scale=st.floats(0.1, 10.0))
def test_median_alignment_undoes_a_scale(true: np.ndarray, scale: float) -> None:
    aligned = depth.median_aligned(true, true.astype(np.float64) * scale)
    assert depth.depth_errors(true, aligned).absrel().value == pytest.approx(0.0, abs=1e-9)


def test_named_outcomes() -> None:
    one = np.ones(4)
    assert depth.depth_errors(np.zeros(4), one).absrel() == (None, "no_valid_truth", "")
    assert depth.depth_errors(one, np.full(4, np.nan)).absrel() == (1.0, "all_invalid_depth", "")
    assert depth.depth_errors(one, np.array([1, 1, 1, -1.0])).absrel() == (0.25, "some_invalid_depth", "")
    assert depth.depth_errors(np.array([1.0, 12.0]), np.array([1.0, 99.0])).num_valid == 1
    assert depth.change_error_m(np.zeros(4), one, one, one).status == "no_valid_truth"


def test_delta_is_strict() -> None:
    assert depth.depth_errors(np.array([1.0]), np.array([1.25])).num_delta == (0, 1, 1)


def test_frames_pool_by_pixels() -> None:
    small = depth.depth_errors(np.ones(1), np.ones(1) * 2)
    large = depth.depth_errors(np.ones(3), np.ones(3))
    assert small.plus(large).absrel().value == 0.25
    assert small.plus(large).rmse_m().value == 0.5


def test_temporal_error_ignores_offset_and_sees_flicker() -> None:
    true = np.linspace(1, 2, 20)
    assert depth.change_error_m(true, true + 0.1, true + 0.3, true + 0.4).value == pytest.approx(0.0)
    assert depth.change_error_m(true, true, true - 0.05, true + 0.05).value == pytest.approx(0.1)
