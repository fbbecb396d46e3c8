"""Writes, edits and reads data sets with the real `lerobot` package; runs in an interpreter that has it.

In: a command and folders. Out: data sets, or what LeRobot reads from one, as npz.
Read next: `tests/unit/test_dataset_lerobot_package.py`, which runs it.

Every frame shows its own number in twelve black or white squares of 16 pixels, which survive every codec. A row's state
holds the same number.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets import dataset_tools
from lerobot.datasets.lerobot_dataset import LeRobotDataset

FPS, HW, LENGTHS = 10, (48, 64), (5, 3, 7, 12)
TASKS = ("lift the cube", "open the door")
CAMERAS = ("cam", "in_rows")


def frame_of(number: int) -> np.ndarray:
    """Return the image that shows a number."""
    bits = (number >> np.arange(12)) & 1
    return np.kron(bits.reshape(3, 4)[..., None], np.full((16, 16, 3), 255)).astype(np.uint8)


def depth_of(number: int) -> np.ndarray:
    """Return the depth of a row, H,W,1 uint16 millimetres, with pixels that have none."""
    depth = (500 + 10 * number + np.arange(HW[0] * HW[1]) % 3000).astype(np.uint16)
    depth[:7] = 0
    return depth.reshape(*HW, 1)


def write(root: Path, first: int, *, depth: bool) -> None:
    """Write a data set of four episodes; the number of its first frame is given."""
    axes = ["height", "width", "channels"]
    features: dict[str, Any] = {
        "observation.state": {"dtype": "float32", "shape": (8,), "names": None},
        "action": {"dtype": "float32", "shape": (7,), "names": None},
        "cam": {"dtype": "video", "shape": (*HW, 3), "names": axes},
        "in_rows": {"dtype": "image", "shape": (*HW, 3), "names": axes},
    }
    if depth:
        marked = {"is_depth_map": True, "depth_unit": "mm"}
        features["depth_rows"] = {"dtype": "image", "shape": (*HW, 1), "names": axes, "info": dict(marked)}
        features["depth_video"] = {"dtype": "video", "shape": (*HW, 1), "names": axes, "info": dict(marked)}
    made = LeRobotDataset.create("test/set", fps=FPS, features=features, root=root, use_videos=True)
    number = first
    for episode, length in enumerate(LENGTHS):
        for row in range(length):
            state = np.array([number, 0, 0, 0, 0, 0, 1, 0], np.float32)
            frame: dict[str, Any] = {"observation.state": state, "action": np.full(7, 0.01 * row, np.float32)}
            frame |= {name: frame_of(number) for name in CAMERAS}
            if depth:
                frame |= {"depth_rows": depth_of(number), "depth_video": depth_of(number)}
            frame["task"] = TASKS[0] if episode == 3 and row >= 6 else TASKS[episode % 2]
            made.add_frame(frame)
            number += 1
        made.save_episode()
    made.finalize()


def edit(one: Path, two: Path, out: Path) -> None:
    """Apply LeRobot's own tools: delete, split, merge."""
    first, second = (LeRobotDataset(f"test/{root.name}", root=root) for root in (one, two))
    dataset_tools.delete_episodes(first, [1], output_dir=out / "deleted", repo_id="test/deleted")
    dataset_tools.split_dataset(first, {"a": [0, 3], "b": [1, 2]}, output_dir=out / "split")
    dataset_tools.merge_datasets([first, second], output_repo_id="test/merged", output_dir=out / "merged")


def delete(root: Path, out: Path) -> None:
    """Apply LeRobot's own tool that deletes an episode, the second one."""
    dataset_tools.delete_episodes(LeRobotDataset("test/set", root=root), [1], output_dir=out, repo_id="test/deleted")


def read(root: Path, target: Path) -> None:
    """Write what LeRobot reads: every feature of every row."""
    opened = LeRobotDataset("test/read", root=root)
    rows = [opened[index] for index in range(len(opened))]
    texts = {"task": np.array([row["task"] for row in rows])}
    arrays = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0] if name != "task"}
    np.savez(target, **texts, **{name.replace("/", "|"): value for name, value in arrays.items()})


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    if command.startswith("write"):
        write(Path(paths[0]), int(paths[1]), depth=command == "write-depth")
    elif command == "edit":
        edit(Path(paths[0]), Path(paths[1]), Path(paths[2]))
    elif command == "delete":
        delete(Path(paths[0]), Path(paths[1]))
    else:
        read(Path(paths[0]), Path(paths[1]))
