"""A host under random clients: they ask, wait, cancel, leave, drop handles; passes and decoders fail at random.

In: a seed. Out: every request ends, rightly or with its reason, and nothing is left.
Read next: `test_serve_host.py`, one case at a time.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from evalkit.contracts.types import Prediction
from evalkit.serve.handle import Cancelled, Dropped, NotServed, Refused, TooLate
from evalkit.serve.local import PolicyHost
from evalkit.serve.scheduler import Limits
from tests.doubles.stepped import SmallJob, SmallSteps, small_request

WAIT_S = 30.0
NUM_CLIENTS, NUM_REQUESTS = 8, 40


MAY_END_AS = {"hurry": (TooLate,), "cancel": (Cancelled,), "forget": (Cancelled,)}


def is_bad(seed: int) -> bool:
    return seed % 7 == 3


class Moody(SmallSteps):
    """Raises in every pass with a bad job, and in the decoder of every eleventh."""

    def step(self, jobs: Sequence[SmallJob]) -> list[SmallJob]:
        if any(is_bad(job.request.noise_seed) for job in jobs):
            raise ValueError("bad job")
        return super().step(jobs)

    def finish(self, job: SmallJob) -> Prediction:
        if job.request.noise_seed % 11 == 5:
            raise KeyError("no decoder")
        return super().finish(job)


class Client(threading.Thread):
    """Asks in turn, and does one of many things with each handle."""

    def __init__(self, host: PolicyHost, number: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.host, self.number = host, number
        self.random, self.alone = random.Random(f"{seed} {number}"), SmallSteps(width=host.policy.width)
        self.ends: Counter[str] = Counter()
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            for idx in range(NUM_REQUESTS):
                self.ends[self.ask(1000 * self.number + idx)] += 1
        except BaseException as error:
            self.problem = error

    def ask(self, seed: int) -> str:
        """Ask once and return how it ended."""
        way = self.random.choice(["all", "all", "all", "actions", "cancel", "forget", "drop", "hurry"])
        request = small_request(seed, frames=self.random.randint(0, 2), instruction="x" * self.random.randint(1, 2))
        try:
            handle = self.host.submit(request, client=self.number, within_s=1e-4 if way == "hurry" else None)
            if way == "drop":
                return "dropped"
            if way in ("cancel", "forget"):
                time.sleep(self.random.random() * 2e-3)
                handle.cancel() if way == "cancel" else self.host.forget(self.number)
            actions = handle.actions(WAIT_S).actions
            (expected,) = self.alone.infer([request])
            assert np.array_equal(actions, expected.actions)
            if way == "actions" or not handle.has_prediction:
                return "acted"
            assert expected.prediction is not None
            assert np.array_equal(handle.prediction(WAIT_S).rgb, expected.prediction().rgb)
            return "predicted"
        except NotServed as error:
            if type(error) not in MAY_END_AS.get(way, ()) and type(error) not in (Refused, Dropped):
                raise
            return type(error).__name__
        except ValueError:
            assert is_bad(seed), seed
            return "bad"
        except KeyError:
            assert seed % 11 == 5, seed
            return "not decoded"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("width", [1, 4])
def test_random_clients_leave_nothing_behind(seed: int, width: int) -> None:
    with PolicyHost(Moody(width=width), Limits(max_jobs=12, max_jobs_per_client=4, max_uncollected=5)) as host:
        clients = [Client(host, number, seed) for number in range(NUM_CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(WAIT_S)
        assert not any(client.is_alive() for client in clients)
        assert [client.problem for client in clients] == [None] * NUM_CLIENTS
        ends = sum((client.ends for client in clients), Counter[str]())
        assert ends.total() == NUM_CLIENTS * NUM_REQUESTS
        assert {"acted", "predicted", "bad", "not decoded", "Cancelled"} <= set(ends), ends
        until_s = time.monotonic() + WAIT_S
        while host.load().under_way and time.monotonic() < until_s:
            time.sleep(0.005)
        load = host.load()
        assert (load.under_way, load.uncollected) == (0, 0)
        with pytest.raises(NotServed):
            host.submit(small_request(0), within_s=0.0).actions(WAIT_S)
