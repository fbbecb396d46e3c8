"""robomimic's HDF5 files: demonstrations with their model, states, actions and observations.

In: a file. Out: its demonstrations, one at a time; what is missing, by name.
Read next: `render.py`, which plays one back.

    data                     attribute env_args (JSON with env_name), or env
    data/demo_N              attributes model_file (MJCF) and, from RoboCasa, ep_meta (JSON with lang)
    data/demo_N/states       T rows: time, positions, velocities
    data/demo_N/actions      T rows: arm 6, gripper (1 closes), and from RoboCasa base, torso and mode
    data/demo_N/obs/robot0_eef_pos   T rows, metres in the world; files without it can be replayed, not checked
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.contracts.errors import BadConfig

EE_POSITION = "obs/robot0_eef_pos"
ARM_NUMBERS = 7
WIDTHS = (7, 12)
"""Numbers of an action: a Panda's, and PandaOmron's with base and torso behind."""


class BrokenDemo(ValueError):
    """A demonstration that cannot be replayed; the sentence says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Demo:
    """One demonstration.

    Attributes:
        name: `demo_12`.
        model_file: Its MJCF.
        ep_meta: What RoboCasa noted of it; empty elsewhere.
        states: T,X.
        actions: T,7 in robosuite's own sign: the gripper closes with 1.
        ee_world_m: T,3, recorded positions of the end effector; None where the file has none.
    """

    name: str
    model_file: str
    ep_meta: dict[str, Any]
    states: np.ndarray
    actions: np.ndarray
    ee_world_m: np.ndarray | None

    @property
    def number(self) -> int:
        """Return the number in its name."""
        return number_of(self.name)


def number_of(name: str) -> int:
    """Return the number in a demonstration's name.

    Example:
        >>> number_of("demo_12")
        12
    """
    return int(name.rpartition("_")[2])


def list_demos(path: Path) -> tuple[str | None, list[str]]:
    """Return which task a file is of, where it says so, and the names of its demonstrations in order of their numbers.

    Raises:
        BadConfig: If it is no such file.
    """
    import h5py

    if not path.exists():
        raise BadConfig(f"{path} does not exist; name a robomimic file.")
    try:
        with h5py.File(path, "r") as file:
            data = file["data"]
            names = sorted((name for name in data if re.fullmatch(r"demo_\d+", name)), key=number_of)
            task = data.attrs.get("env")
            if "env_args" in data.attrs:
                task = json.loads(data.attrs["env_args"])["env_name"]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise BadConfig(f"{path} is no robomimic file with demonstrations under 'data': {error}.") from error
    if not names:
        raise BadConfig(f"{path} holds no demonstration 'data/demo_N'.")
    return None if task is None else str(task), names


def read_demo(path: Path, name: str) -> Demo:
    """Return one demonstration.

    Raises:
        BrokenDemo: If a part of it is missing, cut off, or of another length.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            group = file["data"][name]
            demo = Demo(
                name=name,
                model_file=str(group.attrs["model_file"]),
                ep_meta=json.loads(group.attrs.get("ep_meta", "{}")),
                states=np.asarray(group["states"], np.float64),
                actions=np.asarray(group["actions"], np.float64),
                ee_world_m=np.asarray(group[EE_POSITION], np.float64) if EE_POSITION in group else None,
            )
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise BrokenDemo(f"it cannot be read: {error}") from error
    lengths = {"states": len(demo.states), "actions": len(demo.actions)}
    lengths |= {} if demo.ee_world_m is None else {EE_POSITION: len(demo.ee_world_m)}
    if len(set(lengths.values())) != 1 or not len(demo.states):
        raise BrokenDemo(f"its parts must be equally long, they are {lengths}")
    if demo.actions.ndim != 2 or demo.actions.shape[1] not in WIDTHS:
        raise BrokenDemo(f"an action must have 7 or 12 numbers, of one arm, they have the shape {demo.actions.shape}")
    return demo
