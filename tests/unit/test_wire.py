"""The wire: what travels comes back, what must not travel is refused."""

import socket
import threading
import time
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evalkit.contracts.worker import wire


def assert_arrives(array: np.ndarray) -> None:
    back = wire.unpack(wire.pack({"a": array}))["a"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(
    hnp.arrays(
        dtype=st.one_of(
            hnp.boolean_dtypes(),
            hnp.integer_dtypes(endianness="?"),
            hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
            hnp.unicode_string_dtypes(endianness="?"),
            hnp.byte_string_dtypes(),
        ),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0),
    )
)
def test_arrays_come_back_to_the_bit(array: np.ndarray) -> None:
    assert_arrives(array)


@given(
    hnp.arrays(
        dtype=st.one_of(hnp.scalar_dtypes(), hnp.array_dtypes(), hnp.complex_number_dtypes(), hnp.nested_dtypes()),
        shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
    )
)
def test_every_array_arrives_equal_or_is_refused(array: np.ndarray) -> None:
    try:
        wire.pack(array)
    except TypeError:
        return
    assert_arrives(array)


@pytest.mark.parametrize("view", [np.s_[::2, 1], np.s_[::-1], np.s_[:, None], np.s_[0, 0, ...]])
def test_views_and_read_only_arrays_arrive_as_they_look(view: Any) -> None:
    array = np.asfortranarray(np.random.default_rng(0).normal(size=(4, 6))).astype(">f4")[view]
    array.flags.writeable = False
    assert_arrives(array)


def test_a_file_mapped_into_memory_arrives(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "x", np.uint16, "w+", shape=(3, 5))
    mapped[:] = np.arange(15).reshape(3, 5)
    assert_arrives(mapped)


@given(st.one_of([hnp.from_dtype(np.dtype(name)) for name in ("u1", "i8", "f2", "f4", "f8", "?", "U3", "S3")]))
def test_single_numbers_arrive_equal(value: Any) -> None:
    np.testing.assert_array_equal(wire.unpack(wire.pack(value)), value)


def test_a_masked_depth_is_refused_with_what_to_send() -> None:
    depth = np.ma.masked_equal(np.array([[0, 1000], [0, 2000]], np.uint16), 0)
    with pytest.raises(TypeError, match="2 of 4 values are masked; fill them first, depth with 0"):
        wire.pack({"depth": depth})


def test_arrays_are_written_in_openpis_dialect() -> None:
    raw = msgpack.unpackb(wire.pack(np.arange(6, dtype=np.int16).reshape(2, 3)))
    assert raw == {
        b"__ndarray__": True,
        b"data": bytes([0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0]),
        b"dtype": "<i2",
        b"shape": [2, 3],
    }


class Quantity(np.ndarray):
    """An array with more to it than its numbers, as packages for units have them."""


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        1j,
        2**64,
        np.array([object()]),
        np.zeros(2, np.complex64),
        np.complex64(1j),
        np.zeros(2, "f4,i2"),
        np.zeros(2, "f4,i2").view(np.recarray),
        np.zeros(2, "M8[s]"),
        np.datetime64(5, "ns"),
        np.timedelta64(5, "s"),
        np.zeros(2, np.longdouble),
        np.longdouble(1),
        np.zeros(2).view(Quantity),
        np.matrix([[1.0, 2.0]]),
        np.ma.masked_equal([0, 1], 0),
        np.ma.masked_array([0, 1]),
        np.ma.masked,
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}",
)
def test_what_has_no_safe_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"do(es)? not travel"):
        wire.pack(value)


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"",
        wire.pack([1, 2])[:-1],
        msgpack.packb({b"__ndarray__": True, b"data": b"12345678", b"dtype": "|O", b"shape": [1]}),
        msgpack.packb({b"__ndarray__": True, b"data": b"123", b"dtype": "<f8", b"shape": [1]}),
        msgpack.packb({b"__ndarray__": True}),
        msgpack.packb({b"__ndarray__": True, b"data": b"12345678", b"dtype": "<M8[s]", b"shape": [1]}),
        msgpack.packb({b"__npgeneric__": True, b"data": 5, b"dtype": "<M8[ns]"}),
    ],
)
def test_bytes_that_are_no_message_are_named(data: bytes) -> None:
    with pytest.raises(wire.WireError, match=f"{len(data)} bytes that are not a message|refused"):
        wire.unpack(data)


def test_a_message_crosses_a_socket_and_a_late_one_times_out() -> None:
    ours, theirs = socket.socketpair()
    message = {"rgb": np.random.default_rng(0).integers(0, 256, (3, 256, 320, 3), dtype=np.uint8)}
    threading.Thread(target=wire.send, args=(theirs, message)).start()
    assert (wire.receive(ours, timeout_s=5)["rgb"] == message["rgb"]).all()
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        wire.receive(ours, timeout_s=0.1)
    assert time.monotonic() - started < 2
    theirs.close()
    with pytest.raises(EOFError):
        wire.receive(ours, timeout_s=1)
