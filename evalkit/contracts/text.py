"""Numbers in sentences.

In: a number and a noun. Out: text for a person.
Read next: `errors.py`, the sentences of mistakes.
"""

from __future__ import annotations


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or the plural.

    Example:
        >>> count_of(1, "episode"), count_of(0, "episode"), count_of(2, "seed")
        ('1 episode', '0 episodes', '2 seeds')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
