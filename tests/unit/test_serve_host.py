"""The host of a policy: order of work, equality with `infer`, faults, cancellation, limits, end.

In: the small stepped policy and policies that answer in one call. Out: checks of handles.
Read next: `evalkit/serve/local.py`.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evalkit.contracts.errors import EpisodeFault
from evalkit.contracts.stepped import Phase
from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction
from evalkit.serve.handle import Cancelled, Closed, Dropped, NoPrediction, Refused, TooLate
from evalkit.serve.hosted import HostedPolicy
from evalkit.serve.local import PolicyHost
from evalkit.serve.scheduler import Limits
from tests.doubles.stepped import NUM_ACTION_PASSES, NUM_PASSES, SPEC, SmallJob, SmallSteps, small_request

WAIT_S = 20.0
"""Longest wait for anything here; nothing takes this long unless it hangs."""


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


class Gate:
    """Holds passes up until it is opened, so that a test decides what arrives meanwhile."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, jobs: Sequence[SmallJob]) -> None:
        self.entered.set()
        assert self.opened.wait(WAIT_S)


class Whole:
    """A policy that answers in one call: the small one, of which only `infer` can be called."""

    def __init__(self, policy: SmallSteps) -> None:
        self.spec, self.reset, self.infer = policy.spec, policy.reset, policy.infer


