"""A store of the most recently used values, bounded by their memory.

In: keys, and functions that make values. Out: values.
Read next: `xwam/serving/prompts.py` and `xwam/training/batches.py`, which store prompts in it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

GIB = 1 << 30


class Sized(Protocol):
    """A value that knows its memory."""

    @property
    def num_bytes(self) -> int:
        """Return the memory that it takes."""
        ...


Value = TypeVar("Value", bound=Sized)


class Recent(Generic[Value]):
    """The most recently used values that fit into `max_bytes`; a larger value is made again at every use.

    While a value is made, it needs memory in addition to the stored ones.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._values: OrderedDict[str, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made if it is not stored."""
        value = self._values.pop(key, None)
        if value is None:
            value = make()
            self.num_bytes += value.num_bytes
        self._values[key] = value
        while self.num_bytes > self.max_bytes:
            self.num_bytes -= self._values.popitem(last=False)[1].num_bytes
        return value

    def drop(self, key: str) -> None:
        """Free the value of a key, if it is stored."""
        value = self._values.pop(key, None)
        if value is not None:
            self.num_bytes -= value.num_bytes
