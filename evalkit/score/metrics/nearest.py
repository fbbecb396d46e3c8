"""Exact nearest-neighbour distances between large clouds whose points are ordered in space.

In: two clouds, N,3. Out: the distance from every point of one to its nearest point of the other, float64.
Read next: `cloud.py`, which lifts depth images tile by tile, the order that makes this fast.

A tree of boxes stands on runs of consecutive points: 16 points a leaf, 16 leaves a block, 16 blocks a top box.
Building it sorts nothing, because neighbours in the image are neighbours in space. The 16 queries of a leaf go down
the tree together, side by side in the processor's vector registers, and search every leaf that could hold a
nearer point for one of them. Whatever the order, the result is exact; a cloud whose order is poor (noise instead of
surfaces) is sorted along a space-filling curve first.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np

RUN = 16
"""Points a leaf, leaves a block, blocks a top box."""

FAR_M = 1e150
"""Coordinate of the points that fill up the last leaf; far from everything, its square still finite."""

NEAR_FRAC = 0.05
"""Leaves nearer to a group of queries than this share of its bound, squared, are searched as soon as they are found."""

_FAST = {"nnan", "ninf", "nsz"}
"""Enough for minima in vector registers. Sums keep their order and every rounding, so that each compilation, which may
arrange its code otherwise, gives the same distances to the bit."""

_jit = numba.njit(cache=True, nogil=True, fastmath=_FAST)
_inline = numba.njit(cache=True, nogil=True, fastmath=_FAST, inline="always")


@dataclass(frozen=True, kw_only=True, eq=False)
class PointTree:
    """A cloud and the boxes over its runs; serves as the searched cloud and as the queries.

    Attributes:
        points_3n_m: 3,N' with N filled up to whole leaves.
        leaves_6n_m: Lower then upper corner of each leaf's box.
        blocks_6n_m: The same of each block.
        tops_6n_m: The same of each top box.
        num_points: N.
        order: Position of each point in the given cloud; None if the order is unchanged.
    """

    points_3n_m: np.ndarray
    leaves_6n_m: np.ndarray
    blocks_6n_m: np.ndarray
    tops_6n_m: np.ndarray
    num_points: int
    order: np.ndarray | None


def build_tree(points_m: np.ndarray) -> PointTree:
    """Return the tree of a cloud, N,3, finite, N at least 1."""
    tree = _build(points_m, order=None)
    if _is_scattered(tree, points_m):
        order = _curve_order(np.ascontiguousarray(points_m.T, np.float64))
        tree = _build(points_m[order], order=order)
    return tree


def nearest_distances(tree: PointTree, queries: PointTree, *, threads: int = 1) -> np.ndarray:
    """Return the distance from each query to its nearest point of the tree, metres, in the order of the queries.

    Example:
        >>> cloud = build_tree(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
        >>> nearest_distances(cloud, build_tree(np.array([[1.0, 2.0, 0.0]])))
        array([2.])
    """
    num_groups = queries.leaves_6n_m.shape[1]
    squares = np.empty(num_groups * RUN)
    boxes = tree.leaves_6n_m, tree.blocks_6n_m, tree.tops_6n_m
    edges = np.linspace(0, num_groups, max(threads, 1) + 1).astype(int)

    def search(part: int) -> None:
        span = edges[part], edges[part + 1]
        _search(queries.points_3n_m, queries.leaves_6n_m, span, RUN, tree.points_3n_m, *boxes, squares)

    if threads <= 1:
        search(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(search, range(threads)))
    return distances_in_order(squares, queries)


def distances_in_order(squares: np.ndarray, queries: PointTree) -> np.ndarray:
    """Return distances, metres, in the order in which the queries were given, from squares in that of their tree."""
    in_tree_order = np.sqrt(squares[: queries.num_points])
    if queries.order is None:
        return in_tree_order
    distances = np.empty_like(in_tree_order)
    distances[queries.order] = in_tree_order
    return distances


def _build(points_m: np.ndarray, *, order: np.ndarray | None) -> PointTree:
    num_leaves = -(-len(points_m) // RUN)
    points = np.full((3, num_leaves * RUN), FAR_M)
    points[:, : len(points_m)] = points_m.T
    leaves = _merge(points, points)
    blocks = _merge(leaves[:3], leaves[3:])
    return PointTree(
        points_3n_m=points,
        leaves_6n_m=leaves,
        blocks_6n_m=blocks,
        tops_6n_m=_merge(blocks[:3], blocks[3:]),
        num_points=len(points_m),
        order=order,
    )


def _is_scattered(tree: PointTree, points_m: np.ndarray) -> bool:
    """Return whether the leaves are far wider than pieces of a surface with as many points would be."""
    sample = points_m[:: max(1, len(points_m) // 2000)]
    spread_m = np.abs(sample - np.median(sample, axis=0)).mean(axis=0).sum()
    lower, upper = tree.leaves_6n_m[:3], tree.leaves_6n_m[3:]
    width_m = float(np.mean(np.minimum((upper - lower).sum(axis=0), 1e3)))
    return bool(width_m > 20.0 * spread_m * np.sqrt(RUN / len(points_m)))


@_jit
def _merge(lower_3n_m: np.ndarray, upper_3n_m: np.ndarray) -> np.ndarray:
    """Return the boxes over runs of boxes, or of points, those at `FAR_M` left out."""
    count = lower_3n_m.shape[1]
    merged = np.empty((6, (count + RUN - 1) // RUN))
    for k in range(merged.shape[1]):
        for axis in range(3):
            low, high = FAR_M, -FAR_M
            for i in range(k * RUN, min((k + 1) * RUN, count)):
                if lower_3n_m[axis, i] < 0.5 * FAR_M:
                    low = min(low, lower_3n_m[axis, i])
                    high = max(high, upper_3n_m[axis, i])
            merged[axis, k] = low
            merged[3 + axis, k] = max(low, high)
    return merged


@_jit
def _curve_order(points_3n_m: np.ndarray) -> np.ndarray:
    """Return the order of the points along a Morton curve of 2^20 cells an axis."""
    count = points_3n_m.shape[1]
    codes = np.zeros(count, np.int64)
    for axis in range(3):
        low, high = points_3n_m[axis].min(), points_3n_m[axis].max()
        scale = ((1 << 20) - 1) / max(high - low, 1e-12)
        for i in range(count):
            code = np.int64((points_3n_m[axis, i] - low) * scale)
            code = (code | (code << 32)) & 0x1F00000000FFFF
            code = (code | (code << 16)) & 0x1F0000FF0000FF
            code = (code | (code << 8)) & 0x100F00F00F00F00F
            code = (code | (code << 4)) & 0x10C30C30C30C30C3
            codes[i] |= ((code | (code << 2)) & 0x1249249249249249) << axis
    return np.argsort(codes)


@_inline
def _box_to_box(boxes, k, low_x, low_y, low_z, high_x, high_y, high_z):  # type: ignore[no-untyped-def]
    """Return the squared distance between a box of the tree and another one."""
    x = max(max(boxes[0, k] - high_x, low_x - boxes[3, k]), 0.0)
    y = max(max(boxes[1, k] - high_y, low_y - boxes[4, k]), 0.0)
    z = max(max(boxes[2, k] - high_z, low_z - boxes[5, k]), 0.0)
    return x * x + y * y + z * z


@_inline
def _nearest_centre(boxes, first, last, x, y, z):  # type: ignore[no-untyped-def]
    """Return which box of a span promises a near point: by its distance, then by that of its centre."""
    nearest, least = first, 1e300
    for k in range(first, last):
        across_x, across_y = 0.5 * (boxes[0, k] + boxes[3, k]) - x, 0.5 * (boxes[1, k] + boxes[4, k]) - y
        across_z = 0.5 * (boxes[2, k] + boxes[5, k]) - z
        centre = across_x * across_x + across_y * across_y + across_z * across_z
        distance = _box_to_box(boxes, k, x, y, z, x, y, z) + 1e-3 * centre
        if distance < least:
            nearest, least = k, distance
    return nearest


@_inline
def _largest(values, count):  # type: ignore[no-untyped-def]
    """Return the largest of the first values, a multiple of four."""
    a = b = c = d = 0.0
    for i in range(0, count, 4):
        a, b, c, d = max(a, values[i]), max(b, values[i + 1]), max(c, values[i + 2]), max(d, values[i + 3])
    return max(max(a, b), max(c, d))


@_jit
def _is_useful(x, y, z, squares, lanes, boxes, k):  # type: ignore[no-untyped-def]
    """Return whether any query of a group is nearer to a box than to the nearest point that it has found."""
    low_x, low_y, low_z = boxes[0, k], boxes[1, k], boxes[2, k]
    high_x, high_y, high_z = boxes[3, k], boxes[4, k], boxes[5, k]
    count = 0
    for i in range(lanes):
        across_x = max(max(low_x - x[i], x[i] - high_x), 0.0)
        across_y = max(max(low_y - y[i], y[i] - high_y), 0.0)
        across_z = max(max(low_z - z[i], z[i] - high_z), 0.0)
        count += int(across_x * across_x + across_y * across_y + across_z * across_z < squares[i])
    return count > 0


@_jit
def _scan(x, y, z, squares, lanes, points, leaf):  # type: ignore[no-untyped-def]
    """Lower the squared distances of a group of queries to those to a leaf's points; the queries fill the lanes."""
    for j in range(leaf * RUN, leaf * RUN + RUN, 4):
        x0, y0, z0 = points[0, j], points[1, j], points[2, j]
        x1, y1, z1 = points[0, j + 1], points[1, j + 1], points[2, j + 1]
        x2, y2, z2 = points[0, j + 2], points[1, j + 2], points[2, j + 2]
        x3, y3, z3 = points[0, j + 3], points[1, j + 3], points[2, j + 3]
        for i in range(lanes):
            a = (x[i] - x0) ** 2 + (y[i] - y0) ** 2 + (z[i] - z0) ** 2
            b = (x[i] - x1) ** 2 + (y[i] - y1) ** 2 + (z[i] - z1) ** 2
            c = (x[i] - x2) ** 2 + (y[i] - y2) ** 2 + (z[i] - z2) ** 2
            d = (x[i] - x3) ** 2 + (y[i] - y3) ** 2 + (z[i] - z3) ** 2
            squares[i] = min(squares[i], min(min(a, b), min(c, d)))


@_jit
def _search(queries, groups, span, lanes, points, leaves, blocks, tops, result):  # type: ignore[no-untyped-def]
    """Write the squared distance of each query to its nearest point, for a span of the queries' leaves.

    `lanes` is `RUN`, given as an argument: a loop of a known length would be unrolled and lose its vector form.
    """
    num_leaves, num_blocks, num_tops = leaves.shape[1], blocks.shape[1], tops.shape[1]
    candidates, bounds = np.empty(num_leaves, np.int64), np.empty(num_leaves)
    for group in range(span[0], span[1]):
        low_x, low_y, low_z = groups[0, group], groups[1, group], groups[2, group]
        high_x, high_y, high_z = groups[3, group], groups[4, group], groups[5, group]
        begin, end = group * RUN, group * RUN + lanes
        x, y, z, squares = queries[0, begin:end], queries[1, begin:end], queries[2, begin:end], result[begin:end]
        for i in range(lanes):
            squares[i] = 1e300 if x[i] < 0.5 * FAR_M else 0.0

        # A leaf near the middle gives every query of the group a bound, and the group the largest of them.
        middle_x, middle_y, middle_z = 0.5 * (low_x + high_x), 0.5 * (low_y + high_y), 0.5 * (low_z + high_z)
        top = _nearest_centre(tops, 0, num_tops, middle_x, middle_y, middle_z)
        block = _nearest_centre(blocks, top * RUN, min((top + 1) * RUN, num_blocks), middle_x, middle_y, middle_z)
        first = _nearest_centre(leaves, block * RUN, min((block + 1) * RUN, num_leaves), middle_x, middle_y, middle_z)
        _scan(x, y, z, squares, lanes, points, first)
        widest = _largest(squares, lanes)

        # Leaves within that bound of the group are candidates; those that touch it are searched at once.
        count = 0
        for top in range(num_tops):
            if _box_to_box(tops, top, low_x, low_y, low_z, high_x, high_y, high_z) >= widest:
                continue
            for block in range(top * RUN, min((top + 1) * RUN, num_blocks)):
                if _box_to_box(blocks, block, low_x, low_y, low_z, high_x, high_y, high_z) >= widest:
                    continue
                for leaf in range(block * RUN, min((block + 1) * RUN, num_leaves)):
                    bound = _box_to_box(leaves, leaf, low_x, low_y, low_z, high_x, high_y, high_z)
                    if bound < widest and leaf != first:
                        if bound < NEAR_FRAC * widest:
                            _scan(x, y, z, squares, lanes, points, leaf)
                            widest = _largest(squares, lanes)
                        else:
                            candidates[count], bounds[count] = leaf, bound
                            count += 1
        for c in range(count):
            if bounds[c] < widest and _is_useful(x, y, z, squares, lanes, leaves, candidates[c]):
                _scan(x, y, z, squares, lanes, points, candidates[c])
                widest = _largest(squares, lanes)
