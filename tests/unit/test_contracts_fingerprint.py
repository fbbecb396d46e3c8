"""Fingerprints: equal content gives equal hashes, any other content others.

In: files, arrays and JSON values. Out: a verdict on their hashes.
Read next: `evalkit/contracts/fingerprint.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.contracts.fingerprint import ORIGIN, FileHashes, Origin, read_origin, sha256_of_values


def test_a_file_hashes_as_hashlib_says(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 40_000)  # more than one block
    assert FileHashes().sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path, hashes = tmp_path / "file", FileHashes()
    path.write_bytes(b"one")
    before = hashes.sha256(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert hashes.sha256(path) == hashlib.sha256(b"two").hexdigest() != before


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ([{"a": 1}], [{"a": 2}]),
        (["ab", "c"], ["a", "bc"]),
        ([[1, 2], [3]], [[1], [2, 3]]),
        ([np.zeros(4, np.float32)], [np.zeros(2, np.float64)]),
        ([np.zeros((2, 3))], [np.zeros((3, 2))]),
        ([np.arange(4)], [np.arange(4)[::-1]]),
        ([None], [0]),
    ],
)
def test_other_values_have_another_hash(one: list[Any], two: list[Any]) -> None:
    assert sha256_of_values(*one) != sha256_of_values(*two)


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False) | st.text()))
def test_the_order_of_keys_does_not_matter(values: dict[str, Any]) -> None:
    assert sha256_of_values(values) == sha256_of_values(dict(reversed(values.items())))


def test_memory_layout_does_not_matter() -> None:
    table = np.arange(12.0).reshape(3, 4)
    assert sha256_of_values(table) == sha256_of_values(np.asfortranarray(table))


def test_what_cannot_be_hashed_is_refused() -> None:
    with pytest.raises(TypeError, match="An array of object cannot be hashed"):
        sha256_of_values(np.array([object()]))


def test_an_origin_is_read_from_an_episode(tmp_path: Path) -> None:
    origin, path = Origin(source="demo.hdf5", sha256="0" * 64), tmp_path / "episode.json"
    path.write_text(json.dumps({ORIGIN: origin.to_json()}))
    assert read_origin(path) == origin
    assert origin.same_content(Origin(source="moved.hdf5", sha256="0" * 64))
    assert not origin.same_content(Origin(source="demo.hdf5", sha256="1" * 64))
    assert not origin.same_content(None)
    for content in ("{}", "[]", "{", '{"origin": {"source": 3, "sha256": ""}}'):
        path.write_text(content)
        assert read_origin(path) is None
    assert read_origin(tmp_path / "missing.json") is None
