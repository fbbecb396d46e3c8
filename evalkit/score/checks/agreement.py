"""Agreement of the cameras of one frame: points of one view, seen by another, lie on the other's surface.

In: depth, intrinsics and poses of all views of one frame. Out: how far each pair of views agrees, and if it does not,
which mistake explains that.
Read next: `chunk.py`, which refuses the point cloud of cameras that contradict each other.

A point of view A that falls into the image of view B must not lie in front of B's surface: B would have seen it. It may
lie behind (something hides it from B), so hidden points say nothing.

Measured on correct cameras (robosuite with 3 cameras, RoboCasa with 2 static cameras and a wrist, the closed-form room
of our tests): at most 0.01 of the visible points lie in front. Depth with 8 bits, or 3 % noise: at most 0.2. Focal
lengths wrong by a quarter: 0.14 to 0.8. Doubled or halved intrinsics, transposed or inverted poses: 0.37 to 1, or no
common point at all; a search for the mistake that explains it finds those.

Cameras with parallel axes hide a wrong order of axes that all of them share. If it turns the way from one camera to the
other around, 0.03 to 0.08 of the points lie in front, and undoing it leaves none: that is a warning. If it turns both
cameras about the line between them, no point does: then the whole cloud is turned, and no distance in it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations, product
from typing import NamedTuple

import numba
import numpy as np

from evalkit.contracts.geometry import inverse
from evalkit.score.metrics.depth import MAX_DEPTH_M, MIN_DEPTH_M, truth_mask

GRID = 24
"""Points of a view: at most so many rows and columns of pixels, evenly spread."""

TOLERANCE_FRAC, TOLERANCE_M = 0.02, 0.005
"""How far a point may lie from the depths of the 3x3 pixels around its image, as a share of the depth plus metres."""

MIN_POINTS = 50
"""Fewer common points of a pair of views say nothing."""

WARN_FRAC, REFUSE_FRAC = 0.1, 0.3
"""Shares of contradicting points."""

DOUBT_FRAC = 0.02
"""Share of contradicting points from which axes that all cameras share are doubted, though the cameras agree."""

EXPLAINED_FRAC, EXPLAINED_AGREE = 0.03, 0.5
"""A mistake explains a contradiction if, once it is undone, at most / at least these shares contradict / agree."""

UNCONFIRMED = (
    "no two cameras see enough of one surface to confirm their intrinsics, poses and depth, so nothing confirms the "
    "point clouds; if they should, check the poses' axes (x right, y down, z forward), frame and unit"
)

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
FORWARD_LEFT_UP = np.array([[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
"""Axes of cameras in SAPIEN (hence ManiSkill and RoboTwin) and of bodies in ROS; the columns are x, y and z."""


class Pair(NamedTuple):
    """Points of two views in each other's images.

    Attributes:
        inside: Points whose image has depth.
        agree: Of these, on the other view's surface.
        in_front: Of these, in front of it, where the other view sees nothing.
    """

    inside: int
    agree: int
    in_front: int

    def plus(self, other: Pair) -> Pair:
        """Return the points of both."""
        return Pair(self.inside + other.inside, self.agree + other.agree, self.in_front + other.in_front)

    @property
    def contradicting_frac(self) -> float:
        """Return the share of points in front among those that are not hidden; 0 if there are too few."""
        visible = self.agree + self.in_front
        return self.in_front / visible if visible >= MIN_POINTS else 0.0

    @property
    def confirms(self) -> bool:
        """Return whether the pair shows that both cameras are right."""
        return self.agree >= max(MIN_POINTS, 0.05 * self.inside) and self.contradicting_frac <= WARN_FRAC


@dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """Depth and cameras of one frame: V,H,W metres; V,3,3 pixels; V,4,4."""

    depth_vhw_m: np.ndarray
    intrinsics_v33_px: np.ndarray
    T_base_cam_v44: np.ndarray


class Disagreement(NamedTuple):
    """Cameras that contradict each other.

    Attributes:
        views: Indices of the views.
        in_front_frac: The largest share of contradicting points of a pair, `DOUBT_FRAC` at least; None if the cameras
            share no point.
        explanation: The mistake that explains it, a clause; empty if none of those tried does.
    """

    views: tuple[int, ...]
    in_front_frac: float | None
    explanation: str


class Assessment(NamedTuple):
    """What the views of one frame, or of several, say about their cameras.

    Attributes:
        found: How the cameras contradict each other; None if they do not.
        confirmed: Indices of the views that another view confirms.
        num_views: Views with enough depth to say something.
    """

    found: Disagreement | None = None
    confirmed: frozenset[int] = frozenset()
    num_views: int = 0


def assess(views: Views) -> Assessment:
    """Return what the views of one frame say about their cameras.

    A pair of views contradicts if over `WARN_FRAC` of the visible points lie in front of a surface. Fewer, and cameras
    without common points, are a contradiction only if a known mistake explains that.
    """
    everyone = range(len(views.depth_vhw_m))
    num_views = sum(len(_points(views, view)) >= 2 * MIN_POINTS for view in everyone)
    pairs = pair_agreements(views)
    if not pairs:
        return Assessment(num_views=num_views)
    confirmed = frozenset(view for pair, agreement in pairs.items() if agreement.confirms for view in pair)
    worst = max(pairs, key=lambda pair: pairs[pair].contradicting_frac)
    frac = pairs[worst].contradicting_frac
    if frac > WARN_FRAC:
        explained = _explanation(views, pairs, everyone, frac)
        concerned, text = explained or (_suspects(pairs, worst), "")
        return Assessment(Disagreement(concerned, frac, text), confirmed, num_views)
    if frac > DOUBT_FRAC and (axes := _shared_axes(views, pairs, frac)):
        return Assessment(Disagreement(tuple(everyone), frac, axes), confirmed, num_views)
    explained = _explanation(views, pairs, [view for view in everyone if view not in confirmed])
    return Assessment(Disagreement(explained[0], None, explained[1]) if explained else None, confirmed, num_views)


def combined(frames: Mapping[int, Assessment]) -> Assessment:
    """Return what several frames of a chunk say together.

    Another frame in which the same cameras agree refutes that a convention is wrong: then a contradiction concerns the
    poses of its own frame alone, and cameras without common points are no finding.

    Args:
        frames: By index of the frame.
    """
    found = None
    by_weight = sorted(
        ((frame_idx, given.found) for frame_idx, given in frames.items() if given.found is not None),
        key=lambda item: item[1].in_front_frac is None,
    )
    for frame_idx, claim in by_weight:
        others = [given for other, given in frames.items() if other != frame_idx]
        if not any(given.found is None and set(claim.views) <= given.confirmed for given in others):
            found = claim
        elif claim.in_front_frac is not None:
            found = claim._replace(
                explanation=f"another frame agrees; check the poses of frame {frame_idx} of the chunk"
            )
        if found is not None:
            break
    return Assessment(
        found,
        frozenset().union(*(given.confirmed for given in frames.values())),
        max((given.num_views for given in frames.values()), default=0),
    )


def pair_agreements(views: Views) -> dict[tuple[int, int], Pair]:
    """Return the agreement of every pair of views, both ways added."""
    count = len(views.depth_vhw_m)
    points = [_points(views, view) for view in range(count)]
    return {
        (a, b): _seen_by(views, b, points[a]).plus(_seen_by(views, a, points[b]))
        for a in range(count)
        for b in range(a + 1, count)
    }


@lru_cache(maxsize=64)
def spread(size: int, count: int) -> np.ndarray:
    """Return at most `count` indices below `size`, evenly spread.

    Example:
        >>> spread(10, 4)
        array([0, 3, 6, 9])
    """
    return np.unique(np.linspace(0, size - 1, count).astype(int))


def _points(views: Views, view: int) -> np.ndarray:
    """Return N,3 points of a grid of a view's pixels, base frame, metres."""
    depth_m, K, T = views.depth_vhw_m[view], views.intrinsics_v33_px[view], views.T_base_cam_v44[view]
    rows, columns = (spread(size, GRID) for size in depth_m.shape)
    v, u = np.repeat(rows, len(columns)), np.tile(columns, len(rows))
    z = depth_m[v, u].astype(np.float64)
    valid = truth_mask(z)
    v, u, z = v[valid], u[valid], z[valid]
    points_cam = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], axis=-1)
    return np.asarray(points_cam @ T[:3, :3].T + T[:3, 3])


