"""Depth estimators, for policies that predict RGB alone.

In: RGB of all views, and the ground-truth depth to align with. Out: a prediction with depth, a separate subject.
Read next: `evalkit/score/chunk.py`, which scores it; `evalkit/score/metrics/depth.py` for the
alignments.

An estimator is named as `name/alignment`, for example `da3/median`; the subject in the result file carries both, as
in `policy+da3/median`. `truth+da3/median` is the same estimator on the ground-truth RGB: the error of the estimator.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np

from evalkit.contracts.errors import BadConfig, EvalkitError, UnknownName
from evalkit.contracts.plugins import resolve
from evalkit.contracts.types import Prediction
from evalkit.score.metrics import depth, disparity

Alignment = Literal["metric", "median", "affine_disparity"]
ALIGNMENTS: dict[Alignment, str] = {
    "metric": "none, the estimator gives metres",
    "median": "one scale per chunk: ground-truth median over estimated median, over all views",
    "affine_disparity": "scale and shift of inverse depth per chunk, least squares to the ground truth, over all views",
}

Estimator = Callable[[np.ndarray], np.ndarray]
"""Takes N,H,W,3 uint8 images, returns N,H,W float32 depth in whatever scale it has."""


class EstimatorUnavailable(EvalkitError):
    """An estimator whose package or weights are missing."""


@dataclass(frozen=True, kw_only=True)
class EstimatorChoice:
    """An estimator with the alignment that its depth gets.

    Attributes:
        name: `plane`, `da3`, or `module:function` that returns an `Estimator`.
        alignment: A key of `ALIGNMENTS`.
    """

    name: str
    alignment: Alignment

    @property
    def label(self) -> str:
        """Return the text that subjects carry."""
        return f"{self.name}/{self.alignment}"


def parse_choice(text: str) -> EstimatorChoice:
    """Return the choice that `name/alignment` names.

    Raises:
        UnknownName: For an estimator or an alignment that does not exist.
        EstimatorUnavailable: If `module:function` cannot be imported.
        BadConfig: For `da3/metric` with a model that gives no metres.

    Example:
        >>> parse_choice("plane/median")
        EstimatorChoice(name='plane', alignment='median')
    """
    name, _, alignment = text.rpartition("/")
    for known in ALIGNMENTS:
        if alignment == known and name:
            _check_name(name)
            _check_metres(name, known)
            return EstimatorChoice(name=name, alignment=known)
    raise UnknownName("alignment", alignment, ALIGNMENTS, see="evalkit score folders --help")


def _check_name(name: str) -> None:
    """Raise UnknownName or EstimatorUnavailable unless an estimator has this name."""
    if ":" in name:
        _resolved(name)
    elif name not in _MAKERS:
        raise UnknownName("depth estimator", name, _MAKERS, see="evalkit score folders --help")


def _check_metres(name: str, alignment: Alignment) -> None:
    """Raise BadConfig where no alignment is asked for and Depth Anything 3 is not the model that gives metres.

    `DA3METRIC-LARGE` gives depth for a focal length of 300 px (its FAQ), and scoring folders knows no focal lengths.
    """
    if name == "da3" and alignment == "metric" and "NESTED" not in _da3_model().upper():
        raise BadConfig(
            f"da3/metric needs a model that gives metres; {_da3_model()} does not. Choose da3/median, set "
            "EVALKIT_DA3=depth-anything/DA3NESTED-GIANT-LARGE, or run the policy `two_stage`."
        )


def _da3_model() -> str:
    """Return the model of Depth Anything 3: an id on the hub, or a folder of weights."""
    return os.environ.get("EVALKIT_DA3", "depth-anything/DA3METRIC-LARGE")


def with_depth(
    choice: EstimatorChoice,
    prediction: Prediction,
    true_depth_fvhw_m: np.ndarray,
    *,
    blind: Sequence[tuple[int, int]] = (),
) -> Prediction:
    """Return a prediction whose depth is estimated from its RGB and aligned as the choice says.

    RGB of another size than the ground truth gets a depth of zeros, which gets a status.

    Args:
        choice: Which estimator.
        prediction: F,V,H,W,3 RGB; its own depth is ignored.
        true_depth_fvhw_m: Depth to align with; as many frames, or more.
        blind: Frame and view of images that could not be read; the alignment ignores them.

    Raises:
        EstimatorUnavailable: If the estimator cannot be loaded.
    """
    frames, views, height, width = prediction.rgb.shape[:4]
    if (views, height, width) != true_depth_fvhw_m.shape[1:]:
        return replace(prediction, depth=np.zeros(prediction.rgb.shape[:4], np.float32))
    images = prediction.rgb.reshape(-1, height, width, 3)
    estimate = np.array(load(choice.name)(images), np.float32).reshape(frames, views, height, width)
    num_frames = min(frames, len(true_depth_fvhw_m))
    for frame_idx, view in blind:
        estimate[frame_idx : frame_idx + 1, view] = np.nan
    aligned = align(estimate[:num_frames], true_depth_fvhw_m[:num_frames], choice.alignment)
    return replace(prediction, rgb=prediction.rgb[:num_frames], depth=aligned.astype(np.float32))


def align(estimate_m: np.ndarray, true_m: np.ndarray, alignment: Alignment) -> np.ndarray:
    """Return an estimate after one of the `ALIGNMENTS`; one that cannot be fitted is returned unchanged."""
    if alignment == "median":
        return depth.median_aligned(true_m, estimate_m)
    if alignment == "affine_disparity":
        fit = disparity.fit_robustly(true_m, estimate_m)
        return fit.apply(estimate_m) if isinstance(fit, disparity.DisparityFit) else estimate_m
    return estimate_m


@lru_cache(maxsize=2)
def load(name: str) -> Estimator:
    """Return an estimator by name.

    Raises:
        EstimatorUnavailable: If its package or weights are missing.
    """
    if name in _MAKERS:
        return _MAKERS[name]()
    return _resolved(name)()  # type: ignore[no-any-return]


def _resolved(name: str) -> Any:
    try:
        return resolve(name)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(_MAKERS)
        raise EstimatorUnavailable(
            f"Depth estimator '{name}' is unavailable, because {error}. Use {known} or module:function."
        ) from error


def _plane() -> Estimator:
    """Return an estimator that always estimates a wall at distance 1: the floor of all estimators."""
    return lambda images: np.ones(images.shape[:3], np.float32)


def _da3() -> Estimator:
    """Return Depth Anything 3 through its own package; `EVALKIT_DA3` names another model or a folder of weights."""
    try:
        import torch
        from depth_anything_3.api import DepthAnything3
    except ImportError as error:
        raise EstimatorUnavailable(
            f"Depth Anything 3 is unavailable, because {error}. Install it from its own repository."
        ) from error
    model = DepthAnything3.from_pretrained(_da3_model()).to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return lambda images: _resized(np.asarray(model.inference(list(images)).depth, np.float32), images.shape[1:3])


def _resized(depth_nhw: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
    """Return depth resized to the size of its images, bilinear."""
    height, width = size_hw
    return np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in depth_nhw])


_MAKERS: Mapping[str, Callable[[], Any]] = {"plane": _plane, "da3": _da3}
