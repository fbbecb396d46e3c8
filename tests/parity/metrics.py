"""Our metrics against reference values: `python tests/parity/metrics.py DIR`.

In: a folder with `expected.json` (tolerances, cases) and `case_<seed>.npz`. Out: a line a key group; exit status 1 if
any key is off by more than its tolerance, or unknown.
Read next: `evalkit/score/metrics/`, whose results are checked here.

A case holds V views (the last one a wrist camera) of T frames, RGB and depth, true and predicted, cameras and
end-effector poses. Forms of SSIM that evalkit does not report are computed here, slowly, to show which form is which.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from evalkit.score.metrics import cloud, depth, disparity, image, lpips
from evalkit.score.results.outcome import Measure

Case = Mapping[str, np.ndarray]
Values = dict[str, Any]
EXAMPLE = Path(__file__).with_name("lpips_example.npz")
"""The example pair of the lpips package (BSD-2-Clause, Zhang et al. 2018): `reference`, `further`, `nearer`."""

EXAMPLE_ALEX = {"further": 0.722, "nearer": 0.138}
"""What the package's own page gives for AlexNet, three digits."""

VOXEL_M = 0.02

KINDS = (  # the first pattern that fits a key names its tolerance
    (r"psnr/|edge/psnr", "psnr"),
    (r"ssim/|edge/ssim", "ssim_float64"),
    (r"lpips/", "lpips"),
    (r"depth/", "depth"),
    (r"fused_voxel", "voxel"),
    (r"cloud/|fused/|wrist_pose_pred/", "chamfer_float64"),
)


@dataclass
class Group:
    """Keys that differ only in frame and view."""

    tolerance: float
    count: int = 0
    worst: float = 0.0
    problems: list[str] = field(default_factory=list)


def main(folder: Path) -> int:
    """Print a line a key group and return the exit status."""
    expected = json.loads((folder / "expected.json").read_text())
    groups: dict[str, Group] = {}
    unavailable: dict[str, str] = {}
    for name, keys in expected["cases"].items():
        with np.load(folder / f"{name}.npz") as case:
            ours, absent = compute({key: case[key] for key in case.files}, keys)
        unavailable |= absent
        for key, value in keys.items():
            if not any(key.startswith(prefix) for prefix in absent):
                _compare(groups, name, key, value, ours, expected["tolerances"])
    _add_example(groups)
    for group, found in groups.items():
        verdict = "FAIL" if found.problems else "ok"
        print(f"{verdict:<5}{group:<66}{found.count:>4} keys  worst {found.worst:.1e}  tolerance {found.tolerance:.0e}")
        for problem in found.problems[:5]:
            print(f"     {problem}")
    for prefix, reason in unavailable.items():
        print(f"     {prefix}: {reason}")
    failed = sum(bool(group.problems) for group in groups.values())
    print(f"{len(groups)} key groups, {failed} failed, {len(unavailable)} unavailable")
    return 1 if failed or not groups else 0


def compute(case: Case, keys: Mapping[str, Any]) -> tuple[Values, dict[str, str]]:
    """Return our value of every key of a case, and the prefixes of keys that cannot be had, with the reason."""
    values: Values = {}
    for prefixes, part in PARTS.items():
        if any(key.startswith(prefixes) for key in keys):
            values.update(part(case, keys))
    unavailable = {}
    for net in lpips.NETS:
        if any(key.startswith(f"lpips/{net}") for key in keys):
            try:
                values.update(_lpips(case, lpips.load(net)))
            except lpips.LpipsUnavailable as error:
                unavailable[f"lpips/{net}"] = str(error)
    return values, unavailable


def _compare(
    groups: dict[str, Group], name: str, key: str, value: Any, ours: Values, tolerances: Mapping[str, float]
) -> None:
    kind = next((kind for pattern, kind in KINDS if re.match(pattern, key)), None)
    group_name = re.sub(r"/(frame_)?(v\d+_)?t\d+", "", key)
    group = groups.setdefault(group_name, Group(tolerance=tolerances.get(kind or "", 0.0)))
    group.count += 1
    if key not in ours:
        group.problems.append(f"{name} {key}: evalkit has no such value")
        return
    error = _error(np.asarray(ours[key], np.float64), np.asarray(value, np.float64))
    group.worst = max(group.worst, error)
    if not error <= group.tolerance:
        group.problems.append(f"{name} {key}: expected {value}, got {ours[key]}")