def _seen_by(views: Views, view: int, points_m: np.ndarray) -> Pair:
    """Return where points lie relative to a view's surface."""
    T_cam_base = inverse(views.T_base_cam_v44[view])
    points_cam_m = points_m @ T_cam_base[:3, :3].T + T_cam_base[:3, 3]
    K = np.asarray(views.intrinsics_v33_px[view], np.float64)
    return Pair(*_counts(np.ascontiguousarray(points_cam_m), np.ascontiguousarray(views.depth_vhw_m[view]), K))


@numba.njit(cache=True, nogil=True)
def _counts(points_cam_m: np.ndarray, depth_m: np.ndarray, K: np.ndarray) -> tuple[int, int, int]:
    """Return the fields of `Pair` for points in a camera's frame: those inside, on the surface, in front of it."""
    height, width = depth_m.shape
    inside, in_front, hidden = 0, 0, 0
    for i in range(len(points_cam_m)):
        x, y, z = points_cam_m[i]
        ahead = max(z, 1e-3)
        u, v = np.rint(x / ahead * K[0, 0] + K[0, 2]), np.rint(y / ahead * K[1, 1] + K[1, 2])
        if not (z > 0.01 and 1 <= u < width - 1 and 1 <= v < height - 1):
            continue
        column, row = int(u), int(v)
        if not (MIN_DEPTH_M < depth_m[row, column] < MAX_DEPTH_M):
            continue
        near_m, far_m = np.inf, 0.0
        for r in range(row - 1, row + 2):
            for c in range(column - 1, column + 2):
                around_m = float(depth_m[r, c])
                if MIN_DEPTH_M < around_m < MAX_DEPTH_M:
                    near_m, far_m = min(near_m, around_m), max(far_m, around_m)
        inside += 1
        in_front += int(z < near_m * (1 - TOLERANCE_FRAC) - TOLERANCE_M)
        hidden += int(z > far_m * (1 + TOLERANCE_FRAC) + TOLERANCE_M)
    return inside, inside - in_front - hidden, in_front


