"""Figures `nearest_scipy` and `nearest_pykdtree`: our nearest-neighbour search against two k-d trees.

In: the fused clouds of a synthetic scene, 3 views of 320x256, ground truth and prediction. Out: a figure per k-d tree,
after checking that the distances are equal; pykdtree is compared only where it is installed. One thread each.
Read next: `evalkit/score/metrics/nearest.py`; docs/decisions/0009-nearest-neighbours.md, which quotes the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from scipy.spatial import cKDTree

from evalkit.score.metrics import cloud
from tests.bench.figure import Figure, compare
from tests.doubles.scene import scene_chunk

SIZE = (256, 320)
ROUNDS = 5


def clouds() -> tuple[np.ndarray, np.ndarray]:
    """Return the fused clouds of one frame: ground truth and prediction, about 245,000 points each."""
    chunk = scene_chunk(image_hw_px=SIZE)
    assert chunk.predicted is not None
    assert chunk.predicted.depth is not None
    poses = chunk.true.T_base_cam_fv44[0]
    depths = chunk.true.depth_fvhw_m[0], chunk.predicted.depth[0]
    true, pred = (cloud.fuse(depth, chunk.intrinsics_v33_px, poses) for depth in depths)
    return true, pred


def by_scipy(tree: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the distances that scipy finds."""
    return np.asarray(cKDTree(tree).query(queries)[0])


def by_pykdtree(tree: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the distances that pykdtree finds; OMP_NUM_THREADS sets its threads."""
    from pykdtree.kdtree import KDTree

    return np.asarray(KDTree(tree).query(queries)[0])


def _figure(name: str, search: Callable[[np.ndarray, np.ndarray], np.ndarray], *, goal: str) -> Figure:
    true, pred = clouds()
    ours = cloud.distances(true, pred)
    np.testing.assert_allclose(ours.pred_to_true_m, search(true, pred), atol=1e-12)
    np.testing.assert_allclose(ours.true_to_pred_m, search(pred, true), atol=1e-12)
    return compare(
        f"nearest_{name}",
        ("evalkit", lambda: cloud.distances(true, pred)),
        (name, lambda: (search(true, pred), search(pred, true))),
        goal=goal,
        rounds=ROUNDS,
    )


FIGURES = {"nearest_scipy": lambda: _figure("scipy", by_scipy, goal="<= 0.3")}
if find_spec("pykdtree"):
    FIGURES["nearest_pykdtree"] = lambda: _figure("pykdtree", by_pykdtree, goal="<= 0.7")