def _add_example(groups: dict[str, Group]) -> None:
    """Check LPIPS on the package's own example pair."""
    network = lpips.load("alex")
    with np.load(EXAMPLE) as example:
        ours = {name: float(network(example["reference"][None], example[name][None])[0]) for name in EXAMPLE_ALEX}
    keys = {f"lpips/example_pair/{name}": value for name, value in ours.items()}
    for name, value in EXAMPLE_ALEX.items():
        _compare(groups, "example", f"lpips/example_pair/{name}", value, keys, {"lpips": 5e-4})


def _error(ours: np.ndarray, expected: np.ndarray) -> float:
    if ours.shape != expected.shape:
        return np.inf
    equal = (ours == expected) | (np.isnan(ours) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where(equal, 0.0, np.abs(ours - expected)), initial=0.0))


def _static_frames(case: Case) -> Iterator[tuple[int, int, str]]:
    views, frames = case["rgb_gt"].shape[:2]
    for view in range(views - 1):
        for frame in range(frames):
            yield view, frame, f"v{view}_t{frame}"


def _images(case: Case, _keys: Mapping[str, Any]) -> Values:
    values: Values = {}
    forms: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], float]]] = {
        "ssim/skimage_gauss11_sigma1.5_popcov": ("ssim/skimage_gauss", image.ssim),
        "ssim/piq_default": ("ssim/piq", image.ssim),
        "ssim/skimage_default_uniform7_samplecov": ("ssim/skimage_default", ssim_uniform7),
        "ssim/torchmetrics_default": ("ssim/torchmetrics_default", ssim_gauss11_bordered),
        "ssim/kornia_w11_same_pad": ("ssim/kornia", ssim_gauss11_bordered),
    }
    squares = []
    for view, frame, tag in _static_frames(case):
        true, pred = case["rgb_gt"][view, frame], case["rgb_pred"][view, frame]
        squares.append(image.mse(true, pred))
        values[f"psnr/skimage/frame_{tag}"] = _psnr(squares[-1])
        values[f"psnr/xwam_eps1e-8/frame_{tag}"] = image.psnr_eps_db(squares[-1])
        for name, (_, form) in forms.items():
            values[f"{name}/frame_{tag}"] = form(true, pred)
    values["psnr/mean_of_frames(static)"] = float(np.mean([_psnr(square) for square in squares]))
    values["psnr/of_mean_mse(static)"] = _psnr(float(np.mean(squares)))
    values["psnr/xwam_mean(static)"] = float(np.mean([image.psnr_eps_db(square) for square in squares]))
    for name, (mean_name, _) in forms.items():
        frames = [value for key, value in values.items() if key.startswith(f"{name}/frame_")]
        values[f"{mean_name}/mean(static)"] = float(np.mean(frames))
    return values


def _psnr(mean_squared: float) -> float:
    """Return PSNR as scikit-image does: infinite for identical frames, which evalkit names instead."""
    measure = image.psnr_db(mean_squared)
    return np.inf if measure.status == "identical_frames" else float(measure.value or 0.0)


def _edges(_case: Case, _keys: Mapping[str, Any]) -> Values:
    noise = np.random.default_rng(0).integers(0, 256, (32, 40, 3)).astype(np.uint8)
    dark, light = np.full((64, 80, 3), 90, np.uint8), np.full((64, 80, 3), 110, np.uint8)
    return {
        "edge/psnr_identical_skimage": _psnr(image.mse(noise, noise)),
        "edge/psnr_identical_xwam": image.psnr_eps_db(image.mse(noise, noise)),
        "edge/ssim_identical": image.ssim(noise, noise),
        "edge/ssim_const90_vs_const110_gauss": image.ssim(dark, light),
        "edge/psnr_const90_vs_const110": _psnr(image.mse(dark, light)),
    }


