"""Hashes that show whether two episodes met the same scene.

In: arrays by name. Out: a SHA-256.
Read next: `server.py`, which hashes the first state and the first frame of an episode in the env's own process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of arrays: of the name, type, shape and bytes of each, in the order of the names.

    Args:
        arrays: Arrays of numbers or text by name; every bit counts.

    Raises:
        TypeError: If a value is no array of numbers or text.

    Example:
        >>> hash_arrays({"a": np.zeros(2), "b": np.ones(1)}) == hash_arrays({"b": np.ones(1), "a": np.zeros(2)})
        True
        >>> hash_arrays({"a": np.zeros(2)}) == hash_arrays({"a": np.zeros((2, 1))})
        False
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = arrays[name]
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biufSU":
            got = getattr(value, "dtype", type(value).__name__)
            raise TypeError(f"'{name}' must be an array of numbers or text, got {got}")
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()
