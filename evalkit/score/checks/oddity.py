"""What a check says of the data it looked at.

In: nothing. Out: `Oddity`, which every check returns.
Read next: `chunk.py`, which adds whose data and which view it is.
"""

from __future__ import annotations

from typing import NamedTuple


class Oddity(NamedTuple):
    """Something that looks wrong.

    Attributes:
        check: Name of the check; docs/scoring.md describes each.
        value: The measured number, if there is one.
        text: A clause: what was found, what was expected, the likely cause.
        is_certain: Whether a score of these data would be meaningless, so that they must be refused.
    """

    check: str
    value: float | None
    text: str
    is_certain: bool = False
