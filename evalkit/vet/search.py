"""The seeds of one task that an expert tries, in which order, and when it has tried enough.

In: vettings, in whatever order workers end them. Out: the next seed, and the vettings that count.
Read next: `lanes.py`, whose threads ask for seeds; `run.py` and `verify.py`, which read the vettings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from evalkit.contracts.manifest import Vetting

State = Literal["open", "vetted", "skipped", "not vetted"]


@dataclass(kw_only=True, eq=False)
class Search(ABC):
    """The state of one task; not for several threads at once.

    Attributes:
        task: Name of the task.
        known: Vettings by seed.
        running: Seeds that a worker has now.
        attempts: Number of times that a seed was given out and failed for a technical reason.
        about: What the workers of the task say of themselves; None until the first one has started.
        starting: Whether the first worker is being started.
        state: `open` while seeds are needed.
        reason: Why the task is `skipped` or `not vetted`.
    """

    task: str
    known: dict[int, Vetting] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)
    attempts: Counter[int | None] = field(default_factory=Counter)
    about: Mapping[str, str] | None = None
    starting: bool = False
    state: State = "open"
    reason: str | None = None

    def next_seed(self, *, certain: bool) -> int | None:
        """Return a seed that is not vetted yet, the smallest one; None if there is none.

        Args:
            certain: Give no seed that is not needed if those that workers have now are accepted.
        """
        if self.state != "open" or (certain and not self._needs_more()):
            return None
        return next((seed for seed in self.seeds if seed not in self.known and seed not in self.running), None)

    def end(self, state: State, reason: str | None = None) -> None:
        """Give the task its final state."""
        self.state, self.reason = state, reason

    def sentences(self, seed: int) -> Mapping[str, str] | None:
        """Return the sentences of a seed that are checked, by split; None to draw new ones."""
        return None

    @property
    @abstractmethod
    def seeds(self) -> Iterable[int]:
        """Return the seeds that may be tried, in order."""

    @abstractmethod
    def _needs_more(self) -> bool:
        """Return whether a further seed is needed even if all running ones are accepted."""

    @abstractmethod
    def settle(self) -> None:
        """Give the task its final state if it has one now."""


@dataclass(kw_only=True, eq=False)
class FirstAccepted(Search):
    """Seeds from the first one upward until enough are accepted; what comes after them does not count.

    Attributes:
        first_seed: First seed.
        episodes: Number of accepted seeds that are needed.
        max_tries: Number of seeds that may be tried.
    """

    first_seed: int
    episodes: int
    max_tries: int

    @property
    def seeds(self) -> range:
        """Return the seeds that may be tried."""
        return range(self.first_seed, self.first_seed + self.max_tries)

    def vettings(self) -> tuple[Vetting, ...]:
        """Return the vettings that count: from the first seed without a gap, up to the last one that is needed.

        Example:
            >>> search = FirstAccepted(task="lift", first_seed=0, episodes=1, max_tries=9)
            >>> search.known = {2: Vetting(seed=2, accepted=True), 0: Vetting(seed=0, accepted=False, reason="late")}
            >>> [vetting.seed for vetting in search.vettings()]
            [0]
        """
        counted: list[Vetting] = []
        accepted = 0
        for seed in self.seeds:
            if accepted == self.episodes or seed not in self.known:
                break
            counted.append(self.known[seed])
            accepted += self.known[seed].accepted
        return tuple(counted)

    @property
    def num_accepted(self) -> int:
        """Return how many accepted seeds count so far."""
        return sum(vetting.accepted for vetting in self.vettings())

    def _needs_more(self) -> bool:
        return sum(vetting.accepted for vetting in self.known.values()) + len(self.running) < self.episodes

    def settle(self) -> None:
        """Give the task its final state if enough seeds are accepted or the last one that may be tried is rejected."""
        counted = self.vettings()
        accepted = sum(vetting.accepted for vetting in counted)
        if self.state != "open":
            return
        if accepted == self.episodes:
            self.end("vetted")
        elif len(counted) == self.max_tries:
            self.end(
                "not vetted",
                f"{accepted} of {self.max_tries} tried seeds are accepted, {self.episodes} are needed; allow more with "
                "--max-tries",
            )


@dataclass(kw_only=True, eq=False)
class Listed(Search):
    """Given seeds, each of which is tried.

    Attributes:
        listed: The seeds.
        instructions: Sentence by split of the seeds whose sentences are checked.
    """

    listed: Sequence[int]
    instructions: Mapping[int, Mapping[str, str]] = field(default_factory=dict)

    def sentences(self, seed: int) -> Mapping[str, str] | None:
        """Return the sentences of a seed that are checked, by split; None to draw new ones."""
        return self.instructions.get(seed)

    @property
    def seeds(self) -> Sequence[int]:
        """Return the seeds."""
        return self.listed

    def _needs_more(self) -> bool:
        return True

    def settle(self) -> None:
        """Give the task its final state if all seeds are vetted."""
        if self.state == "open" and all(seed in self.known for seed in self.listed):
            self.end("vetted")
