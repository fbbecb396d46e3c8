"""Depth estimators: depth of the images of one moment, in metres or up to a scale.

In: the images of all views and their intrinsics. Out: their depth.
Read next: `policy.py`, which applies one to predicted frames; `alignment.py`, which fits its scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np

from evalkit.contracts.env import Finding
from evalkit.contracts.errors import BadConfig, UnknownName
from evalkit.contracts.plugins import resolve

DA3_MODEL = "depth-anything/DA3METRIC-LARGE"
DA3_FOCAL_PX = 300.0
"""Focal length for which `DA3METRIC-LARGE` gives metres (README of ByteDance-Seed/Depth-Anything-3, FAQ)."""

DA3_REMEDY = "install Depth Anything 3 from its own repository (github.com/ByteDance-Seed/Depth-Anything-3)"

Estimate = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes V,H,W,3 uint8 images of one moment and V,3,3 intrinsics in pixels; returns V,H,W float32 depth."""


@dataclass(frozen=True, kw_only=True)
class DepthEstimator:
    """A depth estimator that is not loaded yet.

    Attributes:
        name: Name in results.
        in_metres: Whether its depth is in metres; else it needs an alignment.
        note: What identifies it, for the provenance.
        load: Returns the estimator on a device, for example `cuda`.
        findings: What it needs on this machine, and whether it is there.
    """

    name: str
    in_metres: bool
    note: str
    load: Callable[[str], Estimate]
    findings: tuple[Finding, ...] = ()


def find_estimator(name: str, model: str) -> DepthEstimator:
    """Return the estimator of a name, without loading it.

    Args:
        name: `da3`, `plane`, or `module:function` that takes the model and returns a `DepthEstimator`.
        model: The estimator's model.

    Raises:
        UnknownName: If there is none.
        BadConfig: If `module:function` cannot be imported.
    """
    if ":" in name:
        try:
            estimator: DepthEstimator = resolve(name)(model)
        except (ImportError, AttributeError, ValueError) as error:
            raise BadConfig(f"The depth estimator '{name}' cannot be imported: {error}.") from error
        return estimator
    if name not in ESTIMATORS:
        raise UnknownName("depth estimator", name, ESTIMATORS, see="evalkit list --policy two_stage")
    return ESTIMATORS[name](model)


def plane(model: str) -> DepthEstimator:
    """Return an estimator that sees a wall at distance 1: the floor of all estimators, and a substitute for tests."""
    return DepthEstimator(
        name="plane",
        in_metres=False,
        note="no model: a wall at distance 1, the floor of all estimators",
        load=lambda device: lambda rgb, intrinsics: np.ones(rgb.shape[:3], np.float32),
    )


def depth_anything_3(model: str) -> DepthEstimator:
    """Return Depth Anything 3 through its own package.

    Its metric model gives depth for a focal length of 300 px, which the known intrinsics turn into metres. Nested
    models give metres. All others are up to a scale.
    """
    kind = model.rpartition("/")[2].upper()
    canonical = "METRIC" in kind
    here = find_spec("depth_anything_3") is not None
    return DepthEstimator(
        name="da3",
        in_metres=canonical or "NESTED" in kind,
        note=f"Depth Anything 3, {model}" + (", metres by the known focal lengths" if canonical else ""),
        load=lambda device: _load_da3(model, device, canonical=canonical),
        findings=(Finding(what="depth_anything_3", ok=here, found="", remedy=DA3_REMEDY),),
    )


def _load_da3(model: str, device: str, *, canonical: bool) -> Estimate:
    from depth_anything_3.api import DepthAnything3

    network: Any = DepthAnything3.from_pretrained(model).to(device).eval()

    def estimate(rgb_vhwc_u8: np.ndarray, intrinsics_v33_px: np.ndarray) -> np.ndarray:
        raw_vhw = np.asarray(network.inference(list(rgb_vhwc_u8)).depth, np.float32)
        if canonical:
            raw_vhw = raw_vhw * _focal_px(intrinsics_v33_px, rgb_vhwc_u8.shape[1:3], raw_vhw.shape[1:])[:, None, None]
            raw_vhw = raw_vhw / np.float32(DA3_FOCAL_PX)
        return resized(raw_vhw, rgb_vhwc_u8.shape[1:3])

    return estimate


def _focal_px(intrinsics_v33_px: np.ndarray, size_hw: tuple[int, ...], network_hw: tuple[int, ...]) -> np.ndarray:
    """Return the mean focal length of each view, V float32, in pixels of the image that the network has read."""
    (height, width), (network_height, network_width) = size_hw, network_hw
    fx_px = intrinsics_v33_px[:, 0, 0] * network_width / width
    fy_px = intrinsics_v33_px[:, 1, 1] * network_height / height
    return ((fx_px + fy_px) / 2).astype(np.float32)


def resized(depth_vhw: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
    """Return depth in the size of its images, bilinear."""
    height, width = size_hw
    return np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in depth_vhw])


ESTIMATORS: Mapping[str, Callable[[str], DepthEstimator]] = {"da3": depth_anything_3, "plane": plane}
