"""Checks of camera matrices: is a matrix a pose, do intrinsics fit the image.

In: intrinsics and poses of one camera. Out: the sentence that says what is wrong, empty if nothing is; an `Oddity`
where the other cameras may show that the matrix is right.
Read next: `agreement.py`, which compares the cameras of a clip with each other.
"""

from __future__ import annotations

import numpy as np

from evalkit.score.checks.oddity import Oddity

ORTHONORMAL = 1e-2
"""Largest entry of R R^T - 1 in a rotation; entries rounded to three decimals give 2e-3."""

MAX_DISTANCE_M = 50.0
"""Largest distance of a camera from the robot base; 1 m written in millimetres is 1000."""

FOCAL_FRAC = (0.15, 6.0)
"""Range of focal length / image width: a field of view from 147 to 9.5 degrees."""

CENTRE_FRAC = (0.35, 0.65)
"""Range of principal point / image size that needs no explanation."""

MAX_ASPECT_CHANGE = 2.0
"""Largest ratio of the two scales between an image and the one whose intrinsics it was given."""

MAX_SKEW_PX = 0.5
"""Largest shift of a pixel by skew, which the point cloud leaves out."""


def pose_fault(T: np.ndarray) -> str:
    """Return why a matrix is not the pose of a camera (`T_base_cam` or `T_ee_cam`, metres); empty if it is one.

    Example:
        >>> pose_fault(np.eye(4))
        ''
        >>> pose_fault(np.diag([1.0, 1.0, -1.0, 1.0]))
        'its rotation mirrors (determinant -1); expected a right-handed rotation'
    """
    T = np.asarray(T)
    if T.shape != (4, 4) or T.dtype == object:
        return "it is missing; expected a 4x4 matrix"
    if not np.isfinite(T).all():
        return "it is missing or not finite; expected a 4x4 matrix"
    R = T[:3, :3]
    if np.abs(T[3] - [0.0, 0.0, 0.0, 1.0]).max() > 1e-6:
        hint = "; it looks transposed" if np.abs(T[:, 3] - [0.0, 0.0, 0.0, 1.0]).max() < 1e-6 else ""
        return f"its bottom row is {_row(T[3])}, expected [0, 0, 0, 1]{hint}"
    deviation = float(np.abs(R @ R.T - np.eye(3)).max())
    if deviation > ORTHONORMAL:
        scale = float(np.cbrt(abs(np.linalg.det(R))))
        even = scale > 0 and np.abs(R @ R.T / scale**2 - np.eye(3)).max() < ORTHONORMAL
        found = f"is scaled by {scale:.4g}" if even else f"is not orthonormal (R R^T differs from 1 by {deviation:.2g})"
        return f"its rotation {found}; expected a rotation matrix in the upper left 3x3 part"
    if np.linalg.det(R) < 0:
        return "its rotation mirrors (determinant -1); expected a right-handed rotation"
    return ""


def distance_oddity(T: np.ndarray) -> Oddity | None:
    """Return whether a pose lies too far from the robot base, 4x4, metres.

    Example:
        >>> T = np.eye(4)
        >>> T[0, 3] = 800.0
        >>> distance_oddity(T).value
        800.0
    """
    distance_m = float(np.linalg.norm(T[:3, 3]))
    if distance_m <= MAX_DISTANCE_M:
        return None
    text = (
        f"it lies {distance_m:.4g} m from the robot base, expected below {MAX_DISTANCE_M:.0f} m; its translation looks "
        "like millimetres or centimetres, or is given in another frame than the base"
    )
    return Oddity("pose", distance_m, text, True)


