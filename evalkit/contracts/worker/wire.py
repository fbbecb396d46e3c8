"""Messages as bytes: msgpack, arrays as (dtype, shape, bytes), no pickle.

In: dicts, lists, numbers, text, numpy arrays. Out: bytes, and back; length-prefixed frames on a socket.
Read next: `messages.py`, what is sent; `server.py` and `client.py`, the two ends.

Arrays are written as openpi's client and server write them, so that theirs and ours understand each other.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import msgpack
import numpy as np

MAX_MESSAGE_BYTES = 1 << 31
_LENGTH = struct.Struct(">I")


class WireError(Exception):
    """Bytes that are not a message of ours."""


def pack(message: Any) -> bytes:
    """Return the msgpack form of a message.

    Every array either arrives equal, with its dtype and shape, or is refused.

    Raises:
        TypeError: For a value that has no safe form: an array of other than numbers, booleans or text, one with more to
            it than its numbers (a mask, a unit), an integer above 64 bits.

    Example:
        >>> unpack(pack({"action": np.float32([1, 2])}))["action"]
        array([1., 2.], dtype=float32)
    """
    try:
        return msgpack.packb(message, default=_encode)
    except OverflowError as error:
        raise TypeError("integers above 64 bits do not travel; send smaller numbers or text") from error


def unpack(data: bytes | bytearray) -> Any:
    """Return the message that `pack` (or openpi's packer) wrote; arrays are read-only views of the bytes.

    Raises:
        WireError: If the bytes are no such message.
    """
    try:
        return msgpack.unpackb(data, object_hook=_decode, strict_map_key=False)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise WireError(f"{len(data)} bytes that are not a message: {error}") from error


def send(connection: socket.socket, message: Any) -> None:
    """Write one length-prefixed message."""
    send_packed(connection, pack(message))


def send_packed(connection: socket.socket, data: bytes) -> None:
    """Write one message that is packed already."""
    if len(data) >= MAX_MESSAGE_BYTES:
        raise WireError(f"message of {len(data)} bytes is above the limit of {MAX_MESSAGE_BYTES}")
    connection.sendall(_LENGTH.pack(len(data)))
    connection.sendall(data)


def receive(connection: socket.socket, *, timeout_s: float | None = None) -> Any:
    """Return the next message.

    Raises:
        TimeoutError: If it is not there, whole, after `timeout_s`.
        EOFError: If the other end is gone.
        WireError: If what arrives is no message.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    (length,) = _LENGTH.unpack(_receive_exactly(connection, _LENGTH.size, deadline))
    if length >= MAX_MESSAGE_BYTES:
        raise WireError(f"a message of {length} bytes is announced, above the limit of {MAX_MESSAGE_BYTES}")
    return unpack(_receive_exactly(connection, length, deadline))


def _receive_exactly(connection: socket.socket, num_bytes: int, deadline: float | None) -> bytearray:
    buffer = bytearray(num_bytes)
    view = memoryview(buffer)
    while view:
        connection.settimeout(None if deadline is None else max(deadline - time.monotonic(), 1e-3))
        try:
            received = connection.recv_into(view)
        except TimeoutError:
            raise
        except OSError as error:
            raise EOFError(f"the connection broke: {error}") from error
        if received == 0:
            raise EOFError("the other end closed the connection")
        view = view[received:]
    return buffer


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and not _is_plain(value.dtype):
        raise TypeError(f"arrays of {value.dtype} do not travel; send numbers, booleans or text")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"masked arrays do not travel, {value.mask.sum()} of {value.size} values are masked; "
            "fill them first, depth with 0, which means none"
        )
    if isinstance(value, np.ndarray):
        if type(value) not in (np.ndarray, np.memmap):
            raise TypeError(f"{type(value).__name__} does not travel; send np.asarray of its values in the agreed unit")
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"{type(value).__name__} does not travel; send arrays and plain values")


def _decode(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        return np.frombuffer(value[b"data"], _plain(value[b"dtype"])).reshape(value[b"shape"])
    if b"__npgeneric__" in value:
        return _plain(value[b"dtype"]).type(value[b"data"])
    return value


def _plain(name: str) -> np.dtype[Any]:
    dtype = np.dtype(name)
    if not _is_plain(dtype):
        raise WireError(f"arrays of {dtype} are refused")
    return dtype


def _is_plain(dtype: np.dtype[Any]) -> bool:
    """Return whether values of a type mean the same on every machine: booleans, text, numbers of at most 64 bits."""
    return dtype.kind in "SU" or (dtype.kind in "biuf" and dtype.itemsize <= 8)