def _lpips(case: Case, network: lpips.Lpips) -> Values:
    values, frames = {}, []
    for view, frame, tag in _static_frames(case):
        pair = case["rgb_gt"][view, frame][None], case["rgb_pred"][view, frame][None]
        frames.append(float(network(*pair)[0]))
        values[f"lpips/{network.net}_v0.1/frame_{tag}"] = frames[-1]
    return {**values, f"lpips/{network.net}/mean(static)": float(np.mean(frames))}


def _depths(case: Case, keys: Mapping[str, Any]) -> Values:
    values: Values = {}
    for max_text in sorted({match[1] for key in keys if (match := re.match(r"depth/max([\d.]+)/", key))}):
        for name, value in _depth(case, float(max_text)).items():
            values[f"depth/max{max_text}/{name}"] = value
    return values


def _depth(case: Case, max_m: float) -> Values:
    """Return depth values with the pixels of an invalid prediction left out, as the references do, and counted."""
    values: Values = {}
    pooled, counted, scaled, means = depth.NO_ERRORS, depth.NO_ERRORS, [], []
    pairs = []
    for view, frame, tag in _static_frames(case):
        true, pred = case["depth_gt"][view, frame], case["depth_pred"][view, frame]
        both = np.where(depth.is_valid(pred), true, 0.0)
        errors = depth.depth_errors(both, pred, max_depth_m=max_m)
        values[f"n_valid/{tag}"] = errors.num_valid
        values[f"absrel/{tag}"], values[f"delta1/{tag}"] = _number(errors.absrel()), _number(errors.delta(1))
        means.append((values[f"absrel/{tag}"], values[f"delta1/{tag}"]))
        pooled = pooled.plus(errors)
        counted = counted.plus(depth.depth_errors(true, pred, max_depth_m=max_m))
        aligned = depth.median_aligned(true, pred, max_depth_m=max_m)
        scaled.append(_number(depth.depth_errors(both, aligned, max_depth_m=max_m).absrel()))
        pairs.append((both.ravel(), pred.ravel()))
    true, pred = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    fit = disparity.fit_least_squares(true, pred, max_depth_m=max_m) or disparity.DisparityFit(np.nan, np.nan)
    affine = depth.depth_errors(true, fit.apply(pred, max_depth_m=max_m), max_depth_m=max_m)
    values["absrel/mean_of_frames"], values["delta1/mean_of_frames"] = np.mean(means, axis=0)
    values["absrel/pixel_pooled"], values["delta1/pixel_pooled"] = _number(pooled.absrel()), _number(pooled.delta(1))
    values["absrel/median_scaled_per_frame"] = float(np.mean(scaled))
    values["absrel/affine_disparity_clip_pooled"] = np.nan if np.isnan(fit.scale) else _number(affine.absrel())
    values["affine_disparity_scale_shift"] = [fit.scale, fit.shift]
    values["absrel/pooled_invalid_pred_counts_1"] = _number(counted.absrel())
    values["delta1/pooled_invalid_pred_counts_0"] = _number(counted.delta(1))
    return values


def _number(measure: Measure) -> float:
    """Return a value as the references do, NaN where evalkit names why there is none."""
    return np.nan if measure.value is None else measure.value


def _pair(case: Case, _keys: Mapping[str, Any]) -> Values:
    return _cloud_values("cloud", case["cloud_b"], case["cloud_a"])


