"""Arrays in msgpack: both markers keep every number, refuse what only Python could read, and keep limits."""

import random
import resource
import tracemalloc
from collections.abc import Callable

import msgpack
import numpy as np
import pytest

from evalkit.contracts.msgpack_arrays import BadMessage, Limits, Marker, pack, unpack

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


@pytest.mark.parametrize("marker", MARKERS)
def test_empty_and_transposed_arrays(marker: Marker) -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 4, 3, 1)
    for array in (np.zeros((0, 3)), np.arange(6).reshape(2, 3).T, np.array(1.5), images, images[:, ::-1], images[1:1]):
        found = unpack(pack(array, marker), marker)
        np.testing.assert_array_equal(found, array)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("value", [np.array([{}], object), np.array(["1"], "M8[s]"), np.array([1j]), object(), {1, 2}])
def test_objects_are_not_sent(marker: Marker, value: object) -> None:
    with pytest.raises(BadMessage):
        pack({"a": value}, marker)


def test_a_refused_value_leaves_nothing_behind() -> None:
    with pytest.raises(BadMessage):
        pack({"large": np.zeros(1000), "a": object()})
    assert unpack(pack({"b": 1})) == {"b": 1}


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
        ("openpi", {b"__npgeneric__": True, b"data": 10**9, b"dtype": "S1"}),  # numpy would make 10^9 bytes
        ("openpi", {b"__npgeneric__": True, b"data": 1.7, b"dtype": "<i4"}),  # numpy would make 1
        ("openpi", {b"__npgeneric__": True, b"data": "7", b"dtype": "<f8"}),
    ],
)
def test_bad_arrays_are_refused(marker: Marker, body: dict[bytes, object]) -> None:
    with pytest.raises(BadMessage):
        unpack(msgpack.packb({"a": body}), marker)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01", b"\x81\xa1a\x01 and more"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(BadMessage, match="are no msgpack message"):
        unpack(data, "openpi")


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\x00"


LIMITS = Limits(num_bytes=4096, num_containers=8, num_entries=16, depth=4)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bytes(4097), "4097 bytes are more than the 4096 of a message"),
        (msgpack.packb([[]] * 9), "at most 8 dicts and lists"),
        (msgpack.packb([0] * 17), "17 exceeds max_array_len"),
        (msgpack.packb(dict.fromkeys(map(str, range(17)))), "17 exceeds max_map_len"),
        (nested(5), "at most 4 deep"),
        (nested(4000), "are no msgpack message"),
        (b"\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
        (b"\xc6\xff\xff\xff\xff1", "are no msgpack message"),
        (msgpack.packb(msgpack.ExtType(5, b"code")), "the msgpack extension type 5 is refused"),
    ],
)
def test_a_message_above_a_limit_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(BadMessage, match=said):
        unpack(data, limits=LIMITS)


def test_a_message_at_the_limits_is_read() -> None:
    values: list[object] = [[[[[]]]], [0] * 16, [[]] * 7, {str(i): i for i in range(16)}]
    for value in values:
        assert unpack(pack(value), limits=LIMITS) == value
    np.testing.assert_array_equal(unpack(pack(np.arange(3)), limits=LIMITS), np.arange(3))


LARGE_CLAIMS = (b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\x00", b"\x91" * 40)
"""Lists, dicts and bytes that say they are huge; lists inside one another."""


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    """Return bytes of noise, or a message of which some bytes are changed, cut, doubled or put elsewhere."""
    if rng.random() < 0.2:
        return rng.randbytes(rng.randrange(64))
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randrange(1, 4)):
        start = rng.randrange(len(data) + 1)
        if data and rng.random() < 0.7:
            data[start - 1] = rng.randrange(256)
            continue
        end = min(len(data), start + rng.randrange(1, 9))
        edits: list[Callable[[], bytes]] = [
            lambda: b"",
            lambda: rng.randbytes(rng.randrange(1, 9)),
            lambda: bytes(data[: rng.randrange(1, 33)]) * rng.randrange(1, 4),
            lambda: rng.choice(
                (b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\x00", b"\x91" * 40)
            ),
        ]
        data[start:end] = rng.choice(edits)()
    return bytes(data)


@pytest.mark.parametrize("num_inputs", [1_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_no_input_crashes_the_decoder_or_its_memory(num_inputs: int) -> None:
    image = np.zeros((2, 4, 4, 3), np.uint8)
    values = [
        {"rgb": image, "proprio": np.zeros(16, np.float32), "instruction": "lift", "chunk_idx": 3},
        {"evalkit": {"id": 1, "do": "reset", "env": {"cameras": [{"T_ee_cam": [[1.0, 0.0], [0.0, 1.0]]}]}}},
        {"x": np.float32(1), "y": [np.bool_(True), np.array(["a", "bc"]), np.zeros((0, 3))], "z": None},
    ]
    seeds = [pack(value, marker) for value in values for marker in MARKERS] + [b"\xc1", b"", nested(30)]
    rng, outcomes, longest = random.Random(0), {"read": 0, "refused": 0}, 0
    limits = Limits(num_bytes=65536)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    for _ in range(num_inputs):
        data = mutated(rng, seeds)
        for marker in MARKERS:
            try:
                unpack(data, marker, limits=limits)
                outcomes["read"] += 1
            except BadMessage as error:
                outcomes["refused"] += 1
                longest = max(longest, len(str(error)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert longest < 500
    assert peak < 32 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024
    assert min(outcomes.values()) > num_inputs / 50, outcomes
