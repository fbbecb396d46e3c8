"""What the jobs of `evalkit replay` share: their place in a data set, and what to do if another episode is there.

In: a data set, a number. Out: the episode's file; sentences.
Read next: `imports.py` and `jobs.py`, the two kinds of jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.contracts.bound import BoundBench
from evalkit.dataset.writer import episode_key

OTHER_NUMBERS = "into another folder, or give other numbers (--first-number)."
"""What to do if another episode has a number; the verb comes before it."""


@dataclass(frozen=True, kw_only=True)
class EpisodeJob:
    """One episode that a data set is to hold.

    Attributes:
        root: The data set.
        bench: The bench.
        number: Number of the episode in the data set.
    """

    root: Path
    bench: BoundBench
    number: int

    @property
    def key(self) -> str:
        """Return the name of the episode in the data set."""
        return episode_key(self.number)

    @property
    def path(self) -> Path:
        """Return the JSON of the episode in the data set."""
        return self.root / "data" / f"{self.key}.json"


def describe_changes(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Return which fields an episode states otherwise than its source does now.

    Example:
        >>> describe_changes({"task": ("Lift", "Door")})
        "its field 'task' was 'Lift', and is 'Door' now"
    """
    return "; ".join(f"its field '{name}' was {was!r}, and is {now!r} now" for name, (was, now) in differing.items())
