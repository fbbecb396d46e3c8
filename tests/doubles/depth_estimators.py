"""Depth estimators in closed form: depth is linear in the red channel.

In: images. Out: depth, in metres or up to a scale.
Read next: `tests/unit/test_two_stage.py`.
"""

import numpy as np

from baselines.two_stage.estimators import DepthEstimator


def closed_form_m(rgb: np.ndarray) -> np.ndarray:
    """Return 1 m, and 1 cm more per grey level of red."""
    return (1.0 + 0.01 * rgb[..., 0]).astype(np.float32)


def linear_in_metres(model: str) -> DepthEstimator:
    return DepthEstimator(
        name="linear",
        in_metres=True,
        note=f"closed form {model}",
        load=lambda device: lambda rgb, intrinsics: closed_form_m(rgb),
    )


def linear_up_to_scale(model: str) -> DepthEstimator:
    return DepthEstimator(
        name="linear",
        in_metres=False,
        note=f"closed form {model}",
        load=lambda device: lambda rgb, intrinsics: closed_form_m(rgb) / 7,
    )
