"""Figures of serving: 16 simulated clients that act while their videos finish, served in three ways.

In: X-WAM at nano size (the shipped weights) and at width 512 (random ones). Out: `action_p50_vs_request_batching` and
others, each a ratio of two ways measured in turn in one run.
Read next: `evalkit/serve/local.py`, the way that is measured; docs/serving.md, what the figures mean.

A client asks, executes the chunk for as long as the robot needs, and asks again when it has the video too. The ways:

- one at a time: a whole request, video included, under one lock (the released server of X-WAM, the runner before);
- request batching: up to `WIDTH` waiting requests in lockstep, and all replies at the end of the batch, decoding
  included (openpi's `infer`, vla-eval's batching server); no timer: a batch begins with whoever waits;
- by step: `PolicyHost`.

All ways call the same policy code. The two that batch have passes of the same width.
"""

from __future__ import annotations

import queue
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import count
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from evalkit.contracts.stepped import Phase, SteppedPolicy
from evalkit.contracts.types import PolicyRequest
from evalkit.serve.local import PolicyHost
from tests.bench.figure import Figure
from tests.doubles.xwam import request_of
from xwam.checkpoints.fresh import fresh_bundle
from xwam.config import NANO
from xwam.flow.sampler import Schedule
from xwam.policy import XwamPlugin, XwamPolicy, XwamPolicyConfig
from xwam.serving.engine import Engine

NUM_CLIENTS, WIDTH = 16, 4
CHUNK_S = 8 / 20
"""Seconds in which a robot at 20 Hz executes 8 actions."""

NUM_FRAMES = 2
"""Frames of the video that 8 executed actions reach, as the runner asks for them."""

DEADLINE_S = 0.3


class Reply(NamedTuple):
    """When a request had its actions and its video, seconds on the clock of `time.monotonic`."""

    acted_s: float
    predicted: Callable[[], object]


class Server(Protocol):
    """A way of serving: returns when the actions are there; `predicted` returns when the video is."""

    def __call__(self, request: PolicyRequest) -> Reply:
        """Serve a request."""
        ...


@contextmanager
def one_at_a_time(policy: SteppedPolicy) -> Any:
    """Serve a whole request at a time, its video included."""
    lock = threading.Lock()

    def serve(request: PolicyRequest) -> Reply:
        with lock:
            (reply,) = policy.infer([request])
            assert reply.prediction is not None
            reply.prediction()
        return Reply(time.monotonic(), lambda: None)

    yield serve


