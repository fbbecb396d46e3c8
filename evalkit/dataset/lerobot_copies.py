"""The video files of an imported data set: copies named by a hash of their content, and written ones.

In: videos of the source, or frames. Out: files in the new data set; those that no episode uses are removed.
Read next: `lerobot_import.py`, which writes the episodes that name them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from evalkit.contracts.files import copy_whole
from evalkit.contracts.fingerprint import FileHashes
from evalkit.dataset.layout import check_against, read_track
from evalkit.dataset.videos import write_video

HASH_LETTERS = 16
"""Letters of the hash in the name of a copied video."""


class VideoFiles:
    """The video files of a new data set.

    Args:
        out: The new data set.
        hashes: Hashes of the source's files.
    """

    def __init__(self, out: Path, hashes: FileHashes) -> None:
        self._out, self._hashes, self._replaced = out, hashes, set[str]()

    def write(self, name: str, frames: np.ndarray, fps: float) -> str:
        """Write frames without loss; return the path of the file."""
        write_video(self._out / name, frames, fps=fps)
        return name

    def copy(self, source: Path, folder: str) -> str:
        """Copy a video unless it is there; return its path, which holds a hash of its content."""
        digest = self._hashes.sha256(source)
        name = f"{folder}/{source.parent.name}/{source.stem}-{digest[:HASH_LETTERS]}{source.suffix}"
        target = self._out / name
        if not target.is_file() or self._hashes.sha256(target) != digest:
            copy_whole(source, target)
        return name

    def are_whole(self, episode: Path) -> bool:
        """Return whether the videos that an episode names are there and whole: copies have the hash in their name."""
        try:
            key = f"{episode.parent.name}/{episode.stem}"
            check_against(read_track(self._out, key), json.loads(episode.read_text())["num_frames"], videos=True)
            return all(self._is_same(self._out / name) for name in _videos_of(episode))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _is_same(self, path: Path) -> bool:
        """Return whether a copy has the hash in its name; a written video has none."""
        stated = re.fullmatch(rf".+-([0-9a-f]{{{HASH_LETTERS}}})", path.stem)
        return stated is None or self._hashes.sha256(path).startswith(stated[1])

    def remove_episodes(self, paths: Iterable[Path]) -> None:
        """Remove the JSON files of episodes, which ends these episodes."""
        for path in paths:
            self._replaced |= _videos_of(path)
            path.unlink(missing_ok=True)

    def remove_unused(self) -> None:
        """Remove the videos of removed episodes that no other episode uses."""
        if self._replaced:
            used = {name for path in (self._out / "data").rglob("*.json") for name in _videos_of(path)}
            for name in self._replaced - used:
                (self._out / name).unlink(missing_ok=True)


def _videos_of(path: Path) -> set[str]:
    """Return the video files that an episode names; none if its JSON is missing or broken."""
    try:
        views = json.loads(path.read_text())["observations"].values()
        return {view[name] for view in views for name in ("rgb_path", "depth_path", "depth_mm_path") if view.get(name)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
