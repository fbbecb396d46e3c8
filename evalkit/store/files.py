"""Files that appear whole or not at all.

In: bytes and a path. Out: a file that is complete and on the disk, or the file that was there before.
Read next: `records.py`, the one file that grows instead.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from evalkit.contracts import files
from evalkit.contracts.errors import cannot_write

_PART = re.compile(r"\..+\.\d+\.part")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file by way of a temporary neighbour, synced before it takes the name.

    Raises:
        RunFolderError: If the disk is full or the folder cannot be written; what was there stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        files.write_whole(path, data, temporary=temporary, durable=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def find_unfinished(folder: Path) -> list[Path]:
    """Return temporary files that `write_whole` left in a run folder when it was killed."""
    folders = [folder, *folder.glob("clips/*"), *folder.glob("videos/*"), *folder.glob("steps/*"), folder / "report"]
    return [path for each in folders for path in each.glob(".*.part") if _PART.fullmatch(path.name)]