def intrinsics_fault(K: np.ndarray, image_hw_px: tuple[int, int]) -> str:
    """Return why a matrix cannot hold the intrinsics of an image of this size, pixels; empty if it can.

    Example:
        >>> K = np.array([[200.0, 0.0, 127.5], [0.0, 200.0, 127.5], [0.0, 0.0, 1.0]])
        >>> intrinsics_fault(K, (256, 256))
        ''
        >>> intrinsics_fault(K.T, (256, 256))
        'their bottom row is [127.5, 127.5, 1], expected [0, 0, 1]; they look transposed'
    """
    K = np.asarray(K)
    if K.shape != (3, 3) or not np.isfinite(K).all():
        return "they are missing or not finite; expected a 3x3 matrix in pixels"
    if np.abs(K[2] - [0.0, 0.0, 1.0]).max() > 1e-6:
        hint = "; they look transposed" if np.abs(K[:, 2] - [0.0, 0.0, 1.0]).max() < 1e-6 else ""
        return f"their bottom row is {_row(K[2])}, expected [0, 0, 1]{hint}"
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    if fx <= 0 or fy <= 0:
        return f"their focal lengths are {fx:.4g} and {fy:.4g} pixels, expected positive numbers (y points down)"
    height, width = image_hw_px
    if abs(K[1, 0]) > 1e-6 or abs(K[0, 1]) / fy * height / 2 > MAX_SKEW_PX:
        return f"they have a skew ({K[0, 1]:.4g}, {K[1, 0]:.4g}), which is not supported; rectify the images"
    if max(fx, fy, cx, cy) < 10.0 and min(height, width) >= 32:
        return (
            f"fx {fx:.4g}, fy {fy:.4g}, cx {cx:.4g}, cy {cy:.4g} look divided by the image size; expected pixels of "
            f"the {width} x {height} image"
        )
    if height != width and abs(cx - height / 2) < 1 + 0.02 * height and abs(cy - width / 2) < 1 + 0.02 * width:
        return (
            f"their principal point ({cx:.4g}, {cy:.4g}) is not near the centre of the {width} x {height} image; width "
            "and height look swapped"
        )
    return _focal_fault(fx / width, fy / height, image_hw_px)


def _focal_fault(fx_frac: float, fy_frac: float, image_hw_px: tuple[int, int]) -> str:
    low, high = FOCAL_FRAC
    for axis, frac, size_px in (("fx", fx_frac, image_hw_px[1]), ("fy", fy_frac, image_hw_px[0])):
        if not low < frac < high:
            angle = 2 * np.degrees(np.arctan(0.5 / frac))
            return (
                f"{axis} {frac * size_px:.4g} means a field of view of {angle:.3g} degrees over {size_px} pixels, "
                "expected 9.5 to 147; they look like those of another image size or unit"
            )
    return ""


def centre_oddity(K: np.ndarray, image_hw_px: tuple[int, int]) -> Oddity | None:
    """Return whether a principal point lies far from the centre: in a crop, or with intrinsics of another image size.

    Args:
        K: Intrinsics, pixels.
        image_hw_px: Height and width.

    Example:
        >>> K = np.array([[200.0, 0.0, 255.5], [0.0, 200.0, 255.5], [0.0, 0.0, 1.0]])
        >>> centre_oddity(K, (256, 256)).is_certain, centre_oddity(K, (512, 256)).is_certain
        (True, False)
    """
    (height, width), (cx, cy) = image_hw_px, K[:2, 2]
    if all(CENTRE_FRAC[0] <= frac <= CENTRE_FRAC[1] for frac in (cx / width, cy / height)):
        return None
    scales = 2 * (cx + 0.5) / width, 2 * (cy + 0.5) / height
    text = f"their principal point ({cx:.4g}, {cy:.4g}) is not near the centre of the {width} x {height} image"
    both = min(scales) > 2 * CENTRE_FRAC[1] or 0 < min(scales) <= max(scales) < 2 * CENTRE_FRAC[0]
    if both and max(scales) < MAX_ASPECT_CHANGE * min(scales):
        text += f"; they look like those of an image of about {2 * cx:.0f} x {2 * cy:.0f}"
        return Oddity("intrinsics", max(scales), text, True)
    return Oddity("intrinsics", max(scales), f"{text}; right for a crop, else check which image they belong to")


def is_missing(matrix: np.ndarray) -> bool:
    """Return whether a matrix was not given; readers fill it with NaN."""
    return not np.isfinite(np.asarray(matrix, np.float64)).any()


def _row(values: np.ndarray) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values)}]"
