"""Exact nearest-neighbour distances between large clouds whose points are ordered in space.

In: two clouds, N,3. Out: the distance from every point of one to its nearest point of the other, float64.
Read next: `cloud.py`, which lifts depth images tile by tile, the order that makes this fast.

A tree of boxes stands on runs of consecutive points: 16 points a leaf, 16 leaves a block, 16 blocks a top box.
Building it sorts nothing, because neighbours in the image are neighbours in space. The 16 queries of a leaf go down
the tree together, side by side in the processor's vector registers, and search every leaf that could hold a
nearer point for one of them. Queries that are points of the other cloud, in the same place, have distance 0 at once:
what stands still before a camera that stands still costs nothing. Whatever the order, the result is exact; a cloud
whose order is poor (noise instead of surfaces) is sorted along a space-filling curve first.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np

from evalkit.score.metrics.lanes import LANES, best_of, lowest_bit, promising, scan, within

RUN = LANES
"""Points a leaf, leaves a block, blocks a top box."""

FAR_M = 1e150
"""Coordinate of the points that fill up the last leaf; far from everything, its square still finite."""

_jit = numba.njit(cache=True, nogil=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class PointTree:
    """A cloud and the boxes over its runs; serves as the searched cloud and as the queries.

    Attributes:
        points_3n_m: 3,N' with N filled up to whole blocks by points at `FAR_M`.
        leaves_6n_m: Lower then upper corner of each leaf's box.
        blocks_6n_m: The same of each block, filled up to whole top boxes.
        tops_6n_m: The same of each top box, filled up to a multiple of `RUN`.
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
    num_groups = -(-queries.num_points // RUN)
    squares = np.empty((1, num_groups * RUN))
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
    return distances_in_order(squares[0], queries)


def distances_in_order(squares: np.ndarray, queries: PointTree) -> np.ndarray:
    """Return distances, metres, in the order in which the queries were given, from squares in that of their tree."""
    in_tree_order = np.sqrt(squares[: queries.num_points])
    if queries.order is None:
        return in_tree_order
    distances = np.empty_like(in_tree_order)
    distances[queries.order] = in_tree_order
    return distances


def _build(points_m: np.ndarray, *, order: np.ndarray | None) -> PointTree:
    num_blocks = -(-len(points_m) // RUN**2)
    points = np.empty((3, num_blocks * RUN**2))
    points[:, : len(points_m)] = points_m.T
    points[:, len(points_m) :] = FAR_M
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
    full = slice(-(-len(points_m) // RUN))
    lower, upper = tree.leaves_6n_m[:3, full], tree.leaves_6n_m[3:, full]
    width_m = float(np.mean(np.minimum((upper - lower).sum(axis=0), 1e3)))
    return bool(width_m > 20.0 * spread_m * np.sqrt(RUN / len(points_m)))


@_jit
def _merge(lower_3n_m: np.ndarray, upper_3n_m: np.ndarray) -> np.ndarray:
    """Return the boxes over runs of boxes, or of points, those at `FAR_M` left out, filled up to whole runs."""
    count = lower_3n_m.shape[1]
    num_runs = (count + RUN - 1) // RUN
    merged = np.full((6, (num_runs + RUN - 1) // RUN * RUN), FAR_M)
    for k in range(num_runs):
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


@_jit
def _search(queries, groups, span, points, leaves, blocks, tops, squares):  # type: ignore[no-untyped-def]
    """Write the squared distance of each query to its nearest point, for a span of the queries' leaves."""
    num_leaves = points.shape[1] // RUN
    for group in range(span[0], span[1]):
        query = group * RUN
        for i in range(query, query + RUN):
            squares[0, i] = 1e300 if queries[0, i] < 0.5 * FAR_M else 0.0
        if _are_equal(queries, points, query):
            squares[0, query : query + RUN] = 0.0
            continue
        first, widest = group, np.inf  # the leaf in the same place: most pixels show almost the same point
        if group < num_leaves:
            widest = scan(queries, query, squares, points, group * RUN)
        if widest > _diagonal(groups, group):
            first = _promising_leaf(groups, group, leaves, blocks, tops)
            widest = scan(queries, query, squares, points, first * RUN)
        for some in range(0, tops.shape[1], RUN):
            near_tops = within(tops, some, groups, group, widest)
            while near_tops:
                some_blocks = (some + lowest_bit(near_tops)) * RUN
                near_tops &= near_tops - 1
                near_blocks = within(blocks, some_blocks, groups, group, widest)
                while near_blocks:
                    some_leaves = (some_blocks + lowest_bit(near_blocks)) * RUN
                    near_blocks &= near_blocks - 1
                    near_leaves = within(leaves, some_leaves, groups, group, widest)
                    while near_leaves:
                        leaf = some_leaves + lowest_bit(near_leaves)
                        near_leaves &= near_leaves - 1
                        if leaf != first and leaf != group and promising(queries, query, squares, leaves, leaf):
                            widest = scan(queries, query, squares, points, leaf * RUN)


@_jit
def _diagonal(boxes, box):  # type: ignore[no-untyped-def]
    """Return the squared diagonal of a box."""
    square = 0.0
    for axis in range(3):
        square += (boxes[3 + axis, box] - boxes[axis, box]) ** 2
    return square


@_jit
def _promising_leaf(groups, group, leaves, blocks, tops):  # type: ignore[no-untyped-def]
    """Return a leaf near the middle of a group: it gives every query of the group a bound."""
    top, least = 0, np.inf
    for some in range(0, tops.shape[1], RUN):
        best, measure = best_of(tops, some, groups, group)
        if measure < least:
            top, least = best, measure
    block, _ = best_of(blocks, top * RUN, groups, group)
    leaf, _ = best_of(leaves, block * RUN, groups, group)
    return leaf


@_jit
def _are_equal(queries, points, first):  # type: ignore[no-untyped-def]
    """Return whether a run of queries equals the points in the same place of the cloud."""
    if first + RUN > points.shape[1]:
        return False
    for i in range(first, first + RUN):
        for axis in range(3):
            if queries[axis, i] != points[axis, i]:
                return False
    return True
