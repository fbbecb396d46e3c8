"""Numpy arrays inside msgpack, in the two markers that servers of policies use; no pickle, no Python objects.

In: nested dicts, lists, text, numbers and arrays. Out: bytes, and the same again.
Read next: `worker/wire.py` for the messages of env processes, `evalkit/serve/messages.py` for those of policies.

`openpi` is the marker of `openpi_client.msgpack_numpy` (openpi-client 0.1.2); `msgpack_numpy` is that of the package
msgpack-numpy 0.4.8, without its pickled objects.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import msgpack
import numpy as np

Marker = Literal["openpi", "msgpack_numpy"]

_TYPE_NAME = re.compile(r"[<>=|]?([biu]1|[iu][248]|f[248]|[SU][1-9]\d{0,8})|\?")
"""Names of types of which values mean the same on every machine: booleans, numbers of at most 64 bits, text."""


COPIED_BYTES = 2**16
"""Arrays below this size are copied before they are packed, which takes less time than a view."""

MAX_AXES = 32


class BadMessage(ValueError):
    """Bytes that are no message of the dialect, or a value that cannot be one."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a message of a peer that is not trusted.

    Attributes:
        num_bytes: Of the whole message.
        num_containers: Dicts and lists together; an array is a dict with one list.
        num_entries: Of one dict or list.
        depth: Of dicts and lists inside one another.
    """

    num_bytes: int = 256 * 2**20
    num_containers: int = 4096
    num_entries: int = 4096
    depth: int = 12


def pack(value: Any, marker: Marker = "openpi") -> bytes:
    """Return the bytes of a value. Every array either arrives equal, with its type and shape, or is refused.

    Raises:
        BadMessage: If it holds something other than dicts, lists, text, bytes, numbers and plain arrays: an array of
            objects or complex numbers, one with more to it than its numbers (a mask, a unit), a larger integer than
            64 bits.

    Example:
        >>> unpack(pack({"state": np.arange(2.0)}))
        {'state': array([0., 1.])}
    """
    try:
        return bytes(_PACKERS.of(marker).pack(value))
    except OverflowError as error:
        raise BadMessage("integers above 64 bits do not travel; send smaller numbers or text") from error
    except (TypeError, ValueError) as error:
        raise BadMessage(str(error)) from error


def unpack(data: bytes | bytearray, marker: Marker = "openpi", *, limits: Limits | None = None) -> Any:
    """Return the value that bytes hold; its arrays are read-only views of them.

    Args:
        data: The bytes.
        marker: How arrays are marked.
        limits: Bounds of the message; None for a peer that is trusted.

    Raises:
        BadMessage: If the bytes are no msgpack, exceed a limit, or an array has another size than its shape or a type
            that is refused.
    """
    if limits is not None and len(data) > limits.num_bytes:
        raise BadMessage(f"{len(data)} bytes are more than the {limits.num_bytes} of a message")
    decode = _DECODE[marker]
    try:
        if limits is None:
            return msgpack.unpackb(data, object_hook=decode, strict_map_key=False)
        return _bounded(data, decode, limits)
    except BadMessage:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError, msgpack.UnpackException) as error:
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        raise BadMessage(f"{len(data)} bytes are no msgpack message ({said})") from error


def _bounded(data: bytes | bytearray, decode: Callable[[Any], Any], limits: Limits) -> Any:
    """Return the value of bytes of a peer that is not trusted: containers are counted while they are read."""
    num_left = limits.num_containers

    def counted(container: Any) -> Any:
        nonlocal num_left
        num_left -= 1
        if num_left < 0:
            raise BadMessage(f"a message must hold at most {limits.num_containers} dicts and lists")
        return decode(container) if isinstance(container, dict) else container

    value = msgpack.unpackb(
        data,
        object_hook=counted,
        list_hook=counted,
        ext_hook=_refuse_extension,
        max_array_len=limits.num_entries,
        max_map_len=limits.num_entries,
    )
    _check_depth(value, limits.depth)
    return value


def _refuse_extension(code: int, _: bytes) -> Any:
    raise BadMessage(f"the msgpack extension type {code} is refused; send arrays and plain values")


def _check_depth(value: Any, depth: int) -> None:
    """Raise BadMessage for dicts and lists that lie deeper inside one another."""
    level = [value]
    for _ in range(depth):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise BadMessage(f"dicts and lists of a message must lie at most {depth} deep inside one another")


@lru_cache(maxsize=256)
def _type_name(dtype: np.dtype[Any]) -> str:
    """Return the name of a type; raises BadMessage if it does not travel."""
    if not _TYPE_NAME.fullmatch(dtype.str):
        raise BadMessage(f"arrays of {dtype} do not travel; send numbers, booleans or text")
    return dtype.str


def _check_plain(array: np.ndarray) -> None:
    """Raise BadMessage for an array with more to it than its numbers."""
    if isinstance(array, np.ma.MaskedArray):
        raise BadMessage(
            f"masked arrays do not travel, {array.mask.sum()} of {array.size} values are masked; "
            "fill them first, depth with 0, which means none"
        )
    if type(array) not in (np.ndarray, np.memmap):
        raise BadMessage(f"{type(array).__name__} does not travel; send np.asarray of its values in the agreed unit")


def _bytes_of(array: np.ndarray) -> Any:
    """Return the bytes of an array in C order, without a copy of a large one that already lies so."""
    if array.nbytes < COPIED_BYTES or array.dtype.kind in "SU":
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _encode(value: Any, *, openpi: bool) -> Any:
    if isinstance(value, np.ndarray):
        name, shape = _type_name(value.dtype), value.shape
        if type(value) is not np.ndarray:
            _check_plain(value)
        data = _bytes_of(value)
        if openpi:
            return {b"__ndarray__": True, b"data": data, b"dtype": name, b"shape": shape}
        return {b"nd": True, b"type": name, b"kind": b"", b"shape": shape, b"data": data}
    if isinstance(value, np.generic):
        if openpi:
            return {b"__npgeneric__": True, b"data": value.item(), b"dtype": _type_name(value.dtype)}
        return {b"nd": False, b"type": _type_name(value.dtype), b"data": value.tobytes()}
    raise BadMessage(f"{type(value).__name__} does not travel; send arrays and plain values")


def _dtype(name: Any) -> np.dtype[Any]:
    text = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    if not isinstance(text, str):
        raise BadMessage(f"the type of an array must be text, got {type(text).__name__}")
    return _named_dtype(text)


@lru_cache(maxsize=256)
def _named_dtype(name: str) -> np.dtype[Any]:
    if not _TYPE_NAME.fullmatch(name):
        raise BadMessage(f"arrays of type {name[:40]!r} are refused; send numbers, booleans or text")
    return np.dtype(name)


def _array(data: Any, type_name: Any, shape: Any) -> np.ndarray:
    dtype = _dtype(type_name)
    sizes = list(shape)
    if len(sizes) > MAX_AXES or min(sizes, default=0) < 0:
        raise BadMessage(f"the shape of an array must be at most {MAX_AXES} whole numbers, none of them negative")
    if not isinstance(data, bytes) or len(data) != math.prod(sizes) * dtype.itemsize:
        found = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise BadMessage(
            f"an array of {dtype} {tuple(sizes)} needs {math.prod(sizes) * dtype.itemsize} bytes, got {found}"
        )
    return np.frombuffer(data, dtype).reshape(sizes) if data else np.empty(sizes, dtype)


_PLAIN: dict[str, tuple[type, ...]] = {
    "b": (bool,), "i": (int,), "u": (int,), "f": (float, int), "S": (bytes,), "U": (str,)
}  # fmt: skip
"""Kinds of numpy types, and the plain types that stand for one value of each."""


def _number(data: Any, dtype: np.dtype[Any]) -> Any:
    """Return one value of a type; a number in place of bytes would be a request for so much memory."""
    if type(data) not in _PLAIN[dtype.kind]:
        raise BadMessage(f"a single value of {dtype} cannot be made of {type(data).__name__}")
    return dtype.type(data)


def _decode_openpi(found: Mapping[Any, Any]) -> Any:
    if b"__ndarray__" in found:
        return _array(found[b"data"], found[b"dtype"], found[b"shape"])
    if b"__npgeneric__" in found:
        return _number(found[b"data"], _dtype(found[b"dtype"]))
    return found


def _decode_msgpack_numpy(found: Mapping[Any, Any]) -> Any:
    if b"nd" not in found:
        return found
    if found.get(b"kind", b"") not in (b"", ""):
        raise BadMessage("an array of Python objects or records is refused; send numbers, booleans or text")
    if found[b"nd"]:
        return _array(found[b"data"], found[b"type"], found[b"shape"])
    return _array(found[b"data"], found[b"type"], ())[()]


_ENCODE: dict[Marker, Callable[[Any], Any]] = {
    "openpi": partial(_encode, openpi=True),
    "msgpack_numpy": partial(_encode, openpi=False),
}
_DECODE: dict[Marker, Callable[[Any], Any]] = {"openpi": _decode_openpi, "msgpack_numpy": _decode_msgpack_numpy}


class _Packers(threading.local):
    """The packers of a thread: each keeps its buffer, so that no message allocates one."""

    def __init__(self) -> None:
        self._packers: dict[Marker, msgpack.Packer] = {}

    def of(self, marker: Marker) -> msgpack.Packer:
        """Return the packer of a marker."""
        packer = self._packers.get(marker)
        if packer is None:
            packer = self._packers[marker] = msgpack.Packer(default=_ENCODE[marker])
        return packer


_PACKERS = _Packers()