def equal(one: Prediction, other: Prediction) -> bool:
    assert one.proprio is not None
    assert other.proprio is not None
    return np.array_equal(one.rgb, other.rgb) and np.array_equal(one.proprio, other.proprio)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_results_equal_those_of_infer(num_threads: int, width: int, whole: bool) -> None:
    alone = SmallSteps(width=width)
    with PolicyHost(Whole(SmallSteps(width=width)) if whole else SmallSteps(width=width)) as host:
        hosted, problems = HostedPolicy(host), list[BaseException]()

        def work(first: int) -> None:
            try:
                for seed in range(first, 24, num_threads):
                    request = small_request(seed, frames=seed % 3, instruction="push" * (1 + seed % 2))
                    (reply,), (expected,) = hosted.infer([request]), alone.infer([request])
                    assert np.array_equal(reply.actions, expected.actions)
                    assert (reply.prediction is None) == (expected.prediction is None)
                    if reply.prediction and expected.prediction:
                        assert equal(reply.prediction(), expected.prediction())
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=work, args=(first,)) for first in range(num_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert problems == []
        assert host.load().under_way == 0


def test_requests_share_passes_and_actions_go_first() -> None:
    gate = Gate()
    policy = SmallSteps(width=2, fault=gate)
    with PolicyHost(policy) as host:
        first = host.submit(small_request(0))
        gate.entered.wait(WAIT_S)
        others = [host.submit(small_request(seed)) for seed in (1, 2)]
        gate.opened.set()
        for handle in (first, *others):
            assert handle.prediction(WAIT_S) is not None
    phases = [[phase for _, phase in one] for one in policy.passes]
    videos_began = next(idx for idx, one in enumerate(phases) if Phase.VIDEO in one)
    acting = [idx for idx, one in enumerate(phases) if Phase.ACTIONS in one]
    assert policy.passes[1] == [(0, Phase.ACTIONS), (1, Phase.ACTIONS)]
    assert all(one[0] is Phase.ACTIONS for one in phases[: max(acting) + 1])
    assert videos_began <= max(acting)  # it filled a row
    assert len(policy.passes) < 3 * NUM_PASSES


def test_actions_leave_before_their_video() -> None:
    policy = SmallSteps(pass_s=0.02)
    with PolicyHost(policy) as host:
        handle = host.submit(small_request(0))
        handle.actions(WAIT_S)
        assert len(policy.passes) < NUM_PASSES
        handle.prediction(WAIT_S)
        assert handle.prediction(WAIT_S) is handle.prediction(WAIT_S)


def test_decoding_holds_up_no_pass() -> None:
    policy = SmallSteps(finish_s=1.0)
    with PolicyHost(policy) as host:
        video = host.submit(small_request(0))
        video.actions(WAIT_S)
        until(lambda: len(policy.passes) == NUM_PASSES)
        began = time.monotonic()
        host.submit(small_request(1, frames=0)).actions(WAIT_S)
        assert time.monotonic() - began < 0.5
        assert policy.finished == []


def test_only_asked_frames_are_decoded() -> None:
    policy = SmallSteps()
    with PolicyHost(policy) as host:
        one = host.submit(small_request(0, frames=1))
        assert one.prediction(WAIT_S).rgb.shape[0] == 1
        none = host.submit(small_request(1, frames=0))
        none.actions(WAIT_S)
        assert not none.has_prediction
        with pytest.raises(NoPrediction, match="asked for no prediction"):
            none.prediction(WAIT_S)
    assert policy.finished == [0]


def raising(seed: int) -> Callable[[Sequence[SmallJob]], None]:
    """Return a fault: passes with this job raise."""

    def fault(jobs: Sequence[SmallJob]) -> None:
        if any(job.request.noise_seed == seed for job in jobs):
            raise ValueError(f"job {seed} is bad")

    return fault


def test_a_pass_that_raises_fails_the_guilty_job_alone() -> None:
    policy, alone = SmallSteps(width=4), SmallSteps(width=4)
    gate, fault = Gate(), raising(2)
    policy.fault = gate
    with PolicyHost(policy) as host:
        handles = [host.submit(small_request(0))]
        gate.entered.wait(WAIT_S)
        handles += [host.submit(small_request(seed)) for seed in (1, 2, 3)]
        policy.fault = fault
        gate.opened.set()
        with pytest.raises(ValueError, match="job 2 is bad"):
            handles[2].actions(WAIT_S)
        with pytest.raises(ValueError, match="job 2 is bad"):
            handles[2].prediction(WAIT_S)
        for seed in (0, 1, 3):
            (expected,) = alone.infer([small_request(seed)])
            assert np.array_equal(handles[seed].actions(WAIT_S).actions, expected.actions)
            assert expected.prediction is not None
            assert equal(handles[seed].prediction(WAIT_S), expected.prediction())


class Odd(SmallSteps):
    """Returns what no contract allows."""

    kind = ""

    def prepare(self, request: PolicyRequest) -> SmallJob:
        if self.kind == "prepare":
            raise ValueError("no such prompt")
        return super().prepare(request)

    def step(self, jobs: Sequence[SmallJob]) -> Any:
        after = super().step(jobs)
        return {"none": None, "fewer": after[1:], "still": list(jobs)}.get(self.kind, after)

    def actions(self, job: SmallJob) -> PolicyReply:
        if self.kind == "actions":
            raise ValueError("no actions")
        return super().actions(job)

    def finish(self, job: SmallJob) -> Prediction:
        if self.kind == "finish":
            raise ValueError("no decoder")
        return super().finish(job)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "has no len"),
        ("fewer", "returned 0 jobs for 1"),
        ("still", "did not advance a job"),
        ("prepare", "no such prompt"),
        ("actions", "no actions"),
        ("finish", "no decoder"),
    ],
)
def test_a_broken_policy_fails_its_request_and_no_other(kind: str, message: str) -> None:
    policy = Odd()
    with PolicyHost(policy) as host:
        policy.kind = kind
        with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
            host.submit(small_request(0)).prediction(WAIT_S)
        policy.kind = ""
        assert host.submit(small_request(1)).prediction(WAIT_S) is not None
        assert host.load().under_way == 0


def test_a_reply_of_another_kind_blames_the_policy() -> None:
    policy = Whole(SmallSteps())
    policy.infer = lambda requests: None  # type: ignore[assignment,return-value]
    with PolicyHost(policy) as host, pytest.raises(EpisodeFault, match="a list of one reply"):
        host.submit(small_request(0)).actions(WAIT_S)


