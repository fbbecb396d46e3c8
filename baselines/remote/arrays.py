"""Numpy arrays inside msgpack, in the two markers that servers of policies use; no pickle, no Python objects.

In: nested dicts, lists, text, numbers and arrays. Out: bytes, and the same again.
Read next: `dialects.py`, which sends them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

Marker = Literal["openpi", "msgpack_numpy"]

PLAIN_KINDS = "biuf"
"""Kinds of numpy types that may cross the wire: truth values, integers and floats."""


class BadMessage(ValueError):
    """Bytes that are no message of the dialect, or a value that cannot be one."""


def pack(value: Any, marker: Marker) -> bytes:
    """Return the bytes of a value.

    Raises:
        BadMessage: If it holds something other than dicts, lists, text, bytes, numbers and plain arrays.

    Example:
        >>> unpack(pack({"state": np.arange(2.0)}, "openpi"), "openpi")
        {'state': array([0., 1.])}
    """
    import msgpack

    try:
        return bytes(msgpack.packb(value, default=_ENCODE[marker]))
    except (TypeError, ValueError, OverflowError) as error:
        raise BadMessage(str(error)) from error


def unpack(data: bytes, marker: Marker) -> Any:
    """Return the value that bytes hold; arrays are copies that can be written to.

    Raises:
        BadMessage: If the bytes are no msgpack, or an array has another size than its shape or a type that is refused.
    """
    import msgpack

    try:
        return msgpack.unpackb(data, object_hook=_DECODE[marker])
    except BadMessage:
        raise
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise BadMessage(f"{len(data)} bytes are no msgpack message ({type(error).__name__}: {error})") from error


def _plain(dtype: np.dtype) -> np.dtype:
    if dtype.kind not in PLAIN_KINDS:
        raise BadMessage(f"arrays of type {dtype} are refused; send truth values, integers or floats")
    return dtype


def _array(data: Any, dtype: Any, shape: Any) -> np.ndarray:
    kind = _plain(np.dtype(dtype.decode() if isinstance(dtype, bytes) else dtype))
    flat = np.frombuffer(data, dtype=kind)
    if flat.size != int(np.prod(shape)):
        raise BadMessage(f"an array of shape {tuple(shape)} holds {flat.size} numbers")
    return flat.reshape(shape).copy()


def _encode_openpi(value: Any) -> Any:
    """Return the marker of `openpi_client.msgpack_numpy` (openpi-client 0.1.2)."""
    if isinstance(value, np.ndarray):
        dtype = _plain(value.dtype).str
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": dtype, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": _plain(value.dtype).str}
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _decode_openpi(found: Mapping[Any, Any]) -> Any:
    if b"__ndarray__" in found:
        return _array(found[b"data"], found[b"dtype"], found[b"shape"])
    if b"__npgeneric__" in found:
        return _plain(np.dtype(found[b"dtype"])).type(found[b"data"])
    return found


def _encode_msgpack_numpy(value: Any) -> Any:
    """Return the marker of the package msgpack-numpy 0.4.8, without its pickled objects."""
    if isinstance(value, np.ndarray):
        dtype = _plain(value.dtype).str
        return {b"nd": True, b"type": dtype, b"kind": b"", b"shape": value.shape, b"data": value.tobytes()}
    if isinstance(value, np.generic):
        return {b"nd": False, b"type": _plain(value.dtype).str, b"data": value.tobytes()}
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _decode_msgpack_numpy(found: Mapping[Any, Any]) -> Any:
    if b"nd" not in found:
        return found
    if found.get(b"kind", b"") not in (b"", ""):
        raise BadMessage("an array of Python objects or records is refused; send truth values, integers or floats")
    if found[b"nd"]:
        return _array(found[b"data"], found[b"type"], found[b"shape"])
    return _array(found[b"data"], found[b"type"], ())[()]


_ENCODE: dict[Marker, Callable[[Any], Any]] = {"openpi": _encode_openpi, "msgpack_numpy": _encode_msgpack_numpy}
_DECODE: dict[Marker, Callable[[Any], Any]] = {"openpi": _decode_openpi, "msgpack_numpy": _decode_msgpack_numpy}
