"""Arrays in msgpack: both markers keep every number, and refuse what only Python could read."""

import msgpack
import numpy as np
import pytest

from baselines.remote.arrays import BadMessage, Marker, pack, unpack

MARKERS: tuple[Marker, Marker] = ("openpi", "msgpack_numpy")


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("dtype", ["uint8", "bool", "int64", "float16", "float32", "float64", ">f4"])
def test_arrays_keep_type_shape_and_numbers(marker: Marker, dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    found = unpack(pack({"nested": {"a": array, "scalar": array[1, 2, 3]}, "list": [array[:, 0]]}, marker), marker)
    np.testing.assert_array_equal(found["nested"]["a"], array)
    assert found["nested"]["a"].dtype == array.dtype
    assert found["nested"]["scalar"] == array[1, 2, 3]
    np.testing.assert_array_equal(found["list"][0], array[:, 0])
    found["nested"]["a"][0] = 0  # a copy that can be written to


@pytest.mark.parametrize("marker", MARKERS)
def test_empty_and_transposed_arrays(marker: Marker) -> None:
    for array in (np.zeros((0, 3)), np.arange(6).reshape(2, 3).T, np.array(1.5)):
        np.testing.assert_array_equal(unpack(pack(array, marker), marker), array)


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("value", [np.array([{}], object), np.array(["text"]), np.array([1j]), object(), {1, 2}])
def test_objects_are_not_sent(marker: Marker, value: object) -> None:
    with pytest.raises(BadMessage):
        pack({"a": value}, marker)


PICKLE = b"cbuiltins\nprint\n(S'run'\ntR."


@pytest.mark.parametrize(
    ("marker", "body"),
    [
        ("openpi", {b"__ndarray__": True, b"data": PICKLE, b"dtype": "|O", b"shape": (1,)}),
        ("msgpack_numpy", {b"nd": True, b"type": b"|O", b"kind": b"O", b"shape": (1,), b"data": PICKLE}),
        ("openpi", {b"__ndarray__": True, b"data": bytes(8), b"dtype": "<f4", b"shape": (3,)}),
        ("msgpack_numpy", {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": (2, 2), b"data": bytes(4)}),
        ("openpi", {b"__ndarray__": True, b"dtype": "<f4"}),
        ("openpi", {b"__ndarray__": True, b"data": bytes(4), b"dtype": "no type", b"shape": (1,)}),
    ],
)
def test_bad_arrays_are_refused(marker: Marker, body: dict[bytes, object]) -> None:
    with pytest.raises(BadMessage):
        unpack(msgpack.packb({"a": body}), marker)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01", b"\x81\xa1a\x01 and more"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(BadMessage, match="are no msgpack message"):
        unpack(data, "openpi")