@contextmanager
def request_batching(policy: SteppedPolicy) -> Any:
    """Serve up to `width` requests in lockstep; all of them get their replies together."""
    waiting: queue.SimpleQueue[tuple[PolicyRequest, threading.Event] | None] = queue.SimpleQueue()

    def run() -> None:
        while (first := waiting.get()) is not None:
            batch = [first]
            while len(batch) < policy.width and not waiting.empty():
                other = waiting.get()
                if other is None:
                    return
                batch.append(other)
            jobs = [policy.prepare(request) for request, _ in batch]
            while jobs[0].phase is not Phase.DONE:
                jobs = policy.step(jobs)
            for job in jobs:
                policy.actions(job)
                policy.finish(job)
            for _, done in batch:
                done.set()

    def serve(request: PolicyRequest) -> Reply:
        done = threading.Event()
        waiting.put((request, done))
        done.wait()
        return Reply(time.monotonic(), lambda: None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield serve
    waiting.put(None)
    thread.join()


@contextmanager
def by_step(policy: SteppedPolicy) -> Any:
    """Serve through a host: actions leave when they are clean, videos follow."""
    with PolicyHost(policy) as host:

        def serve(request: PolicyRequest) -> Reply:
            handle = host.submit(request)
            handle.actions()
            return Reply(time.monotonic(), handle.prediction)

        yield serve


@dataclass
class Served:
    """What the clients of one way got while it was measured.

    Attributes:
        action_s: Seconds from request to actions.
        num_done: Requests whose actions and video were there.
        seconds: Time in which they were.
    """

    action_s: list[float] = field(default_factory=list)
    num_done: int = 0
    seconds: float = 0.0

    def quantile_s(self, share: float) -> float:
        """Return a quantile of the time to actions."""
        return float(np.quantile(self.action_s, share))

    @property
    def per_s(self) -> float:
        """Return finished requests per second."""
        return self.num_done / self.seconds

    @property
    def in_time_per_s(self) -> float:
        """Return actions within the deadline per second; one in the whole time where there was none."""
        return max(1, sum(each <= DEADLINE_S for each in self.action_s)) / self.seconds


def serve_clients(
    serving: AbstractContextManager[Server],
    requests: Sequence[PolicyRequest],
    *,
    warm_up_s: float,
    seconds: float,
    chunk_s: float = CHUNK_S,
) -> Served:
    """Return what clients got, one client for each request; they begin spread over one chunk."""
    served, lock = Served(seconds=seconds), threading.Lock()
    begun_s = time.monotonic() + warm_up_s
    end_s = begun_s + seconds

    def client(number: int, request: PolicyRequest, serve: Server) -> None:
        time.sleep(chunk_s * number / len(requests))
        for chunk_idx in count():
            asked_s = time.monotonic()
            if asked_s > end_s:
                return
            seed = request.noise_seed + 1000 * chunk_idx
            acted_s, predicted = serve(replace(request, noise_seed=seed, chunk_idx=chunk_idx))
            predicted()
            done_s = time.monotonic()
            with lock:
                if begun_s <= acted_s <= end_s:
                    served.action_s.append(acted_s - asked_s)
                served.num_done += begun_s <= done_s <= end_s
            time.sleep(max(0.0, acted_s + chunk_s - done_s))

    with serving as serve:
        clients = [
            threading.Thread(target=client, args=(number, request, serve)) for number, request in enumerate(requests)
        ]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
    return served


def nano(width: int) -> SteppedPolicy:
    """Return the shipped nano model."""
    plugin = XwamPlugin()
    return plugin.make(XwamPolicyConfig(checkpoint="nano", width=width))


def mid(width: int) -> SteppedPolicy:
    """Return a model of width 512 with 12 blocks and random weights, for the images of nano."""
    network = replace(NANO.network, width=512, ffn_width=2048, num_heads=4, num_blocks=12, num_depth_blocks=4)
    bundle = fresh_bundle(replace(NANO, network=network), seed=0)
    spec = XwamPlugin().spec(XwamPolicyConfig(checkpoint="random-nano"))
    return XwamPolicy(spec, Engine(bundle, Schedule(num_video_steps=5, num_action_steps=2), width=width))


class Way(NamedTuple):
    """A way of serving and the width of its passes."""

    serve: Callable[[SteppedPolicy], AbstractContextManager[Server]]
    width: int


WAYS = {
    "one at a time": Way(one_at_a_time, 1),
    "request batching": Way(request_batching, WIDTH),
    "by step": Way(by_step, WIDTH),
}


class Size(NamedTuple):
    """A model and how long it is measured."""

    policy_of: Callable[[int], SteppedPolicy]
    rounds: int
    warm_up_s: float
    seconds: float


SIZES = {"": Size(nano, 3, 2.0, 8.0), "_mid": Size(mid, 1, 20.0, 60.0)}


@cache
def measured(size: str) -> dict[str, list[Served]]:
    """Serve in all three ways in turn, as often as the size says, and return what the clients got by way."""
    policy_of, rounds, warm_up_s, seconds = SIZES[size]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        policies = {width: policy_of(width) for width in (1, WIDTH)}
        requests = [request_of(seed, num_predicted_frames=NUM_FRAMES) for seed in range(NUM_CLIENTS)]
        requests = [replace(each, episode=None, episode_id=f"client {idx}") for idx, each in enumerate(requests)]
        served: dict[str, list[Served]] = {name: [] for name in WAYS}
        for round_idx in range(rounds):
            for name in WAYS if round_idx % 2 == 0 else reversed(WAYS):
                way = WAYS[name]
                serving = way.serve(policies[way.width])
                served[name].append(serve_clients(serving, requests, warm_up_s=warm_up_s, seconds=seconds))
    finally:
        torch.set_num_threads(threads)
    return served


class Measure(NamedTuple):
    """How a figure is made of what clients got."""

    of: Callable[[Served], float]
    unit: str
    goal: str
    compared_with: str = "request batching"


MEASURES = {
    "action_p50_vs_request_batching": Measure(lambda served: served.quantile_s(0.5), "s", "<= 0.30"),
    "action_p99_vs_request_batching": Measure(lambda served: served.quantile_s(0.99), "s", "<= 0.50"),
    "throughput_vs_request_batching": Measure(lambda served: served.per_s, "requests/s", ">= 0.95"),
    "throughput_vs_one_at_a_time": Measure(lambda served: served.per_s, "requests/s", ">= 1.50", "one at a time"),
    "goodput_vs_request_batching": Measure(lambda served: served.in_time_per_s, "actions/s", ">= 2.00"),
}


def figure(name: str, size: str) -> Figure:
    """Return the median of the rounds' ratios of serving by step to another way."""
    measure, served = MEASURES[name], measured(size)
    sides = {way: [measure.of(each) for each in served[way]] for way in ("by step", measure.compared_with)}
    ours, theirs = sides.values()
    return Figure(
        name=name + size,
        value=statistics.median(one / other for one, other in zip(ours, theirs, strict=True)),
        unit=f"by step / {measure.compared_with}, {NUM_CLIENTS} clients, passes of {WIDTH} rows",
        goal=measure.goal,
        sides={way: statistics.median(values) for way, values in sides.items()},
        side_unit=measure.unit,
    )


OF_MID = ("action_p50_vs_request_batching", "action_p99_vs_request_batching", "throughput_vs_request_batching")
FIGURES: dict[str, Callable[[], Figure]] = {name: partial(figure, name, "") for name in MEASURES}
FIGURES |= {f"{name}_mid": partial(figure, name, "_mid") for name in OF_MID}
