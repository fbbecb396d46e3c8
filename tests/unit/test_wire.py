"""The wire: what travels comes back, what must not travel is refused."""

import socket
import threading
import time

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evalkit.contracts.worker import wire


@given(
    hnp.arrays(
        dtype=st.sampled_from([np.uint8, np.float32, np.float64, np.int64, np.bool_]),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0),
    )
)
def test_arrays_come_back_to_the_bit(array: np.ndarray) -> None:
    back = wire.unpack(wire.pack({"a": array}))["a"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_arrays_are_written_in_openpis_dialect() -> None:
    raw = msgpack.unpackb(wire.pack(np.arange(6, dtype=np.int16).reshape(2, 3)))
    assert raw == {
        b"__ndarray__": True,
        b"data": bytes([0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0]),
        b"dtype": "<i2",
        b"shape": [2, 3],
    }


@pytest.mark.parametrize("value", [object(), np.array([object()]), np.zeros(2, np.complex64), {1, 2}])
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
