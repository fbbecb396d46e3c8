"""The scale of estimated depth, fitted to measured depth of the past or the present, never of the future.

In: the estimated and the measured depth of one observed moment. Out: a factor.
Read next: `policy.py`, which multiplies predicted frames by it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

ALIGNMENTS: Mapping[str, str] = {
    "none": "none: the estimator gives metres",
    "first_frame": "one scale per episode: measured over estimated median depth of its first observed frame",
    "median": "one scale per request: measured over estimated median depth of the current observed frame",
}
"""What each alignment says of itself in the result. Views are pooled; pixels without a measurement are left out."""


def scale_of(estimated: np.ndarray, measured_m: np.ndarray) -> float:
    """Return the factor that gives the estimated depth the median of the measured one, over all views.

    Raises:
        ValueError: If nothing was measured, or no estimate is positive: no scale can be fitted.

    Args:
        estimated: V,H,W depth in any scale.
        measured_m: V,H,W metres, 0 where nothing was measured.

    Example:
        >>> scale_of(np.full((1, 1, 4), 2.0), np.array([[[0.0, 1.0, 3.0, 5.0]]]))
        1.5
    """
    valid = (measured_m > 0) & np.isfinite(measured_m) & np.isfinite(estimated) & (estimated > 0)
    if not valid.any():
        raise ValueError(f"of {valid.size} pixels none has both a measured and a positive estimated depth")
    return float(np.median(measured_m[valid]) / np.median(estimated[valid]))
