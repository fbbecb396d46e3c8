"""Statistics of features in LeRobot's form: minimum, maximum, mean and spread.

In: values of an episode. Out: the statistics of each episode, and of all of them.
Read next: `lerobot_export.py`, which writes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Sums:
    """Running sums of values, N,X.

    Example:
        >>> sums = Sums.of(np.array([[1.0], [3.0]]))
        >>> sums.stats(image=False)["mean"], sums.stats(image=True)["max"]
        ([2.0], [[[3.0]]])
    """

    def __init__(self) -> None:
        self.count, self.low, self.high, self.sum, self.squares = 0, np.inf, -np.inf, 0.0, 0.0

    @classmethod
    def of(cls, values_NX: np.ndarray) -> Sums:
        """Return the sums of values."""
        sums, values = cls(), np.asarray(values_NX, np.float64)
        sums.count, sums.low, sums.high = len(values), values.min(0), values.max(0)
        sums.sum, sums.squares = values.sum(0), np.square(values).sum(0)
        return sums

    def add(self, other: Sums) -> None:
        """Add the values of other sums."""
        self.count += other.count
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.sum, self.squares = self.sum + other.sum, self.squares + other.squares

    def stats(self, *, image: bool) -> dict[str, Any]:
        """Return the statistics in LeRobot's form; for images one value per channel, C,1,1."""
        mean = np.asarray(self.sum) / self.count
        std = np.sqrt(np.maximum(np.asarray(self.squares) / self.count - mean**2, 0))
        values = {"min": self.low, "max": self.high, "mean": mean, "std": std}
        shaped = {name: np.asarray(value).reshape((-1, 1, 1) if image else -1) for name, value in values.items()}
        return {name: value.tolist() for name, value in shaped.items()} | {"count": [self.count]}
