"""Which requests share the next forward pass: a pure function of what is under way.

In: tickets (one per request under way), the width of a pass, the time and the measured seconds of a pass. Out: the
requests whose deadline cannot be met, and the next work: prepare one request, or one pass of some requests.
Read next: `local.py`, which carries the decisions out; `evalkit/contracts/stepped.py` for phases and groups.

The rules, in this order:

1. A request whose actions cannot be clean before its deadline is too late.
2. Actions first. Clients take turns: the first request of every client goes before the second of any, and the second
   counts as new when the first has its actions. Among those the earliest deadline goes first; a request without one has
   that of `PATIENCE_S` after its turn began.
3. The first request decides the group of the pass. Other requests of that group fill it up to the width: actions, then
   videos in order of arrival. Rows that stay free are padding, so a video in them delays no action.
4. Last passes of videos go together: they wait until they fill the free rows or no other video does. X-WAM predicts
   depth in a video's last pass, and computes it for all rows if one of them is such a pass.
5. After `VIDEO_EVERY` passes without a video although one waits, the next pass has one: the first video takes a row.
6. A request is encoded ("prepared") only when it is among the next `width` actions, so that arrivals do not hold up
   requests before them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from evalkit.contracts.stepped import Phase

PATIENCE_S = 10.0
"""A request without a deadline counts as if it had one this long after its turn began. So no request waits for ever
behind those with deadlines: later ones have later deadlines."""

VIDEO_EVERY = 8
"""Passes of actions alone after which a waiting video gets a row: with width W it costs actions 1 of 8 W rows."""


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A request under way, as the scheduler sees it.

    Attributes:
        id: Its number; a later request has a larger one.
        client: Who asked.
        turn_s: When its turn began: its arrival, or later the time at which its client's previous actions became clean.
        phase: What its next pass is for; None if it is not prepared yet.
        group: What requests must have in common to share a pass; None if it is not prepared yet.
        passes_to_actions: The least number of passes until its actions are clean; 0 if they are.
        deadline_s: When its actions must be clean; None if late actions are of use too.
        last: Whether its next pass is its last one.
    """

    id: int
    client: Hashable
    turn_s: float
    phase: Phase | None = None
    group: Hashable = None
    passes_to_actions: int = 1
    deadline_s: float | None = None
    last: bool = False

    @property
    def for_actions(self) -> bool:
        """Return whether the client still waits for actions."""
        return self.phase in (None, Phase.ACTIONS)

    @property
    def due_s(self) -> float:
        """Return the deadline, or the one that stands in for it; videos have none."""
        if self.deadline_s is None or not self.for_actions:
            return self.turn_s + PATIENCE_S
        return self.deadline_s


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do next.

    Attributes:
        too_late: Requests whose deadline cannot be met; they are neither prepared nor run.
        prepare: The request to prepare now; None if there is none, and then `rows` is the next pass.
        rows: The requests of the next pass, 1 to the width, of one group; empty if there is nothing to run.
    """

    too_late: tuple[int, ...] = ()
    prepare: int | None = None
    rows: tuple[int, ...] = ()


def decide(
    tickets: Iterable[Ticket], *, width: int, now_s: float, pass_s: float = 0.0, passes_without_video: int = 0
) -> Decision:
    """Return the next work.

    Args:
        tickets: Requests under way that need a pass; none that is done.
        width: Rows of a pass.
        now_s: The time, on the clock of the tickets.
        pass_s: Measured seconds of a pass; 0 if none was measured.
        passes_without_video: Passes in a row, up to now, that held no video although one was waiting.

    Example:
        >>> video = Ticket(id=1, client="a", turn_s=0.0, phase=Phase.VIDEO, passes_to_actions=0)
        >>> action = Ticket(id=2, client="b", turn_s=1.0, phase=Phase.ACTIONS)
        >>> decide([video, action], width=1, now_s=1.0).rows, decide([video, action], width=4, now_s=1.0).rows
        ((2,), (2, 1))
    """
    tickets = list(tickets)
    if len(tickets) == 1:
        return _alone(tickets[0], now_s, pass_s)
    late = [each for each in tickets if each.for_actions and _is_late(each, now_s, pass_s)]
    too_late = tuple(each.id for each in late)
    actions = _in_turn(each for each in tickets if each.for_actions and each.id not in too_late)
    videos = _in_turn(each for each in tickets if not each.for_actions)
    new = next((each.id for each in actions[:width] if each.phase is None), None)
    if new is not None:
        return Decision(too_late=too_late, prepare=new)
    owed = videos[:1] if passes_without_video >= VIDEO_EVERY else []
    prepared = [each for each in actions if each.phase is not None]
    return Decision(too_late=too_late, rows=_rows(owed, prepared, videos, width))


def _alone(ticket: Ticket, now_s: float, pass_s: float) -> Decision:
    """Return the next work for a single request; the general rules give the same and take longer."""
    if ticket.for_actions and _is_late(ticket, now_s, pass_s):
        return Decision(too_late=(ticket.id,))
    return Decision(prepare=ticket.id) if ticket.phase is None else Decision(rows=(ticket.id,))


def _rows(owed: list[Ticket], actions: list[Ticket], videos: list[Ticket], width: int) -> tuple[int, ...]:
    """Return the rows of the next pass: an owed video, then actions, then videos, all of the group of the first."""
    if not (in_order := [*owed, *actions, *videos]):
        return ()
    group = in_order[0].group
    first = [each for each in (*owed, *actions) if each.group == group]
    fill = [each for each in videos if each.group == group and each not in owed]
    last, other = [each for each in fill if each.last], [each for each in fill if not each.last]
    together = any(each.last for each in owed) or len(last) >= width - len(first)
    rows = [*first, *last, *other] if together else [*first, *other, *last]
    return tuple(each.id for each in rows[:width])


def _is_late(ticket: Ticket, now_s: float, pass_s: float) -> bool:
    return ticket.deadline_s is not None and now_s + ticket.passes_to_actions * pass_s > ticket.deadline_s


def _in_turn(tickets: Iterable[Ticket]) -> list[Ticket]:
    """Return tickets in the order of service: the first of every client, then the second of every client, and so on."""
    by_time = sorted(tickets, key=lambda each: (each.due_s, each.id))
    seen: Counter[Hashable] = Counter()
    turns: list[tuple[int, int]] = []
    for place, each in enumerate(by_time):
        turns.append((seen[each.client], place))
        seen[each.client] += 1
    return [by_time[place] for _, place in sorted(turns)]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of the memory of a host.

    Attributes:
        max_jobs: Requests under way: submitted, and neither answered in full nor cancelled.
        max_jobs_per_client: Those of one client.
        max_uncollected: Finished predictions that no client has collected; the oldest is dropped.
    """

    max_jobs: int = 64
    max_jobs_per_client: int = 8
    max_uncollected: int = 64

    def refusal(self, *, under_way: int, of_client: int) -> str | None:
        """Return why one more request is refused; None if it is admitted.

        Example:
            >>> Limits(max_jobs=2).refusal(under_way=2, of_client=0)
            'Refused: 2 requests are under way, the limit (max_jobs). Ask again later, or raise the limit.'
        """
        for count, limit, name, whose in (
            (under_way, self.max_jobs, "max_jobs", ""),
            (of_client, self.max_jobs_per_client, "max_jobs_per_client", " of this client"),
        ):
            if count >= limit:
                return (
                    f"Refused: {count} requests{whose} are under way, the limit ({name}). "
                    "Ask again later, or raise the limit."
                )
        return None
