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

from evalkit.contracts import msgpack_arrays

MAX_MESSAGE_BYTES = 1 << 31
_LENGTH = struct.Struct(">I")


class WireError(Exception):
    """Bytes that are not a message of ours."""


def pack(message: Any) -> bytes:
    """Return the msgpack form of a message.

    Every array either arrives equal, with its dtype and shape, or is refused.

    Raises:
        TypeError: For a value that has no safe form; `msgpack_arrays.pack` says which.

    Example:
        >>> unpack(pack({"steps": [1, 2]}))
        {'steps': [1, 2]}
    """
    try:
        return msgpack_arrays.pack(message)
    except msgpack_arrays.BadMessage as error:
        raise TypeError(str(error)) from error


def unpack(data: bytes | bytearray) -> Any:
    """Return the message that `pack` (or openpi's packer) wrote; arrays are read-only views of the bytes.

    Raises:
        WireError: If the bytes are no such message.
    """
    try:
        return msgpack_arrays.unpack(data)
    except msgpack_arrays.BadMessage as error:
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
