"""Hashes of the assets that a task uses, for records: two labs see whether theirs are the same.

In: the root of a checkout, a task, a setting. Out: one short hash for the robot and for each object.
Read next: `assets.py`, which judges whether assets are complete; `env.py`, which states the hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from .assets import CUROBO_FILES, EMBODIMENT, OBJECTS, TEXTURES, named_objects

DIGITS = 16
"""Digits of a hash that are kept."""

MADE_HERE = (".convex.stl", *CUROBO_FILES)
"""Ends of names of files that SAPIEN, or RoboTwin's installer, writes next to the assets; they differ by machine."""


def asset_hashes(root: Path, task: str, *, randomized: bool) -> dict[str, str]:
    """Return the hash of the robot's files and of each object that a task's code names, by `assets of NAME`.

    A hash covers names and bytes of all files, as they are now. Scenes of randomized settings also draw textures and
    clutter from thousands of files: there the hash covers names and sizes.

    Args:
        root: Root of the checkout.
        task: Name of the task.
        randomized: Whether textures and clutter are drawn.
    """
    folders = {"the robot": EMBODIMENT} | {name: f"{OBJECTS}/{name}" for name in named_objects(root, task)}
    hashes = {f"assets of {name}": _hash(root / folder, with_bytes=True) for name, folder in folders.items()}
    if randomized:
        listed = {"textures": TEXTURES, "clutter": OBJECTS}
        hashes |= {f"assets of {name}": _hash(root / folder, with_bytes=False) for name, folder in listed.items()}
    return hashes


def _hash(folder: Path, *, with_bytes: bool) -> str:
    """Return the hash of a folder's files; `none` if it has none."""
    files = sorted(_files(folder))
    total = hashlib.sha256()
    for path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest() if with_bytes else str(path.stat().st_size)
        total.update(f"{content}  {path.relative_to(folder).as_posix()}\n".encode())
    return total.hexdigest()[:DIGITS] if files else "none"


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders, without hidden ones and those that each machine makes."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)
        if not hidden and not path.name.endswith(MADE_HERE) and path.is_file():
            yield path