@pytest.mark.parametrize("way", ["cancel", "forget", "drop"])
def test_a_client_that_leaves_frees_its_work(way: str) -> None:
    policy = SmallSteps(pass_s=0.05)
    with PolicyHost(policy) as host:
        handle: Any = host.submit(small_request(0), client="leaver")
        handle.actions(WAIT_S)
        began = len(policy.passes)
        if way == "cancel":
            handle.cancel()
        elif way == "forget":
            host.forget("leaver")
        if way == "drop":
            handle = None
            gc.collect()
        else:
            with pytest.raises(Cancelled):
                handle.prediction(WAIT_S)
        until(lambda: host.load().under_way == 0)
        assert len(policy.passes) <= began + 1
        host.submit(small_request(1)).actions(WAIT_S)
    assert policy.finished == []


def test_a_cancelled_request_is_not_prepared() -> None:
    gate = Gate()
    policy = SmallSteps(width=1, fault=gate)
    with PolicyHost(policy) as host:
        first = host.submit(small_request(0, frames=0))
        gate.entered.wait(WAIT_S)
        second = host.submit(small_request(1))
        second.cancel()
        gate.opened.set()
        first.actions(WAIT_S)
        with pytest.raises(Cancelled, match="was cancelled"):
            second.actions(WAIT_S)
    assert {seed for one in policy.passes for seed, _ in one} == {0}


def test_limits_refuse_with_their_name() -> None:
    gate = Gate()
    limits = Limits(max_jobs=3, max_jobs_per_client=2)
    with PolicyHost(SmallSteps(fault=gate), limits) as host:
        kept = [host.submit(small_request(seed), client="a") for seed in range(2)]
        with pytest.raises(Refused, match="max_jobs_per_client"):
            host.submit(small_request(2), client="a")
        kept.append(host.submit(small_request(2), client="b"))
        with pytest.raises(Refused, match=r"3 requests are under way, the limit \(max_jobs\)"):
            host.submit(small_request(3), client="c")
        gate.opened.set()
        for handle in kept:
            handle.prediction(WAIT_S)
        host.submit(small_request(3), client="c").actions(WAIT_S)


def test_the_oldest_uncollected_prediction_is_dropped() -> None:
    with PolicyHost(SmallSteps(), Limits(max_uncollected=2)) as host:
        handles = []
        for seed in range(4):
            handles.append(host.submit(small_request(seed)))
            handles[-1].predicted.result(WAIT_S)
        assert host.load().uncollected == 2
        for dropped in handles[:2]:
            with pytest.raises(Dropped, match="max_uncollected"):
                dropped.prediction(WAIT_S)
        assert all(handle.prediction(WAIT_S) is not None for handle in handles[2:])
        assert host.load().uncollected == 0


def test_a_deadline_that_cannot_be_met_ends_the_request() -> None:
    policy = SmallSteps(pass_s=0.05)
    with PolicyHost(policy) as host:
        host.submit(small_request(0, frames=0)).actions(WAIT_S)
        late = host.submit(small_request(1), within_s=0.06)
        with pytest.raises(TooLate, match=r"within the 0\.06 s"):
            late.actions(WAIT_S)
        host.submit(small_request(2), within_s=WAIT_S).actions(WAIT_S)
    assert {seed for one in policy.passes for seed, _ in one} == {0, 2}


def test_one_slow_pass_does_not_refuse_for_ever() -> None:
    policy = SmallSteps(pass_s=0.5)
    with PolicyHost(policy) as host:
        host.submit(small_request(0, frames=0)).actions(WAIT_S)
        policy.pass_s = 0.0
        late = host.submit(small_request(1, frames=0), within_s=0.3)
        with pytest.raises(TooLate):
            late.actions(WAIT_S)
        for seed in range(2, 12):
            last = host.submit(small_request(seed, frames=0), within_s=0.3)
            error = last.acted.exception(WAIT_S)
    assert error is None


