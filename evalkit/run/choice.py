"""Choices that change no result: which episodes of a plan run here, in which order, and whose clips are kept.

In: planned episodes, records so far. Out: a part of the episodes, or another order.
Read next: `runner.py`, which asks.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.types import Episode
from evalkit.store.records import EpisodeRecord


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One of several parts of a plan; together they hold every episode once.

    Attributes:
        number: From 1 to `count`.
        count: Number of parts.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that a text names; raises BadConfig if it names none.

        Example:
            >>> Shard.parse("2/4")
            Shard(number=2, count=4)
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        number, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise BadConfig(f"--shard takes i/n with i from 1 to n, for example 1/4, got '{text}'.")
        return cls(number=number, count=count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, episodes: Sequence[Episode]) -> list[Episode]:
        """Return the episodes of this shard, in the plan's order.

        A plan lists its tasks one after the other; the shards take its episodes in turn. So the shards of a plan, and
        their episodes of each task, differ in number by at most one.
        """
        return list(episodes[self.number - 1 :: self.count])


WHOLE = Shard()


def longest_first(episodes: Sequence[Episode], records: Sequence[EpisodeRecord]) -> list[Episode]:
    """Return episodes in the order of their expected seconds, the longest first; equal ones keep their order.

    So that no lane begins a long episode when the others have nothing left to do.

    Args:
        episodes: What is left to run.
        records: What has run. An episode is expected to take the mean of its task, where an episode of it ended in
            success or failure; else its step limit times the mean seconds of a step.
    """
    ended = [record for record in records if record.outcome in ("success", "failure") and record.steps]
    seconds: dict[str, list[float]] = {}
    for record in ended:
        seconds.setdefault(record.task, []).append(record.timings_s.get("wall", 0.0))
    step_s = sum(sum(each) for each in seconds.values()) / sum(record.steps for record in ended) if ended else 1.0

    def expected_s(episode: Episode) -> float:
        own = seconds.get(episode.task)
        return sum(own) / len(own) if own else episode.max_steps * step_s

    return sorted(episodes, key=expected_s, reverse=True)


def kept_clips(episodes: Sequence[Episode], share: float) -> frozenset[str]:
    """Return the keys of the episodes whose clips are kept: a share of a plan, spread over its tasks.

    The choice depends on the planned episodes alone: neither on the order in which they run nor on shards and restarts.

    Args:
        episodes: All episodes of the plan.
        share: From 0 to 1; at least one episode is chosen unless it is 0.
    """
    ranked: list[tuple[int, str, str]] = []
    ranks: Counter[str] = Counter()
    for digest, episode in sorted(((_digest(each), each) for each in episodes), key=lambda pair: pair[0]):
        ranked.append((ranks[episode.task], digest, episode.key))
        ranks[episode.task] += 1
    count = max(math.ceil(round(len(episodes) * share, 6)), 1 if share > 0 else 0)
    return frozenset(key for _, _, key in sorted(ranked)[:count])


def _digest(episode: Episode) -> str:
    return hashlib.sha256(f"clip {episode.key} {episode.seed}".encode()).hexdigest()
