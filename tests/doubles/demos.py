"""Small files of demonstrations, as robosuite's recorder and robomimic write them, without a simulator.

In: a path, and what differs. Out: an HDF5 file whose states follow each other at 20 Hz.
Read next: `tests/unit/test_replay_files.py`; `tests/sim/test_replay.py` for files of the real simulator.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

OSC_POSE = {
    "type": "OSC_POSE",
    "input_max": 1,
    "input_min": -1,
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
    "kp": 150,
    "damping_ratio": 1,
    "impedance_mode": "fixed",
    "kp_limits": [0, 300],
    "damping_ratio_limits": [0, 10],
    "position_limits": None,
    "orientation_limits": None,
    "uncouple_pos_ori": True,
    "input_type": "delta",
    "input_ref_frame": "base",
    "interpolation": None,
    "ramp_ratio": 0.2,
    "gripper": {"type": "GRIP"},
}
"""robosuite 1.5.2's default for a Panda's arm."""


def arguments(**arm: Any) -> dict[str, Any]:
    """Return arguments of an env, as robosuite's recorder states them; the arm's controller with some changes."""
    controller = {"type": "BASIC", "body_parts": {"right": copy.deepcopy(OSC_POSE) | arm}}
    return {"env_name": "Lift", "robots": ["Panda"], "controller_configs": controller}


def of_robosuite(env_info: Any = None, version: Any = "1.5.2", task: Any = "Lift") -> dict[str, Any]:
    """Return attributes of a file of robosuite's recorder."""
    info = arguments() if env_info is None else env_info
    return {"env": task, "env_info": json.dumps(info), "repository_version": version, "date": "1-1-2026"}


def of_robomimic(version: str = "1.5.1", env_kwargs: Any = None, **changes: Any) -> dict[str, Any]:
    """Return attributes of a file of robomimic."""
    kwargs = arguments() | {"control_freq": 20} if env_kwargs is None else env_kwargs
    env_args = {"env_name": "Lift", "env_version": version, "type": 1, "env_kwargs": kwargs} | changes
    return {"env_args": json.dumps(env_args, indent=4), "total": 5}


def write_demos(
    path: Path, attributes: dict[str, Any], *, steps: int = 5, change: Callable[[Any], None] | None = None
) -> Path:
    """Write a file with `demo_1` and `demo_2`; `change` edits its group `data` at the end."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for name, value in attributes.items():
            data.attrs[name] = value
        for number in (1, 2):
            group = data.create_group(f"demo_{number}")
            group.attrs["model_file"] = "<mujoco/>"
            group["states"] = np.hstack([0.05 * np.arange(steps)[:, None], rng.normal(size=(steps, 31))])
            group["actions"] = rng.uniform(-1, 1, (steps, 7))
            group["obs/robot0_eef_pos"] = rng.normal(size=(steps, 3))
        if change is not None:
            change(data)
    return path
