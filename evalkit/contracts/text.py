"""Numbers in sentences, and sentences that differ in numbers only.

In: a number and a noun, or a sentence. Out: text for a person, or the kind of the sentence.
Read next: `errors.py`, the sentences of mistakes.
"""

from __future__ import annotations

import re

_LINE_OF_CODE = r"\w+\.py:\d+"
_PATH = r"(?:[\w.~*-]*/)+[\w.~*-]*"
_WORD_WITH_DIGITS = r"[-+]?\w*\d\w*(?:\.\d\w*)?"
_VARIES = re.compile(rf"(?P<code>{_LINE_OF_CODE})|{_PATH}|{_WORD_WITH_DIGITS}")


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or the plural.

    Example:
        >>> count_of(1, "episode"), count_of(0, "episode"), count_of(2, "seed")
        ('1 episode', '0 episodes', '2 seeds')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def sentence_kind(sentence: str, *, task: str) -> str:
    """Return a sentence without the parts that vary between episodes: the task's name, numbers, paths, hex words.

    A line of code stays, because the same message from another line has another cause.

    Args:
        sentence: The reason of an error, or a warning.
        task: The task of the episode.

    Example:
        >>> sentence_kind("bench/Lift, seed 12: 0.5 m off in frames/Lift/0001.npz (policy.py:71).", task="Lift")
        '*, seed *: * m off in * (policy.py:71).'
    """
    return _VARIES.sub(lambda match: match["code"] or "*", sentence.replace(task, "*"))
