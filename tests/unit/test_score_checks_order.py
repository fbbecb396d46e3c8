"""Order of frames and views, in RGB and depth: mistakes are named, slow models are not.

In: a disc that moves at a known speed; the closed-form room with frames or views exchanged. Out: a verdict.
Read next: `evalkit/score/checks/order.py`, `evalkit/score/checks/chunk.py`.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from evalkit.contracts.types import Prediction
from evalkit.score.checks import order, states
from evalkit.score.checks.chunk import check_chunk
from evalkit.score.results.checks import Finding
from tests.doubles.known import known
from tests.doubles.scene import scene_chunk, scene_spec

SIZE = (60, 80)
CHUNK = scene_chunk(num_frames=10, image_hw_px=SIZE, depth_error_frac=0.005)
PREDICTION = known(CHUNK.predicted)
DEPTH = known(PREDICTION.depth)


def _disc(speed: float, num_frames: int, *, first: float = 0.0, noise_u8: float = 3.0) -> np.ndarray:
    """Return F,N grey levels of a disc with soft edges that moves 1.3 pixels a frame at speed 1, with noise."""
    v, u = np.mgrid[:24, :48]
    times = first + speed * np.arange(num_frames)
    far = np.hypot(v - 12, u - 8 - 1.3 * times[:, None, None])
    images = 60 + 150 / (1 + np.exp(far - 5)) + 20 * np.sin(u / 5)
    noise = np.random.default_rng(0).normal(0, noise_u8, images.shape)
    return np.asarray((images + noise).reshape(num_frames, -1))


@pytest.mark.parametrize("num_frames", [8, 10, 16, 20])
@pytest.mark.parametrize("speed", [0.2, 0.35, 0.4, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0, 1.25])
def test_a_slow_or_fast_model_is_not_accused(speed: float, num_frames: int) -> None:
    true = _disc(1.0, num_frames, noise_u8=0.0)
    assert order.timing(true, _disc(speed, num_frames)) is None
    late = _disc(1.0, num_frames, first=1.0, noise_u8=0.0)
    assert order.timing(late, _disc(speed, num_frames, first=speed), true[:1]) is None


@pytest.mark.parametrize("num_frames", [8, 10, 16, 20])
@pytest.mark.parametrize("shift", [-3, -2, -1, 1, 2, 3])
def test_a_constant_shift_is_named(shift: int, num_frames: int) -> None:
    true = _disc(1.0, num_frames, first=3.0, noise_u8=0.0)
    found = known(order.timing(true, _disc(1.0, num_frames, first=3.0 + shift)))
    assert (found.shift, found.rate) == (shift, 1.0)


@pytest.mark.parametrize(("speed", "word"), [(0.5, "half as fast"), (2.0, "twice as fast")])
def test_half_and_double_speed_name_both_causes(speed: float, word: str) -> None:
    text = str(known(order.timing(_disc(1.0, 20, noise_u8=0.0), _disc(speed, 20))))
    assert "another frame rate, or a model" in text
    assert word in text


def _found(prediction: Prediction) -> tuple[Finding, ...]:
    return check_chunk(CHUNK, scene_spec(SIZE), {"policy": replace(prediction, proprio=None)}).findings


def _one_view(change: Callable[[np.ndarray], np.ndarray], images: np.ndarray, view: int) -> np.ndarray:
    changed = images.copy()
    changed[:, view] = change(images[:, view])
    return changed


@pytest.mark.parametrize(
    ("change", "check", "view", "text"),
    [
        (lambda d: d[::-1], "frame_order", "", "predicted depths fit another moment: it fits the ground truth played"),
        (lambda d: _one_view(lambda v: v[::-1], d, 0), "frame_order", "front", "predicted depths of front fit another"),
        (lambda d: d[:, [1, 0, 2]], "view_order", "front, side", "the predicted depths of front and side look swapped"),
        (lambda d: _one_view(lambda v: v[:, ::-1], d, 1), "depth_flip", "side", "upside down"),
        (lambda d: _one_view(lambda v: v[:, :, ::-1], d, 0), "depth_flip", "front", "mirrored"),
        (lambda d: _one_view(lambda v: v[:, ::-1, ::-1], d, 2), "depth_flip", "wrist", "180 degrees"),
    ],
)
def test_depth_in_wrong_order_is_named(
    change: Callable[[np.ndarray], np.ndarray], check: str, view: str, text: str
) -> None:
    found = [f for f in _found(replace(PREDICTION, depth=change(DEPTH))) if f.check == check]
    assert [(f.view, f.verdict) for f in found] == [(view, "warning")], found
    assert text in found[0].reason


def test_depth_upside_down_is_no_disparity() -> None:
    found = _found(replace(PREDICTION, depth=DEPTH[:, :, ::-1]))
    assert {f.check for f in found} == {"depth_flip"}


def test_one_view_in_reverse_is_named() -> None:
    for view, name in enumerate(("front", "side", "wrist")):
        rgb = _one_view(lambda images: images[::-1], PREDICTION.rgb, view)
        (found,) = _found(replace(PREDICTION, rgb=rgb))
        assert (found.check, found.view) == ("frame_order", name)
        assert "backwards" in found.reason


def test_holes_and_poor_depth_are_in_order() -> None:
    rng = np.random.default_rng(0)
    holes = np.where(rng.random(DEPTH.shape) < 0.3, 0.0, DEPTH)
    noisy = DEPTH * rng.lognormal(0.0, 0.2, DEPTH.shape)
    frozen = np.repeat(DEPTH[:1], 10, axis=0)
    for depth in (holes, noisy, frozen, 1.3 * noisy, np.full_like(DEPTH, 1.0)):
        assert not _found(replace(PREDICTION, depth=depth.astype(np.float32)))


def _states(num_frames: int = 12, first: int = 0) -> np.ndarray:
    """Return F,8 states of an end effector on a bend whose gripper closes."""
    times = first + np.arange(num_frames, dtype=float)
    x, z, half = 0.3 + 0.01 * times, 0.4 + 0.0005 * times**2, 0.01 * times
    zeros = np.zeros(num_frames)
    return np.stack([x, zeros + 0.1, z, np.cos(half), np.sin(half), zeros, zeros, 1 - times / 14], axis=1)


def test_states_of_another_moment_are_named() -> None:
    longer, none = _states(14), _states(0)
    cases = {"backwards": _states()[::-1], "one frame later": longer[1:13], "2 frames later": longer[2:]}
    for text, pred in cases.items():
        found = known(states.late_oddity(_states(), pred, none))
        assert found.check == "frame_order"
        assert text in found.text
    late = known(states.late_oddity(_states(first=1), _states(), _states(1)))
    assert "one frame earlier" in late.text


def test_right_slow_and_still_states_are_in_order() -> None:
    rng = np.random.default_rng(0)
    noisy = _states() + np.where(np.arange(8) < 3, rng.normal(0, 0.004, (12, 8)), 0.0)
    slow = np.stack([np.interp(0.7 * np.arange(12), np.arange(12), column) for column in _states().T], axis=1)
    still, negative = np.repeat(_states()[:1], 12, axis=0), _states() * ([1.0] * 3 + [-1.0] * 4 + [1.0])
    for pred in (noisy, slow, still, negative, np.full((12, 8), np.nan), np.zeros((12, 8)), _states()[:3]):
        assert states.late_oddity(_states(), pred, _states(0)) is None


@pytest.mark.parametrize("ratio", [0.04, 0.08, 0.1])
def test_a_gripper_in_metres_is_named(ratio: float) -> None:
    true = _states()
    pred = true * ([1.0] * 7 + [ratio])
    (found,) = states.predicted_oddities(true, pred)
    assert found.check == "state_gripper"
    assert found.value == pytest.approx(ratio)
    assert "the predicted gripper" in found.text
    (found,) = states.predicted_oddities(pred, true)
    assert "the true gripper" in found.text