def test_slow_videos_make_no_actions_too_late() -> None:
    policy = SmallSteps()
    policy.fault = lambda jobs: time.sleep(0.2 if jobs[0].phase is Phase.VIDEO else 0.0)
    with PolicyHost(policy) as host:
        host.submit(small_request(0)).prediction(WAIT_S)
        host.submit(small_request(1, frames=0), within_s=0.3).actions(WAIT_S)


def test_closing_ends_waiting_clients_at_once() -> None:
    gate = Gate()
    host = PolicyHost(SmallSteps(fault=gate))
    handle = host.submit(small_request(0))
    gate.entered.wait(WAIT_S)
    threading.Timer(0.1, host.end).start()
    with pytest.raises(Closed, match="has ended"):
        handle.actions(WAIT_S)
    gate.opened.set()
    host.close()
    with pytest.raises(Closed):
        host.submit(small_request(1))
    with pytest.raises(Closed):
        host.reset("episode", None)  # type: ignore[arg-type]
    assert not any(thread.is_alive() for thread in host._threads)


def test_closing_ends_a_reset_that_hangs() -> None:
    entered, leave = threading.Event(), threading.Event()
    policy = SmallSteps()

    def hang(episode_id: str, env: object) -> None:
        entered.set()
        leave.wait(WAIT_S)

    policy.reset = hang  # type: ignore[assignment,method-assign]
    with PolicyHost(policy) as host:

        def end() -> None:
            assert entered.wait(WAIT_S)
            host.end()

        waiting = threading.Thread(target=end)
        waiting.start()
        with pytest.raises(Closed, match="has ended"):
            host.reset("episode", None)  # type: ignore[arg-type]
        leave.set()
        waiting.join(WAIT_S)


def test_reset_runs_between_passes_and_raises_here() -> None:
    policy = SmallSteps()
    with PolicyHost(policy) as host:
        host.reset("one", None)  # type: ignore[arg-type]
        assert policy.resets == ["one"]
        policy.reset = lambda episode_id, env: 1 / 0  # type: ignore[assignment,method-assign,misc,return-value]
        with pytest.raises(ZeroDivisionError):
            host.reset("two", None)  # type: ignore[arg-type]
        host.submit(small_request(0)).actions(WAIT_S)


def test_timings_say_what_waited_and_what_worked() -> None:
    with PolicyHost(SmallSteps(width=1, pass_s=0.02, finish_s=0.05)) as host:
        policy = HostedPolicy(host)
        (reply,) = policy.infer([small_request(0)])
        assert {"own", "queue", "prepare", "passes"} <= set(reply.timings_ms)
        assert reply.prediction is not None
        reply.prediction()
        timings = dict(reply.timings_ms)
        assert {"video_passes", "video_queue", "decode"} <= set(timings)
        assert timings["passes"] >= 20 * NUM_ACTION_PASSES
        assert timings["video_passes"] >= 20 * (NUM_PASSES - NUM_ACTION_PASSES)
        assert timings["decode"] >= 50


def test_waiting_for_another_client_counts_as_queue() -> None:
    gate = Gate()
    with PolicyHost(SmallSteps(width=1, fault=gate)) as host:
        first = host.submit(small_request(0, frames=0))
        gate.entered.wait(WAIT_S)
        second = host.submit(small_request(1, frames=0))
        time.sleep(0.1)
        gate.opened.set()
        first.actions(WAIT_S)
        second.actions(WAIT_S)
        assert second.timings_ms["queue"] >= 100
        assert first.timings_ms["queue"] < 100


def test_load_counts_rows() -> None:
    with PolicyHost(SmallSteps()) as host:
        host.submit(small_request(0)).prediction(WAIT_S)
        load = host.load()
    assert (load.num_passes, load.num_rows, load.under_way) == (NUM_PASSES, NUM_PASSES, 0)
    assert replace(SPEC) == host.spec
