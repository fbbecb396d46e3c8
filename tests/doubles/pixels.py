"""A recording with cameras of known pose, and the small model that is trained on it.

In: a folder. Out: a data set from which the nano model's pixel decoder can learn.
Read next: `tests/unit/test_xwam_pixel_decoder.py`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.dataset.writer import write_episode, write_metadata
from tests.doubles.recordings import RECORDING, steps_of
from tests.doubles.training import TINY

K = np.array([[40.0, 0, 15.5], [0, 40.0, 15.5], [0, 0, 1]])


SMALL = replace(TINY, image_hw_px=(32, 48), network=replace(TINY.network, patch_hw=(2, 3)))


def pose(*position: float) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = position
    return T


def recorded(folder: Path, count: int = 2, **changes: np.ndarray | None) -> Path:
    matrices: dict[str, Any] = {
        "intrinsics": np.broadcast_to(K, (len(steps_of().rgb), 2, 3, 3)),
        "T_base_cam": np.broadcast_to(pose(0.4, 0, 1.2), (len(steps_of().rgb), 2, 4, 4)),
    }
    for index in range(count):
        steps = replace(steps_of(index), **(matrices | changes))
        write_episode(folder, index, steps, RECORDING, instructions=["lift the cube"])
    write_metadata(folder)
    return folder
