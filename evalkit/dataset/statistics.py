"""Computes the exact quantiles that normalise a data set, in one fiftieth of its memory.

In: the tracks of a data set, streamed twice. Out: a dictionary in the layout of the released statistics.
Read next: `xwam/robots/actions.py`, which turns them into bounds.

Letters: N values, X components of a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.contracts.fingerprint import FileHashes, sha256_of_values
from evalkit.contracts.types import ARM_ACTION, ARM_PROPRIO, ROTVEC_RAD
from evalkit.dataset.layout import Track, read_metadata

LOW_FRAC, HIGH_FRAC = 0.01, 0.99

GRIPPER_MOVES = 0.01
"""Smaller changes of the gripper, in units of the normalised state (-1 to 1), do not count as movement."""


class Tails:
    """Keeps the lowest and the highest values of a stream, as many as two exact quantiles need.

    Args:
        most: Largest number of values in the stream.
        width: X, components of a value; each has its own quantiles.

    Example:
        >>> tails = Tails(most=101, width=1)
        >>> tails.add(np.arange(101.0)[:, None])
        >>> tails.quantiles()
        (array([1.]), array([99.]))
    """

    def __init__(self, *, most: int, width: int) -> None:
        self.most, self.width, self.count = most, width, 0
        self._kept = int(np.ceil(LOW_FRAC * most)) + 2
        self._low, self._high = np.empty((0, width)), np.empty((0, width))

    def add(self, values_NX: np.ndarray) -> None:
        """Add values to the stream."""
        self.count += len(values_NX)
        if self.count > self.most:
            raise ValueError(f"The stream may have at most {self.most} values, got {self.count}.")
        self._low = np.concatenate([self._low, values_NX])
        self._high = np.concatenate([self._high, values_NX])
        if len(self._low) > 2 * self._kept:
            self._low = np.partition(self._low, self._kept, axis=0)[: self._kept]
        if len(self._high) > 2 * self._kept:
            self._high = np.partition(self._high, len(self._high) - self._kept, axis=0)[-self._kept :]

    def quantiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Return both quantiles of every component, with linear interpolation between neighbours.

        Raises:
            ValueError: If the stream is empty.
        """
        if not self.count:
            raise ValueError("There are no values to take quantiles of.")
        low, high = np.sort(self._low, axis=0), np.sort(self._high, axis=0)
        return _between(low, LOW_FRAC * (self.count - 1)), _between(high[::-1], (1 - HIGH_FRAC) * (self.count - 1))


def _between(ordered_NX: np.ndarray, position: float) -> np.ndarray:
    before = int(np.floor(position))
    after = min(before + 1, len(ordered_NX) - 1)
    return ordered_NX[before] + (position - before) * (ordered_NX[after] - ordered_NX[before])


def statistics(stream: Callable[[], Iterable[Track]]) -> dict[str, dict[str, list[float]]]:
    """Return `q01` and `q99` of states and actions, as the release computes them.

    Each position has its own bounds. Bounds of actions are symmetric, so that zero stays zero. Grippers share one pair.
    Changes of the gripper that are not a movement are left out.

    Args:
        stream: Returns the tracks of a data set; it is called twice.

    Raises:
        ValueError: If there is no track.
    """
    counts = [(track.num_frames, track.arms) for track in stream()]
    if not counts:
        raise ValueError("Statistics need at least one usable episode; there is none.")
    tails: dict[str, Tails] = {}
    for arm in ARM_PROPRIO:
        most = sum(count for count, arms in counts if arm in arms)
        if most:
            names = (f"proprio_{arm}_ee_xyz", f"action_{arm}_ee_xyz", f"action_{arm}_ee_axisangle")
            tails |= {name: Tails(most=most, width=3) for name in names}
    most = sum(count * len(arms) for count, arms in counts)
    tails["gripper_pos"] = Tails(most=most, width=1)
    for track in stream():
        for arm in track.arms:
            proprio, action = track.proprio[:, ARM_PROPRIO[arm]], track.action[:, ARM_ACTION[arm]]
            tails[f"proprio_{arm}_ee_xyz"].add(proprio[:, :3])
            tails[f"action_{arm}_ee_xyz"].add(action[:, :3])
            tails[f"action_{arm}_ee_axisangle"].add(action[:, ROTVEC_RAD])
            tails["gripper_pos"].add(proprio[:, 7:])
    quantiles = {name: tail.quantiles() for name, tail in tails.items()}
    quantiles["gripper_action"] = _gripper_changes(stream, most, *quantiles["gripper_pos"])
    return _as_released(quantiles)


def _gripper_changes(
    stream: Callable[[], Iterable[Track]], most: int, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the quantiles of the changes that are movements; of all changes if none is."""
    moving, every = Tails(most=most, width=1), Tails(most=most, width=1)
    least = GRIPPER_MOVES * (high - low) / 2
    for track in stream():
        for arm in track.arms:
            change = np.diff(track.proprio[:, ARM_PROPRIO[arm]][:, 7:].astype(np.float64), axis=0)
            moving.add(change[np.abs(change[:, 0]) >= least])
            every.add(change)
    if moving.count:
        return moving.quantiles()
    return every.quantiles() if every.count else (np.zeros(1), np.zeros(1))


def _as_released(quantiles: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, dict[str, list[float]]]:
    result: dict[str, dict[str, list[float]]] = {"q01": {}, "q99": {}}
    for name, (low, high) in quantiles.items():
        if "action" in name:
            high = np.maximum(np.abs(low), np.abs(high))
            low = -high
        result["q01"][name], result["q99"][name] = low.tolist(), high.tolist()
    return result


def about(root: Path, num_episodes: int, num_frames: int, num_broken: int) -> dict[str, Any]:
    """Return what a statistics file says about its data, in addition to the quantiles: counts and `data_sha256`."""
    counts = {"episodes": num_episodes, "frames": num_frames, "left_out": num_broken}
    return {**counts, "data_sha256": data_sha256(root)}


def data_sha256(root: Path) -> str:
    """Return the hash of the JSON files of all episodes, broken ones included; videos are not part of it."""
    paths = [root / "data" / f"{key}.json" for key in read_metadata(root)]
    hashes = FileHashes()
    return sha256_of_values([hashes.sha256(path) if path.is_file() else None for path in paths])
