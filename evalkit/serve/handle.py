"""A submitted request, as its client sees it (`Handle`) and as its host keeps it (`Entry`).

In: a request. Out: its reply and its prediction, each when it is there; or why there is none.
Read next: `local.py`, the host.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction
from evalkit.serve.scheduler import Ticket


class NotServed(Exception):
    """A request that the host did not carry out; the message says why."""


class Refused(NotServed):
    """A limit of the host is reached."""


class TooLate(NotServed):
    """The actions could not be clean before the deadline."""


class Cancelled(NotServed):
    """The client cancelled the request, or left."""


class Dropped(NotServed):
    """The prediction was finished, and dropped because too many were not collected."""


class NoPrediction(NotServed):
    """The request asked for no prediction, or the policy gave none."""


class Closed(NotServed):
    """The host has ended."""


class Entry:
    """A request under way; the host's lock guards it."""

    def __init__(self, ticket: Ticket, request: PolicyRequest, within_s: float | None) -> None:
        self.ticket, self.request, self.within_s = ticket, request, within_s
        self.job: Any = None
        self.num_passes = 0
        self.num_waiting = 0
        self.acted: Future[PolicyReply] = Future()
        self.predicted: Future[None] = Future()
        for future in (self.acted, self.predicted):
            future.set_running_or_notify_cancel()  # only the host ends it
        self.has_prediction = False
        self.prediction: Prediction | None = None
        self.lost: NotServed | None = None
        self.timings_ms: Mapping[str, float] = {}  # never changed in place: clients read it meanwhile
        self.noted_s = ticket.turn_s

    def fail(self, error: BaseException) -> None:
        """Give the error to whoever waits."""
        for future in (self.acted, self.predicted):
            with suppress(InvalidStateError):  # it has its result
                future.set_exception(error)

    def lose(self, why: NotServed) -> None:
        """Free a prediction that was finished and not collected."""
        self.prediction, self.lost = None, why

    def spent(self, name: str, seconds: float) -> None:
        """Add to a timing."""
        self.timings_ms = {**self.timings_ms, name: self.timings_ms.get(name, 0.0) + seconds * 1e3}

    def waited(self, name: str, *worked: str) -> None:
        """Note how much of the time since the last such note the request was not worked on, as other timings tell."""
        now_s = time.monotonic()
        elapsed_ms = (now_s - self.noted_s) * 1e3
        waited_ms = max(0.0, elapsed_ms - sum(self.timings_ms.get(each, 0.0) for each in worked))
        self.timings_ms = {**self.timings_ms, name: waited_ms}
        self.noted_s = now_s


class Uncollected:
    """Finished predictions that no client has collected, oldest first; the host's lock guards them.

    Args:
        most: How many are kept; those that a client waits for at this moment do not count.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def add(self, entry: Entry) -> None:
        """Keep a prediction; drop the oldest if there are too many."""
        self._entries[entry.ticket.id] = entry
        idle = [each for each in self if not each.num_waiting]
        for oldest in idle[: max(0, len(idle) - self._most)]:
            self.discard(oldest)
            oldest.lose(
                Dropped(
                    f"The prediction was dropped: more than {self._most} finished predictions were not collected, the "
                    "limit (max_uncollected). Collect or cancel predictions, or raise the limit."
                )
            )

    def discard(self, entry: Entry) -> bool:
        """Keep a prediction no longer; return whether it was kept."""
        return self._entries.pop(entry.ticket.id, None) is not None

    def clear(self) -> None:
        """Keep none."""
        self._entries.clear()


class Owner(Protocol):
    """What a handle asks of its host."""

    def collect(self, entry: Entry, timeout_s: float | None) -> Prediction:
        """Return the prediction of a request when it is there."""
        ...

    def cancel(self, entries: Sequence[Entry], reason: str) -> None:
        """End requests."""
        ...


class Handle:
    """A submitted request. If the client drops the last reference to it, the request is cancelled.

    Attributes:
        acted: Completed with the reply as soon as the actions are clean; `asyncio.wrap_future` takes it.
        predicted: Completed as soon as `prediction` would not wait.
    """

    def __init__(self, entry: Entry, owner: Owner) -> None:
        self._entry, self._owner = entry, owner
        self.acted, self.predicted = entry.acted, entry.predicted

    @property
    def timings_ms(self) -> Mapping[str, float]:
        """Return the milliseconds so far, by name.

        With the actions: `prepare`, `passes`, and `queue` for the time in which the request waited. With the
        prediction: `video_passes`, `decode` and `video_queue`. A pass counts in full for each of its requests.
        """
        return self._entry.timings_ms

    @property
    def has_prediction(self) -> bool:
        """Return whether a prediction follows; known when the actions are clean."""
        return self._entry.has_prediction

    def actions(self, timeout_s: float | None = None) -> PolicyReply:
        """Return the reply, without its prediction, as soon as the actions are clean.

        Raises:
            NotServed: If the host did not carry the request out.
            TimeoutError: If it takes longer than `timeout_s`; the request goes on.
            Exception: What the policy raised.
        """
        return self.acted.result(timeout_s)

    def prediction(self, timeout_s: float | None = None) -> Prediction:
        """Return the prediction as soon as it is decoded; raises as `actions` does."""
        return self._owner.collect(self._entry, timeout_s)

    def cancel(self) -> None:
        """Free the work and the memory of the request; a pass that is running ends first."""
        self._owner.cancel([self._entry], "The request was cancelled.")


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a host has done and holds.

    Attributes:
        under_way: Requests that are neither answered in full nor cancelled.
        uncollected: Finished predictions that no client has collected.
        num_passes: Passes so far.
        num_rows: Rows of these passes that were not padding.
        pass_s: Measured seconds of a pass with actions, a moving average that each request refused by it lowers; 0
            before the first.
    """

    under_way: int
    uncollected: int
    num_passes: int
    num_rows: int
    pass_s: float
