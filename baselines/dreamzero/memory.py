"""What the policy remembers of each episode: the window of its last request.

In: requests. Out: the window that a request continues.
Read next: `window.py`; `policy.py`, the caller.

A window never changes, so a request that is asked twice starts twice from the window before it, and gives the same
reply.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from baselines.dreamzero.window import Window
from evalkit.contracts.errors import EpisodeFault

MAX_EPISODES = 1024
"""Episodes whose windows are kept; the one whose last request is longest ago is forgotten first."""


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """The last request of an episode.

    Attributes:
        chunk_idx: Its number.
        before: The window that it continued; None if it had none.
        window: Its own window.
    """

    chunk_idx: int
    before: Window | None
    window: Window


class EpisodeMemory:
    """The last request of every episode that has begun."""

    def __init__(self, max_episodes: int = MAX_EPISODES) -> None:
        self._max = max_episodes
        self._episodes: OrderedDict[str, Remembered | None] = OrderedDict()

    def reset(self, episode_id: str) -> None:
        """Begin an episode, with nothing remembered."""
        self._put(episode_id, None)

    def window_before(self, episode_id: str, chunk_idx: int) -> Window | None:
        """Return the window that a request continues; None if it starts one.

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
            return None
        if chunk_idx == last.chunk_idx:
            return last.before
        return last.window if chunk_idx == last.chunk_idx + 1 else None

    def remember(self, episode_id: str, chunk_idx: int, before: Window | None, window: Window) -> None:
        """Remember the window of a request."""
        self._put(episode_id, Remembered(chunk_idx=chunk_idx, before=before, window=window))

    def _put(self, episode_id: str, remembered: Remembered | None) -> None:
        self._episodes[episode_id] = remembered
        self._episodes.move_to_end(episode_id)
        while len(self._episodes) > self._max:
            self._episodes.popitem(last=False)