def _suspects(pairs: dict[tuple[int, int], Pair], worst: tuple[int, int]) -> tuple[int, ...]:
    """Return the view that every contradicting pair shares while the others agree, or the worst pair."""
    bad = [pair for pair, agreement in pairs.items() if agreement.contradicting_frac > WARN_FRAC]
    good = {view for pair, agreement in pairs.items() if agreement.confirms for view in pair}
    shared = [view for view in worst if view not in good and all(view in pair for pair in bad)]
    return tuple(shared) if len(shared) == 1 else worst


Undo = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Takes depth (H,W metres), K and T of one view; returns them without a mistake."""


def _moved(T: np.ndarray, factor: float) -> np.ndarray:
    moved = T.copy()
    moved[:3, 3] *= factor
    return moved


def _turned(T: np.ndarray) -> np.ndarray:
    turned = T.copy()
    turned[:3, :3] = T[:3, :3].T
    return turned


def _stretched(K: np.ndarray, *, focal: float, centre: float) -> np.ndarray:
    return np.asarray(K * [[focal, focal, centre], [focal, focal, centre], [1.0, 1.0, 1.0]])


def along_ray(K: np.ndarray, image_hw_px: tuple[int, int]) -> np.ndarray:
    """Return, for each pixel, the distance from the camera of a point at depth 1; H,W.

    Example:
        >>> along_ray(np.diag([1.0, 1.0, 1.0]), (1, 2)).round(3).tolist()
        [[1.0, 1.414]]
    """
    v, u = np.mgrid[: image_hw_px[0], : image_hw_px[1]]
    return np.asarray(np.sqrt(((u - K[0, 2]) / K[0, 0]) ** 2 + ((v - K[1, 2]) / K[1, 1]) ** 2 + 1.0))


DEPTH_SCALES = (0.1, 0.2, 0.25, 0.5, 2.0, 4.0, 5.0, 10.0)
"""Wrong scales of depth that are tried."""


def _rescaled(factor: float) -> Undo:
    return lambda d, K, T: (d / factor, K, T)


def _axes(cv_from_given: np.ndarray) -> Undo:
    """Return what undoes poses whose axes, columns of `cv_from_given`, are others than right, down and forward."""
    return lambda d, K, T: (d, K, T @ cv_from_given.T)


def _permuted_axes() -> Iterator[tuple[str, Undo]]:
    """Yield the right-handed orders and signs of axes that no other mistake names."""
    ways = {1: ("right", "down", "forward"), -1: ("left", "up", "backward")}
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            axes = np.eye(4)
            axes[:3, :3] = np.eye(3)[:, order] * signs
            if np.linalg.det(axes) < 0 or any(np.array_equal(axes, a) for a in (np.eye(4), OPENGL, FORWARD_LEFT_UP)):
                continue
            given = ", ".join(
                f"{name} {ways[sign][axis]}" for name, axis, sign in zip("xyz", order, signs, strict=True)
            )
            yield f"the axes look like {given}; give x right, y down, z forward", _axes(axes)


MISTAKES: dict[str, Undo] = {
    "the pose looks inverted (world to camera); give T_base_cam, camera to base": lambda d, K, T: (d, K, inverse(T)),
    "the axes look like OpenGL's (y up, z backward); give x right, y down, z forward": _axes(OPENGL),
    "the axes look like those of SAPIEN or ROS (x forward, y left, z up); give x right, y down, z forward": _axes(
        FORWARD_LEFT_UP
    ),
    "the pose looks inverted with OpenGL axes; give T_base_cam with x right, y down, z forward": lambda d, K, T: (
        d,
        K,
        inverse(OPENGL @ T),
    ),
    "the rotation looks transposed": lambda d, K, T: (d, K, _turned(T)),
    "the translation looks like millimetres; give metres": lambda d, K, T: (d, K, _moved(T, 1e-3)),
    "the translation looks like centimetres; give metres": lambda d, K, T: (d, K, _moved(T, 1e-2)),
    "the intrinsics look like those of an image twice as large": lambda d, K, T: (
        d,
        _stretched(K, focal=0.5, centre=0.5),
        T,
    ),
    "the intrinsics look like those of an image half as large": lambda d, K, T: (
        d,
        _stretched(K, focal=2.0, centre=2.0),
        T,
    ),
    "the focal lengths look doubled": lambda d, K, T: (d, _stretched(K, focal=0.5, centre=1.0), T),
    "the focal lengths look halved": lambda d, K, T: (d, _stretched(K, focal=2.0, centre=1.0), T),
    "the depth looks like the distance along the ray; give the depth along the optical axis": lambda d, K, T: (
        d / along_ray(K, (d.shape[0], d.shape[1])),
        K,
        T,
    ),
    "the depth images look upside down; row 0 is on top": lambda d, K, T: (d[::-1], K, T),
    "the depth images look mirrored; column 0 is on the left": lambda d, K, T: (d[:, ::-1], K, T),
}

PERMUTED_AXES = dict(_permuted_axes())
"""Tried for all cameras together: of one camera, so many guesses would fit by chance."""

AXES = {text: undo for text, undo in MISTAKES.items() if text.startswith("the axes")} | PERMUTED_AXES
"""Orders and signs of axes other than right, down and forward."""

SCALED_DEPTH = {factor: _rescaled(factor) for factor in DEPTH_SCALES}


def _mistakes(*, concerns_all: bool) -> Iterator[tuple[str, Undo]]:
    """Yield each mistake; in all cameras, a wrong scale of depth looks as one of the translations does."""
    yield from MISTAKES.items()
    for factor, undo in SCALED_DEPTH.items():
        text = f"the depth looks {factor:g} times its true value"
        text += f", or all translations {1 / factor:g} times theirs" if concerns_all else ""
        yield f"{text}; check its scale", undo
    if concerns_all:
        yield from PERMUTED_AXES.items()


def _explanation(
    views: Views, pairs: dict[tuple[int, int], Pair], suspects: Sequence[int], stated_frac: float = 0.0
) -> tuple[tuple[int, ...], str] | None:
    """Return the views and the mistake that, once undone, makes the cameras agree; the best if several do.

    Args:
        views: As stated.
        pairs: Their agreement.
        suspects: Views that may be wrong.
        stated_frac: The largest share of contradicting points of a pair.
    """
    best: tuple[int, tuple[int, ...], str] | None = None
    for concerned, text, changed in _candidates(views, suspects):
        undone = pair_agreements(changed)
        total, before = _total(undone, concerned), _total(pairs, concerned)
        worst = max(pair.contradicting_frac for pair in undone.values())
        if worst > min(EXPLAINED_FRAC, stated_frac / 5 if stated_frac > WARN_FRAC else EXPLAINED_FRAC):
            continue
        if total.agree < max(2 * MIN_POINTS, EXPLAINED_AGREE * total.inside):
            continue
        if stated_frac <= WARN_FRAC and before.agree > 0.1 * total.agree:
            continue
        if best is None or total.agree > best[0]:
            best = total.agree, concerned, text
    return None if best is None else best[1:]


def _shared_axes(views: Views, pairs: dict[tuple[int, int], Pair], stated_frac: float) -> str:
    """Return other axes of all cameras with which hardly a point lies in front; empty if there are none.

    Noise does not do that: it lies on both sides of a surface, whatever the axes.
    """
    everyone = range(len(views.depth_vhw_m))
    before = _total(pairs, everyone)
    fitting = []
    for text, undo in AXES.items():
        undone = pair_agreements(_changed(views, everyone, undo))
        worst, total = max(pair.contradicting_frac for pair in undone.values()), _total(undone, everyone)
        if worst <= stated_frac / 5 and total.agree > before.agree:
            fitting.append((total.agree, text))
    return max(fitting, key=lambda fit: fit[0])[1] if fitting else ""


def _total(pairs: dict[tuple[int, int], Pair], concerned: Sequence[int]) -> Pair:
    """Return the points of all pairs that concern some views."""
    total = Pair(0, 0, 0)
    for views, pair in pairs.items():
        if set(views) & set(concerned):
            total = total.plus(pair)
    return total


def _candidates(views: Views, suspects: Sequence[int]) -> Iterator[tuple[tuple[int, ...], str, Views]]:
    """Yield the views with one mistake undone: in all suspects, in one, or two cameras or poses swapped."""
    everyone = tuple(range(len(views.depth_vhw_m)))
    groups = {tuple(suspects), *((view,) for view in suspects)} - {()}
    for concerned in sorted(groups, key=lambda group: (-len(group), group)):
        for text, undo in _mistakes(concerns_all=concerned == everyone):
            yield concerned, text, _changed(views, concerned, undo)
    K, T = views.intrinsics_v33_px, views.T_base_cam_v44
    for a in everyone:
        for b in everyone[a + 1 :]:
            if not {a, b} <= set(suspects):
                continue
            order = list(everyone)
            order[a], order[b] = b, a
            yield (a, b), "their poses look swapped", replace(views, T_base_cam_v44=T[order])
            if not np.array_equal(K[a], K[b]):
                swapped = replace(views, T_base_cam_v44=T[order], intrinsics_v33_px=K[order])
                yield (a, b), "the two cameras look swapped", swapped


def _changed(views: Views, concerned: Sequence[int], undo: Undo) -> Views:
    depth_m, K, T = (array.copy() for array in vars(views).values())
    for view in concerned:
        depth_m[view], K[view], T[view] = undo(depth_m[view], K[view], T[view])
    return Views(depth_vhw_m=depth_m, intrinsics_v33_px=K, T_base_cam_v44=T)


def describe(found: Disagreement) -> str:
    """Return a clause that says how cameras disagree and why.

    Example:
        >>> describe(Disagreement((0,), None, "the rotation looks transposed"))
        'the cameras see no common surface, but do if one mistake is undone: the rotation looks transposed'
    """
    if found.in_front_frac is None:
        return f"the cameras see no common surface, but do if one mistake is undone: {found.explanation}"
    if found.in_front_frac <= WARN_FRAC:
        return (
            f"the cameras agree better with other axes: {found.in_front_frac:.0%} of the points that one view shows "
            f"lie in front of what another view sees there, and hardly any do if one order of axes is undone, for "
            f"example: {found.explanation}"
        )
    cause = found.explanation or "check intrinsics, poses and the unit of the depth"
    return (
        f"the cameras contradict each other: {found.in_front_frac:.0%} of the points that one view shows lie in front "
        f"of what another view sees there, expected below {WARN_FRAC:.0%}; {cause}"
    )
