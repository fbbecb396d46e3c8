"""A file appears whole or not at all.

In: writes that fail. Out: a verdict.
Read next: `evalkit/contracts/files.py`.
"""

import os
from pathlib import Path

import pytest

from evalkit.contracts.files import copy_whole, whole_file, write_whole


def test_an_error_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep/file"
    write_whole(path, "old")

    def half() -> None:
        with whole_file(path) as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    write_whole(tmp_path / "file", b"old", durable=True)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", b"new", temporary=tmp_path / "other", durable=True)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("file", b"old")]


def test_a_folder_that_is_a_file_is_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match="file"):
        copy_whole(tmp_path / "file", tmp_path / "file/inside")
