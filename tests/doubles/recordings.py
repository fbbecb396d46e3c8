"""Small data sets of noise: two cameras, forty steps, three episodes.

In: a folder and a seed. Out: episodes that the real writer wrote.
Read next: `tests/unit/conftest.py`, which makes fixtures of them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evalkit.dataset.depth_video import DepthRange
from evalkit.dataset.writer import Recording, Steps, View, write_episode, write_metadata
from xwam.config import Bounds

STEPS, VIEWS, ROWS, COLS = 40, 2, 32, 48


RECORDING = Recording(
    views=(View(name="a", kind="static"), View(name="b", kind="dynamic")),
    arms=("left",),
    layout="osc_delta_base",
    control_hz=20.0,
    depth_range=DepthRange(),
)


NO_BOUNDS = Bounds(proprio_low=(-1.0,) * 16, proprio_high=(1.0,) * 16, action_low=(-1.0,) * 14, action_high=(1.0,) * 14)


def steps_of(seed: int = 0, count: int = STEPS, arms: Sequence[str] = ("left",)) -> Steps:
    rng = np.random.default_rng(seed)
    proprio, action = np.zeros((count, 16), np.float32), np.zeros((count, 14), np.float32)
    for i in range(len(arms)):
        quat = rng.normal(size=(count, 4))
        quat *= np.sign(quat[:, :1]) / np.linalg.norm(quat, axis=1, keepdims=True)
        proprio[:, 8 * i : 8 * i + 8] = np.hstack([rng.normal(size=(count, 3)), quat, rng.random((count, 1))])
        action[:, 7 * i : 7 * i + 7] = rng.uniform(-1, 1, (count, 7))
    return Steps(
        rgb=rng.integers(0, 256, (count, VIEWS, ROWS, COLS, 3), dtype=np.uint8),
        depth=rng.uniform(0.001, 6, (count, VIEWS, ROWS, COLS)).astype(np.float32) * (rng.random((ROWS, COLS)) < 0.9),
        proprio=proprio,
        action=action,
    )


def write_data(folder: Path) -> Path:
    """Return the folder, with a data set of three episodes in it."""
    for index in range(3):
        write_episode(folder, index, steps_of(index), RECORDING, instructions=["lift the cube", "pick it up"])
    write_metadata(folder)
    return folder


def key_of(index: int) -> str:
    return f"chunk-0000/episode_{index:07d}"


def cut_off(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
