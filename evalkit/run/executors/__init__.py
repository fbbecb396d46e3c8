"""Executors: what carries the episodes of a run; `threads.py` does so on this machine.

In: episodes in the order in which they begin. Out: for each, exactly one record and its fault, as they end.
Read next: `threads.py`, the smallest one; `evalkit/run/runner.py`, which gives the episodes and keeps the records.

The seam between a run and its machines is two calls:

- `Executor.run(episodes, on_end)`, which the runner calls once. It returns when every episode has ended. The runner
  owns the run folder's records, the count of equal errors and the order; `on_end` may be called from any thread, and
  what it raises (a full disk, too many equal errors) ends the run: `run` stops its lanes and raises it.
- `Lane.end_of(episode)` (`evalkit/run/lane.py`), which an executor calls wherever a lane lives, one episode at a time.
  It returns `Ended`, a record and its fault, and writes the episode's clip and video below the lane's run folder. It
  repeats an episode whose env process or policy died within `run.max_attempts`. An `EvalkitError` of it ends the run.

An episode whose lane is lost (a node that died) has not ended: the executor gives it to another lane. Its files are
written again as a whole, so that nothing of the lost attempt stays. Results do not depend on which lane ran an episode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from evalkit.contracts.errors import EpisodeFault
from evalkit.contracts.types import Episode
from evalkit.store.records import EpisodeRecord


class Ended(NamedTuple):
    """How an episode ended: its record, and for `error` and `skipped` the fault."""

    record: EpisodeRecord
    fault: EpisodeFault | None


OnEnd = Callable[[Ended], None]

NoteWorker = Callable[[str, Mapping[str, str]], None]
"""Called with `env_id` and self-description of an env process."""


class Executor(Protocol):
    """Carries the episodes of a run."""

    def run(self, episodes: Sequence[Episode], on_end: OnEnd) -> None:
        """Run every episode once and give each end to `on_end`.

        Args:
            episodes: In the order in which they begin, at least one.
            on_end: Called once per episode, from any thread.

        Raises:
            EvalkitError: If the run cannot go on; every lane has stopped, and its env processes have ended.
            BaseException: What `on_end` raised, or an interrupt; the same holds then.
        """
        ...
