"""Exact nearest-neighbour distances between large clouds whose points come in a sensible order.

In: two clouds, N,3. Out: the distance from every point of one to its nearest point of the other, float64.
Read next: `cloud.py`, which lifts depth images tile by tile, the order that makes this fast.

A tree of boxes stands on runs of consecutive points: 16 points a leaf, 16 leaves a block, 16 blocks a top box.
Building it sorts nothing, because neighbours in the image are neighbours in space. The 16 queries of a leaf go down
the tree together and share a list of leaves that could hold a nearest point; each query then looks only into leaves
whose box is nearer than what it has found. Whatever the order, the result is exact; a cloud whose order is poor
(noise instead of surfaces) is sorted along a space-filling curve first.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np

RUN = 16
"""Points a leaf, leaves a block, blocks a top box."""

FAR_M = 1e18
"""Coordinate of the points that fill up the last leaf; far from everything, its square still finite."""

_FAST = {"nnan", "ninf", "nsz", "arcp", "contract", "reassoc"}
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
        order: Where each point stood in the cloud that was given; None where the order was kept.
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
        _search(queries.points_3n_m, queries.leaves_6n_m, span, tree.points_3n_m, *boxes, squares)

    if threads <= 1:
        search(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(search, range(threads)))
    found = np.sqrt(squares[: queries.num_points])
    if queries.order is None:
        return found
    distances = np.empty_like(found)
    distances[queries.order] = found
    return distances


def _build(points_m: np.ndarray, *, order: np.ndarray | None) -> PointTree:
    num_leaves = -(-len(points_m) // RUN)
    points = np.full((3, num_leaves * RUN), FAR_M)
    points[:, : len(points_m)] = points_m.T
    leaves = _merge(np.concatenate([points, points]))
    blocks = _merge(leaves)
    return PointTree(
        points_3n_m=points,
        leaves_6n_m=leaves,
        blocks_6n_m=blocks,
        tops_6n_m=_merge(blocks),
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
def _merge(boxes_6n_m: np.ndarray) -> np.ndarray:
    """Return the boxes over runs of boxes, those at `FAR_M` left out."""
    count = boxes_6n_m.shape[1]
    merged = np.empty((6, (count + RUN - 1) // RUN))
    for k in range(merged.shape[1]):
        for axis in range(3):
            low, high = FAR_M, -FAR_M
            for i in range(k * RUN, min((k + 1) * RUN, count)):
                if boxes_6n_m[axis, i] < 0.5 * FAR_M:
                    low = min(low, boxes_6n_m[axis, i])
                    high = max(high, boxes_6n_m[3 + axis, i])
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
def _scan(points, leaf, x, y, z, least):  # type: ignore[no-untyped-def]
    """Return the least of a squared distance and those to a leaf's points."""
    for i in range(leaf * RUN, leaf * RUN + RUN):
        across_x, across_y, across_z = points[0, i] - x, points[1, i] - y, points[2, i] - z
        least = min(least, across_x * across_x + across_y * across_y + across_z * across_z)
    return least


@_jit
def _search(queries, groups, span, points, leaves, blocks, tops, squares):  # type: ignore[no-untyped-def]
    """Write the squared distance of each query to its nearest point, for a span of the queries' leaves."""
    num_leaves, num_blocks, num_tops = leaves.shape[1], blocks.shape[1], tops.shape[1]
    candidates = np.empty(num_leaves, np.int64)
    boxes = np.empty((6, num_leaves))
    bounds = np.empty(num_leaves)
    last = 0  # the leaf that held the nearest point of the query before
    for group in range(span[0], span[1]):
        low_x, low_y, low_z = groups[0, group], groups[1, group], groups[2, group]
        high_x, high_y, high_z = groups[3, group], groups[4, group], groups[5, group]
        x, y, z = 0.5 * (low_x + high_x), 0.5 * (low_y + high_y), 0.5 * (low_z + high_z)

        # A first leaf gives every query of the group a bound, and the group the largest of them.
        top = _nearest_centre(tops, 0, num_tops, x, y, z)
        block = _nearest_centre(blocks, top * RUN, min((top + 1) * RUN, num_blocks), x, y, z)
        first = _nearest_centre(leaves, block * RUN, min((block + 1) * RUN, num_leaves), x, y, z)
        widest = 0.0
        for i in range(group * RUN, (group + 1) * RUN):
            if queries[0, i] < 0.5 * FAR_M:
                least = _scan(points, first, queries[0, i], queries[1, i], queries[2, i], 1e300)
                squares[i] = _scan(points, last, queries[0, i], queries[1, i], queries[2, i], least)
                widest = max(widest, squares[i])

        # Leaves within that bound of the group are candidates; their boxes are laid side by side.
        count = 0
        for top in range(num_tops):
            if _box_to_box(tops, top, low_x, low_y, low_z, high_x, high_y, high_z) >= widest:
                continue
            for block in range(top * RUN, min((top + 1) * RUN, num_blocks)):
                if _box_to_box(blocks, block, low_x, low_y, low_z, high_x, high_y, high_z) >= widest:
                    continue
                for leaf in range(block * RUN, min((block + 1) * RUN, num_leaves)):
                    if _box_to_box(leaves, leaf, low_x, low_y, low_z, high_x, high_y, high_z) < widest:
                        candidates[count] = leaf
                        for side in range(6):
                            boxes[side, count] = leaves[side, leaf]
                        count += 1

        # Each query looks into the candidates that are nearer than what it has, the leaf of its neighbour first.
        for i in range(group * RUN, (group + 1) * RUN):
            if queries[0, i] >= 0.5 * FAR_M:
                continue
            x, y, z = queries[0, i], queries[1, i], queries[2, i]
            least = _scan(points, last, x, y, z, squares[i])
            for c in range(count):
                bounds[c] = _box_to_box(boxes, c, x, y, z, x, y, z)
            for c in range(count):
                if bounds[c] < least:
                    nearer = _scan(points, candidates[c], x, y, z, least)
                    if nearer < least:
                        least, last = nearer, candidates[c]
            squares[i] = least
