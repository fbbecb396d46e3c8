"""What the policy remembers of each episode: the window of its last request, and counts for the record.

In: requests. Out: the window that a request continues.
Read next: `window.py`; `policy.py`, the caller.

Nothing that is remembered changes, so a request that is asked twice starts twice from what was before it, and gives the
same reply.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from baselines.dreamzero.window import Step, Window
from evalkit.contracts.errors import EpisodeFault

MAX_EPISODES = 64
"""Episodes whose windows are kept, as many as can run at once; the one whose last request is longest ago is forgotten
first, finished ones so before running ones. At 5B a window takes 5 MB apart from its cache."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """An episode up to a request.

    Attributes:
        window: Its window; None if the next request starts one.
        passes: Passes of the network until the actions of all requests were clean.
        starts: How often a window started, by reason.
    """

    window: Window | None = None
    passes: int = 0
    starts: Mapping[str, int] = field(default_factory=dict)

    def after(self, step: Step, passes: int) -> Past:
        """Return the episode after a request that gave this window in so many passes."""
        starts = dict(self.starts)
        if step.started_by is not None:
            starts[step.started_by] = starts.get(step.started_by, 0) + 1
        return Past(window=step.window, passes=self.passes + passes, starts=starts)

    def details(self) -> dict[str, Any]:
        """Return what a record holds of the episode."""
        return {"passes": self.passes, "window_starts": dict(self.starts)}


@dataclass(frozen=True, kw_only=True)
class LastRequest:
    """The last request of an episode: its number, and the episode before and after it."""

    chunk_idx: int
    before: Past
    after: Past


class EpisodeMemory:
    """The last request of every episode that has begun."""

    def __init__(self, max_episodes: int = MAX_EPISODES) -> None:
        self._max = max_episodes
        self._episodes: OrderedDict[str, LastRequest | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._episodes)

    def reset(self, episode_id: str) -> None:
        """Begin an episode, with nothing remembered."""
        self._put(episode_id, None)

    def before(self, episode_id: str, chunk_idx: int) -> Past:
        """Return the episode that a request continues.

        A request with the number of the last one is the same request again. Any number but that and the next one
        starts a window, because the frames between are unknown.

        Raises:
            EpisodeFault: If the episode was never begun, or is forgotten.
        """
        if episode_id not in self._episodes:
            raise EpisodeFault(
                "policy",
                f"dreamzero remembers no episode {episode_id}: call reset before its first request, and run at most "
                f"{self._max} episodes at once.",
            )
        last = self._episodes[episode_id]
        if last is None:
            return Past()
        if chunk_idx == last.chunk_idx:
            return last.before
        return last.after if chunk_idx == last.chunk_idx + 1 else replace(last.after, window=None)

    def remember(self, episode_id: str, chunk_idx: int, before: Past, after: Past) -> None:
        """Remember a request."""
        self._put(episode_id, LastRequest(chunk_idx=chunk_idx, before=before, after=after))

    def _put(self, episode_id: str, last: LastRequest | None) -> None:
        self._episodes[episode_id] = last
        self._episodes.move_to_end(episode_id)
        while len(self._episodes) > self._max:
            self._episodes.popitem(last=False)
