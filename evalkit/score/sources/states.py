"""Robot states of a clip from a file.

In: an `.npz` with `proprio`, or an `.npy`. Out: F,16 states; or why they cannot be read.
Read next: `evalkit/contracts/types.py`, on the 16 numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from evalkit.contracts.types import PROPRIO_DIM

UNREADABLE = np.broadcast_to(np.float32(np.nan), (2**31, PROPRIO_DIM))
"""NaN for any number of frames, in the memory of one number."""


class States(NamedTuple):
    """States of a clip.

    Attributes:
        values: F,16 float32; None if there is no file, NaN for every frame if it cannot be read.
        problem: Why it cannot be read; empty if it can.
    """

    values: np.ndarray | None
    problem: str = ""


def read_states(path: Path | None) -> States:
    """Return the states in a file."""
    if path is None:
        return States(None)
    try:
        loaded = np.load(path, allow_pickle=False)
        states = np.asarray(loaded if path.suffix == ".npy" else loaded["proprio"], np.float32)
    except Exception as error:  # a broken archive raises whatever its decoder raises
        return States(UNREADABLE, f"{path}: {type(error).__name__}: {error}; expected 'proprio', F,{PROPRIO_DIM}")
    if states.ndim != 2 or states.shape[1] != PROPRIO_DIM:
        return States(UNREADABLE, f"{path} must hold 'proprio', F,{PROPRIO_DIM}, got {states.shape}")
    return States(states)
