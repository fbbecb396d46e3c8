"""The scheduler: tables of single decisions, and properties of whole simulated schedules.

In: tickets. Out: checks of decisions.
Read next: `evalkit/serve/scheduler.py`, whose rules are tested here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.contracts.stepped import Phase
from evalkit.serve.scheduler import VIDEO_EVERY, Decision, Limits, Ticket, decide

ACTIONS, VIDEO = Phase.ACTIONS, Phase.VIDEO


def ticket(number: int, phase: Phase | None = ACTIONS, client: str = "", **fields: object) -> Ticket:
    """Return a ticket that arrived at `number` seconds, by default of a client of its own."""
    known = {"turn_s": float(number), "group": "g", "passes_to_actions": int(phase is not VIDEO)}
    return Ticket(id=number, client=client or f"client {number}", phase=phase, **(known | fields))  # type: ignore[arg-type]


def rows(*tickets: Ticket, width: int = 2, now_s: float = 0.0, **state: float) -> tuple[int, ...]:
    """Return the rows of the next pass."""
    return decide(tickets, width=width, now_s=now_s, **state).rows  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tickets", "width", "expected"),
    [
        ([], 4, ()),
        ([ticket(1, VIDEO), ticket(2)], 1, (2,)),  # actions first
        ([ticket(1, VIDEO), ticket(2)], 4, (2, 1)),  # videos fill
        ([ticket(1), ticket(2), ticket(3)], 2, (1, 2)),  # first come
        ([ticket(1), ticket(2, deadline_s=3.0)], 1, (2,)),  # earliest deadline
        ([ticket(1), ticket(2, deadline_s=50.0)], 1, (1,)),  # a late deadline waits for older requests
        ([ticket(1, client="a"), ticket(2, client="a"), ticket(3, client="b")], 2, (1, 3)),  # in turn
        ([ticket(1), ticket(2, group="h"), ticket(3)], 3, (1, 3)),  # one group
        ([ticket(1, group="h"), ticket(2, VIDEO), ticket(3, VIDEO, group="h")], 3, (1, 3)),
        ([ticket(3, VIDEO), ticket(1, VIDEO), ticket(2, VIDEO)], 2, (1, 2)),  # videos in order of arrival
    ],
)
def test_rows_of_the_next_pass(tickets: list[Ticket], width: int, expected: tuple[int, ...]) -> None:
    assert rows(*tickets, width=width) == expected


def test_a_video_that_waited_gets_one_row() -> None:
    waiting = [ticket(1), ticket(2), ticket(3, VIDEO), ticket(4, VIDEO)]
    assert rows(*waiting, passes_without_video=VIDEO_EVERY - 1) == (1, 2)
    assert rows(*waiting, passes_without_video=VIDEO_EVERY) == (3, 1)
    assert rows(*waiting, width=1, passes_without_video=VIDEO_EVERY) == (3,)


def test_last_passes_of_videos_go_together() -> None:
    one, two = ticket(1, VIDEO, last=True), ticket(2, VIDEO, last=True)
    three, four, action = ticket(3, VIDEO), ticket(4, VIDEO), ticket(5)
    assert rows(one, three, four) == (3, 4)
    assert rows(one, two, three, four) == (1, 2)
    assert rows(one, three) == (3, 1)
    assert rows(one, three, four, action) == (5, 1)
    assert rows(one, three, four, action, width=3) == (5, 3, 4)
    assert rows(one, two, three, four, passes_without_video=VIDEO_EVERY) == (1, 2)
    assert rows(one, three, two, action, width=3, passes_without_video=VIDEO_EVERY) == (1, 5, 2)


def test_a_request_is_prepared_when_its_turn_comes() -> None:
    new = ticket(3, None)
    assert decide([ticket(1), ticket(2), new], width=2, now_s=0) == Decision(rows=(1, 2))
    assert decide([ticket(1), new], width=2, now_s=0) == Decision(prepare=3)
    assert decide([ticket(1), ticket(2), replace(new, deadline_s=4.0)], width=2, now_s=0) == Decision(prepare=3)
    assert decide([ticket(1, VIDEO), new], width=1, now_s=0) == Decision(prepare=3)


def test_what_cannot_be_in_time_is_too_late() -> None:
    tight = ticket(1, deadline_s=1.0, passes_to_actions=3)
    assert decide([tight], width=1, now_s=0.0, pass_s=0.3) == Decision(rows=(1,))
    assert decide([tight, ticket(2)], width=1, now_s=0.0, pass_s=0.4) == Decision(too_late=(1,), rows=(2,))
    clean = ticket(1, VIDEO, deadline_s=1.0)
    assert decide([clean], width=1, now_s=9.0, pass_s=0.4) == Decision(rows=(1,))


def test_limits_name_themselves() -> None:
    limits = Limits(max_jobs=3, max_jobs_per_client=2)
    assert limits.refusal(under_way=2, of_client=1) is None
    assert "3 requests are under way, the limit (max_jobs)" in str(limits.refusal(under_way=3, of_client=0))
    assert "2 requests of this client" in str(limits.refusal(under_way=2, of_client=2))
    assert "(max_jobs_per_client)" in str(limits.refusal(under_way=2, of_client=2))


@dataclass(frozen=True)
class Plan:
    """A request of a simulated client: when it comes, whose it is, and how many passes it needs."""

    at_pass: int
    client: int
    group: int
    action_passes: int
    video_passes: int


PLANS = st.lists(
    st.builds(
        Plan,
        at_pass=st.integers(0, 30),
        client=st.integers(0, 3),
        group=st.integers(0, 2),
        action_passes=st.integers(1, 4),
        video_passes=st.integers(0, 5),
    ),
    max_size=20,
)


@dataclass
class Pass:
    """One pass of a simulated schedule."""

    rows: list[Ticket]
    waiting: list[Ticket]


def begin_turn(known: dict[int, Ticket], client: object, now: int) -> None:
    """Let the waiting requests of a client that has got actions count as new, as the host does."""
    for other in known.values():
        if other.client == client and other.for_actions:
            known[other.id] = replace(other, turn_s=float(now))


def simulate(plans: Sequence[Plan], width: int) -> list[Pass]:
    """Return the passes until all requests are done; a pass takes one second."""
    left = [plan.action_passes + plan.video_passes for plan in plans]
    known: dict[int, Ticket] = {}
    passes: list[Pass] = []
    without_video = 0
    while any(left):
        now = len(passes)
        for number, plan in enumerate(plans):
            if plan.at_pass <= now and number not in known:
                known[number] = Ticket(id=number, client=plan.client, turn_s=float(plan.at_pass))
        waiting = [each for each in known.values() if left[each.id]]
        decision = decide(waiting, width=width, now_s=now, pass_s=1.0, passes_without_video=without_video)
        assert decision.too_late == ()
        if decision.prepare is not None:
            known[decision.prepare] = replace(
                known[decision.prepare], phase=ACTIONS, group=plans[decision.prepare].group
            )
            continue
        chosen = [known[number] for number in decision.rows]
        passes.append(Pass(chosen, waiting))
        assert bool(chosen) == bool(waiting), "work was left although there is some"
        videos = [each for each in waiting if each.phase is VIDEO]
        without_video = without_video + 1 if videos and not any(each.phase is VIDEO for each in chosen) else 0
        for each in chosen:
            left[each.id] -= 1
            if left[each.id] <= plans[each.id].video_passes:
                known[each.id] = replace(each, phase=VIDEO, passes_to_actions=0, last=left[each.id] == 1)
            if left[each.id] == plans[each.id].video_passes:
                begin_turn(known, each.client, now + 1)
    return passes


@given(PLANS, st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_every_request_ends_and_no_pass_is_too_wide(plans: list[Plan], width: int) -> None:
    passes = simulate(plans, width)
    done = [each.id for one in passes for each in one.rows]
    for number, plan in enumerate(plans):
        assert done.count(number) == plan.action_passes + plan.video_passes
    for one in passes:
        assert len(one.rows) <= width
        assert len({each.id for each in one.rows}) == len(one.rows)
        assert len({each.group for each in one.rows}) <= 1


@given(PLANS, st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_a_video_takes_no_row_of_an_action(plans: list[Plan], width: int) -> None:
    """Except one row after `VIDEO_EVERY` passes without a video."""
    since_owed = VIDEO_EVERY
    for one in simulate(plans, width):
        group = one.rows[0].group if one.rows else None
        could = {each.id for each in one.waiting if each.phase is ACTIONS and each.group == group}
        left_out = could - {each.id for each in one.rows}
        videos = [each for each in one.rows if each.phase is VIDEO]
        acting = any(each.phase is ACTIONS for each in one.waiting)
        if acting and (left_out or not could) and videos:
            assert len(videos) == 1 or not could
            assert since_owed >= VIDEO_EVERY
            since_owed = 0
        elif not videos:
            since_owed += 1


@given(PLANS, st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_no_video_waits_longer_than_its_share(plans: list[Plan], width: int) -> None:
    """Between two passes with a video there are at most `VIDEO_EVERY` without one while one waits."""
    without = 0
    for one in simulate(plans, width):
        videos = [each for each in one.waiting if each.phase is VIDEO]
        without = without + 1 if videos and not any(each.phase is VIDEO for each in one.rows) else 0
        assert without <= VIDEO_EVERY


@given(st.integers(1, 4), st.integers(2, 6), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_a_client_that_floods_does_not_delay_another(width: int, flood: int, passes: int) -> None:
    """The other client waits for one request of the flood at most."""
    plans = [Plan(0, 0, 0, passes, 0) for _ in range(flood * width)] + [Plan(0, 1, 0, passes, 0)]
    schedule = simulate(plans, width)
    last = max(idx for idx, one in enumerate(schedule) if any(each.client == 1 for each in one.rows))
    assert last < (passes if width > 1 else 2 * passes)