def _fused(case: Case, _keys: Mapping[str, Any]) -> Values:
    values: Values = {}
    squares: dict[str, list[float]] = {}
    for frame in range(case["rgb_gt"].shape[1]):
        poses = {"gt_pose": case["T_world_cam"][:, frame], "pred_wrist": case["T_world_cam"][:, frame].copy()}
        poses["pred_wrist"][-1] = case["ee_pred"][frame] @ case["hand_eye"]
        values[f"wrist_pose_pred/t{frame}"] = poses["pred_wrist"][-1]
        true = cloud.fuse(case["depth_gt"][:, frame], case["K"], poses["gt_pose"])
        for name, T_world_cam in poses.items():
            pred = cloud.fuse(case["depth_pred"][:, frame], case["K"], T_world_cam)
            values |= _cloud_values(f"fused/{name}/t{frame}", true, pred)
            voxels = [_voxel_means(points, VOXEL_M) if len(points) else points for points in (true, pred)]
            values |= _cloud_values(f"fused_voxel2cm/{name}/t{frame}", *voxels)
            squares.setdefault(name, []).append(values[f"fused/{name}/t{frame}/l2sq_sum"])
    return values | {f"fused/{name}/l2sq_sum/mean_of_frames": np.mean(found) for name, found in squares.items()}


def _voxel_means(points_m: np.ndarray, voxel_m: float) -> np.ndarray:
    """Return the mean of the points in each voxel, as open3d's `voxel_down_sample` does: two clouds get two grids."""
    corner = points_m.min(axis=0) - 0.5 * voxel_m
    cells = np.floor((points_m - corner) / voxel_m).astype(np.int64)
    _, which, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    sums = np.stack([np.bincount(which, weights=points_m[:, axis]) for axis in range(3)], axis=1)
    return np.asarray(sums / counts[:, None])


def _cloud_values(prefix: str, true: np.ndarray, pred: np.ndarray) -> Values:
    found = cloud.distances(true, pred)
    values = {
        "n_pred": len(pred),
        "n_gt": len(true),
        "l1_pred_to_gt": _number(found.accuracy_m()),
        "l1_gt_to_pred": _number(found.completeness_m()),
        "l1_half": _number(found.l1_half_m()),
        "l1_sum": _number(found.l1_sum_m()),
        "l2sq_sum": _number(found.l2sq_sum_m2()),
        "l2sq_half": _number(found.l2sq_sum_m2()) / 2,
        "fscore_1cm": _number(found.fscore(0.01)),
    }
    return {f"{prefix}/{name}": value for name, value in values.items()}


def ssim_uniform7(true_u8: np.ndarray, pred_u8: np.ndarray) -> float:
    """Return scikit-image's default SSIM: uniform window of 7, sample covariance, 3 pixels cropped; range 255."""
    window = 7 * 7
    index = _ssim_map(true_u8, pred_u8, lambda x: ndimage.uniform_filter(x, (7, 7, 1)), window / (window - 1))
    return float(index[3:-3, 3:-3].mean())


def ssim_gauss11_bordered(true_u8: np.ndarray, pred_u8: np.ndarray) -> float:
    """Return torchmetrics' and kornia's default SSIM: gaussian 11, sigma 1.5, mirrored border that counts."""

    def blur(x: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(x, (1.5, 1.5, 0), radius=(5, 5, 0), mode="mirror")

    return float(_ssim_map(true_u8, pred_u8, blur, 1.0).mean())


def _ssim_map(
    true_u8: np.ndarray, pred_u8: np.ndarray, blur: Callable[[np.ndarray], np.ndarray], correction: float
) -> np.ndarray:
    x, y = true_u8 / 255.0, pred_u8 / 255.0
    mean_x, mean_y = blur(x), blur(y)
    spread = correction * (blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2)
    covariance = correction * (blur(x * y) - mean_x * mean_y)
    luminance = (2 * mean_x * mean_y + image.C1) / (mean_x**2 + mean_y**2 + image.C1)
    return np.asarray(luminance * (2 * covariance + image.C2) / (spread + image.C2))


PARTS: dict[tuple[str, ...], Callable[[Case, Mapping[str, Any]], Values]] = {
    ("psnr/", "ssim/"): _images,
    ("edge/",): _edges,
    ("depth/",): _depths,
    ("cloud/",): _pair,
    ("fused", "wrist_pose_pred/"): _fused,
}
"""What gives the keys that start so; a case whose keys lack one need not hold its arrays."""


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "expected.json").is_file():
        sys.exit("Usage: python tests/parity/metrics.py DIR, a folder with expected.json and case_<seed>.npz.")
    sys.exit(main(Path(sys.argv[1])))
