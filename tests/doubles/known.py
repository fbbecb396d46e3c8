"""A value that a test needs.

In: a value that may be None. Out: the same value, which is not.
"""

from typing import TypeVar

T = TypeVar("T")


def known(value: T | None) -> T:
    """Return the value; fail if it is None."""
    assert value is not None
    return value
