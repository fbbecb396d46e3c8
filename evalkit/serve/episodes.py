"""The episodes of the clients of a server, under ids of the server's own.

In: a client's name of an episode. Out: the id under which the policy remembers it, and the spec of its env.
Read next: `session.py`, which asks.

A policy keeps what it remembers of an episode until the same id is reset. Ids are used again, so its memory is bounded
by clients times `ClientLimits.episodes`, and no client reaches the memory of another one.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from evalkit.contracts.msgpack_arrays import BadMessage
from evalkit.contracts.spec import EnvSpec

MAX_NAME_LENGTH = 200


@dataclass
class ServedEpisode:
    """One episode of a client.

    Attributes:
        id: What the policy calls it.
        env: Its env.
        num_requests: Requests so far.
    """

    id: str
    env: EnvSpec
    num_requests: int = 0


@dataclass
class EpisodeIds:
    """Ids that are free; the one that was given back longest ago is used first."""

    free: deque[str] = field(default_factory=deque)

    def take(self) -> str:
        """Return an id that no episode has now."""
        return self.free.popleft() if self.free else uuid.uuid4().hex


class ClientEpisodes:
    """The episodes of one client, at most so many; the one that was used longest ago makes room."""

    def __init__(self, ids: EpisodeIds, most: int) -> None:
        self._ids, self._most = ids, most
        self._episodes: OrderedDict[str, ServedEpisode] = OrderedDict()

    def begin(self, name: object, env: EnvSpec) -> ServedEpisode:
        """Return a new episode under a name; the earlier one of this name is forgotten.

        Raises:
            BadMessage: If the name is no text, or too long.
        """
        if not isinstance(name, str) or len(name) > MAX_NAME_LENGTH:
            raise BadMessage(f"episode_id must be text of at most {MAX_NAME_LENGTH} letters")
        self.forget(name)
        if len(self._episodes) >= self._most:
            self.forget(next(iter(self._episodes)))
        episode = self._episodes[name] = ServedEpisode(self._ids.take(), env)
        return episode

    def get(self, name: object) -> ServedEpisode | None:
        """Return the episode of a name; None if there is none."""
        episode = self._episodes.get(name) if isinstance(name, str) else None
        if episode is not None:
            self._episodes.move_to_end(str(name))
        return episode

    def forget(self, name: str) -> None:
        """Give back the id of an episode; an unknown name is fine."""
        if (episode := self._episodes.pop(name, None)) is not None:
            self._ids.free.append(episode.id)

    def forget_all(self) -> None:
        """Give back all ids."""
        for name in list(self._episodes):
            self.forget(name)
