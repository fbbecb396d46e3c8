"""What scheduling by step gives 16 clients, simulated with stated costs: the same on a busy machine as on an idle one.

In: milliseconds of CPU time of each part of a request, as measured. Out: checks of latency and throughput.
Read next: `tests/bench/serving.py`, which measures the same with the real model.
"""

from __future__ import annotations

import heapq
import statistics
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pytest

from evalkit.contracts.stepped import Phase
from evalkit.serve.scheduler import Ticket, decide

NUM_CLIENTS, WIDTH, CHUNK_MS = 16, 4, 400.0


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Milliseconds of each part, with passes of `WIDTH` rows, and numbers of passes."""

    prepare: float
    a_pass: float
    depth_pass: float
    decode: float
    action_passes: int
    passes: int


NANO = Costs(prepare=1.9, a_pass=45.8, depth_pass=54.0, decode=47.2, action_passes=2, passes=3)
MID = Costs(prepare=2.2, a_pass=416.0, depth_pass=504.0, decode=17.0, action_passes=2, passes=5)


class Served(NamedTuple):
    """Median and longest time to actions, ms, and finished requests per second."""

    p50_ms: float
    longest_ms: float
    per_s: float


def summary(action_ms: list[tuple[float, float]], done_ms: list[float], until_ms: float) -> Served:
    """Return what clients got in the second half of the time."""
    waits = [wait for at, wait in action_ms if at > until_ms / 2]
    done = sum(until_ms / 2 < at <= until_ms for at in done_ms)
    return Served(statistics.median(waits), max(waits), done / (until_ms / 2e3))


def request_batching(costs: Costs, until_ms: float) -> Served:
    """Serve up to `WIDTH` requests in lockstep, decoding included."""
    now = 0.0
    asking = [(CHUNK_MS * client / NUM_CLIENTS, client) for client in range(NUM_CLIENTS)]
    action_ms, done_ms = list[tuple[float, float]](), list[float]()
    while now < until_ms:
        now = max(now, asking[0][0])
        batch = list[tuple[float, int]]()
        while asking and len(batch) < WIDTH and asking[0][0] <= now:
            batch.append(heapq.heappop(asking))
        now += (costs.passes - 1) * costs.a_pass + costs.depth_pass + len(batch) * (costs.prepare + costs.decode)
        for asked, client in batch:
            action_ms.append((now, now - asked))
            done_ms.append(now)
            heapq.heappush(asking, (now + CHUNK_MS, client))
    return summary(action_ms, done_ms, until_ms)


@dataclass
class ByStep:
    """A host in simulated time: passes on one core, decoding on another, or on the same if there is only one."""

    costs: Costs
    one_core: bool = False
    now: float = 0.0
    decoder_free: float = 0.0
    tickets: dict[int, Ticket] = field(default_factory=dict)
    asked: dict[int, float] = field(default_factory=dict)
    acted: dict[int, float] = field(default_factory=dict)
    passes: dict[int, int] = field(default_factory=dict)
    without_video: int = 0
    action_ms: list[tuple[float, float]] = field(default_factory=list)
    done_ms: list[float] = field(default_factory=list)

    def run(self, until_ms: float) -> Served:
        """Serve until the time."""
        self.asking = [(CHUNK_MS * client / NUM_CLIENTS, client) for client in range(NUM_CLIENTS)]
        while self.now < until_ms:
            self.arrive()
            if self.tickets:
                self.work()
            else:
                self.now = self.asking[0][0]
        return summary(self.action_ms, self.done_ms, until_ms)

    def arrive(self) -> None:
        while self.asking and self.asking[0][0] <= self.now:
            at, client = heapq.heappop(self.asking)
            number = len(self.asked)
            self.tickets[number] = Ticket(id=number, client=client, turn_s=at / 1e3)
            self.asked[number], self.passes[number] = at, 0

    def work(self) -> None:
        tickets = list(self.tickets.values())
        decision = decide(tickets, width=WIDTH, now_s=self.now / 1e3, passes_without_video=self.without_video)
        if decision.prepare is not None:
            self.now += self.costs.prepare
            self.tickets[decision.prepare] = replace(self.tickets[decision.prepare], phase=Phase.ACTIONS)
            return
        rows = [self.tickets[number] for number in decision.rows]
        waits = any(each.phase is Phase.VIDEO for each in tickets)
        self.without_video = (
            self.without_video + 1 if waits and not any(each.phase is Phase.VIDEO for each in rows) else 0
        )
        self.now += self.costs.depth_pass if any(each.last for each in rows) else self.costs.a_pass
        for row in rows:
            self.advance(row)

    def advance(self, ticket: Ticket) -> None:
        number = ticket.id
        self.passes[number] += 1
        if self.passes[number] == self.costs.action_passes:
            self.acted[number] = self.now
            self.action_ms.append((self.now, self.now - self.asked[number]))
        if self.passes[number] == self.costs.passes:
            self.decode(self.tickets.pop(number))
        elif self.passes[number] >= self.costs.action_passes:
            last = self.passes[number] == self.costs.passes - 1
            self.tickets[number] = replace(ticket, phase=Phase.VIDEO, last=last)

    def decode(self, ticket: Ticket) -> None:
        if self.one_core:
            self.now += self.costs.decode
            done = self.now
        else:
            done = self.decoder_free = max(self.decoder_free, self.now) + self.costs.decode
        self.done_ms.append(done)
        heapq.heappush(self.asking, (max(done, self.acted[ticket.id] + CHUNK_MS), int(str(ticket.client))))


@pytest.mark.parametrize(
    ("costs", "one_core", "throughput"),
    [(NANO, False, 1.5), (NANO, True, 0.95), (MID, False, 1.0), (MID, True, 1.0)],
    ids=["nano", "nano on one core", "mid", "mid on one core"],
)
def test_actions_leave_early_at_no_cost(costs: Costs, one_core: bool, throughput: float) -> None:
    until_ms = 400 * costs.a_pass
    batched, by_step = request_batching(costs, until_ms), ByStep(costs, one_core).run(until_ms)
    assert by_step.p50_ms <= 0.3 * batched.p50_ms
    assert by_step.longest_ms <= 0.5 * batched.longest_ms
    assert by_step.per_s >= throughput * batched.per_s, (by_step, batched)


def test_actions_take_a_few_passes_whatever_videos_wait() -> None:
    for costs in (NANO, MID):
        by_step = ByStep(costs).run(400 * costs.a_pass)
        assert by_step.longest_ms <= 2 * (costs.action_passes + 1) * costs.depth_pass
