"""A policy that many clients share in one process: one thread owns it, a second one decodes predictions.

In: a policy, stepped or not, and requests. Out: handles, whose actions come as soon as they are clean and whose
prediction follows.
Read next: `scheduler.py`, which decides what runs next; `handle.py`, what a client gets; `hosted.py` for the runner.

The first thread does what the scheduler decides: it prepares requests and runs passes. The second one calls `finish`,
so that no pass waits for a decoder. A policy that is not stepped runs in the first thread alone.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.stepped import Phase, SteppedPolicy
from evalkit.contracts.types import PolicyRequest, Prediction
from evalkit.serve.handle import (
    Cancelled,
    Closed,
    Entry,
    Handle,
    Load,
    NoPrediction,
    Refused,
    TooLate,
    Uncollected,
)
from evalkit.serve.scheduler import Decision, Limits, Ticket, decide
from evalkit.serve.whole import WholeJob, WholePolicy

NEWEST_PASS = 0.2
"""Weight of the newest pass with actions in the measured seconds of a pass. A request that these seconds alone make too
late lowers them by as much, so that one slow pass does not refuse requests for ever."""

CLOSE_S = 5.0
"""Seconds that `close` waits for the pass that is running; a longer one is left behind, and its result is dropped."""

ENDED = "The host of the policy has ended."


class PolicyHost(AbstractContextManager["PolicyHost"]):
    """One policy and the two threads that call it; a context manager that ends both.

    Args:
        policy: The policy; the `width` of a stepped one must not change any more.
        limits: Bounds of its memory.
    """

    def __init__(self, policy: Policy | SteppedPolicy, limits: Limits | None = None) -> None:
        self.policy: SteppedPolicy = policy if isinstance(policy, SteppedPolicy) else WholePolicy(policy)
        self.spec: PolicySpec = policy.spec
        self.limits = limits or Limits()
        guard = threading.RLock()  # of everything below
        self._changed, self._decodable = threading.Condition(guard), threading.Condition(guard)
        self._closed = False
        self._entries: dict[int, Entry] = {}  # under way
        self._uncollected = Uncollected(self.limits.max_uncollected)
        self._to_decode: deque[Entry] = deque()
        self._calls: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._running_call: Future[None] | None = None
        self._abandoned: deque[Entry] = deque()
        self._next_id = 0
        self._num_passes = self._num_rows = self._passes_without_video = 0
        self._pass_s = 0.0
        self._least_action_passes: int | None = None
        self._threads = [
            threading.Thread(target=self._guarded, args=(loop,), name=name, daemon=True)
            for name, loop in (("policy", self._run_policy), ("policy decoder", self._run_decoder))
        ]
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, request: PolicyRequest, *, client: Hashable = None, within_s: float | None = None) -> Handle:
        """Return the handle of a request.

        Args:
            request: The request.
            client: Who asks; clients take turns. The episode's id if not given.
            within_s: Seconds from now after which the actions are of no use; the request then ends as `TooLate`.

        Raises:
            Refused: If a limit is reached; it names the limit.
            Closed: If the host has ended.
        """
        client = request.episode_id if client is None else client
        with self._changed:
            self._check_open()
            self._drop_abandoned()
            of_client = sum(entry.ticket.client == client for entry in self._entries.values())
            refusal = self.limits.refusal(under_way=len(self._entries), of_client=of_client)
            if refusal is not None:
                raise Refused(refusal)
            now_s = time.monotonic()
            ticket = Ticket(
                id=self._next_id,
                client=client,
                turn_s=now_s,
                deadline_s=None if within_s is None else now_s + within_s,
                passes_to_actions=self._least_action_passes or 1,
            )
            entry = self._entries[ticket.id] = Entry(ticket, request, within_s)
            self._next_id += 1
            handle = Handle(entry, self)
            weakref.finalize(handle, self._abandoned.append, entry).atexit = False
            self._changed.notify_all()
        return handle

    def reset(self, episode_id: str, env: EnvSpec, timeout_s: float | None = None) -> None:
        """Start an episode in the policy, between two passes.

        Raises:
            TimeoutError: If it takes longer than `timeout_s`; the call goes on.
            Exception: What the policy raised.
        """
        done: Future[None] = Future()
        with self._changed:
            self._check_open()
            self._calls.append((partial(self.policy.reset, episode_id, env), done))
            self._changed.notify_all()
        done.result(timeout_s)

    def forget(self, client: Hashable) -> None:
        """Cancel all requests of a client and drop its finished predictions."""
        with self._changed:
            held = [*self._entries.values(), *self._uncollected]
            self.cancel([entry for entry in held if entry.ticket.client == client], "The client left.")

    def load(self) -> Load:
        """Return what the host has done and holds."""
        with self._changed:
            self._drop_abandoned()
            return Load(
                under_way=len(self._entries),
                uncollected=len(self._uncollected),
                num_passes=self._num_passes,
                num_rows=self._num_rows,
                pass_s=self._pass_s,
            )

    def end(self) -> None:
        """End all requests at once, without waiting for the threads."""
        self._end(Closed(ENDED))

    def close(self) -> None:
        """End all requests at once, then the threads; a call that takes longer than `CLOSE_S` is left behind."""
        self.end()
        until_s = time.monotonic() + CLOSE_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until_s - time.monotonic()))

    def collect(self, entry: Entry, timeout_s: float | None) -> Prediction:
        """Return the prediction of a request when it is there."""
        with self._changed:
            entry.num_waiting += 1
        try:
            entry.predicted.result(timeout_s)
        finally:
            with self._changed:
                entry.num_waiting -= 1
        with self._changed:
            self._uncollected.discard(entry)
            if entry.lost is not None:
                raise entry.lost
            return entry.prediction  # type: ignore[return-value]

    def cancel(self, entries: Sequence[Entry], reason: str) -> None:
        """End requests; a pass that is running ends first, and its result is dropped."""
        with self._changed:
            for entry in entries:
                self._remove(entry)
                if self._uncollected.discard(entry):
                    entry.lose(Cancelled(reason))
                entry.fail(Cancelled(reason))

    def _guarded(self, loop: Callable[[], None]) -> None:
        """Run a thread; an error that ends it ends the host, so that no client waits for ever."""
        try:
            loop()
        except BaseException as error:
            self._end(error)

    def _run_policy(self) -> None:
        for work in iter(self._next_work, None):
            work()

    def _next_work(self) -> Callable[[], None] | None:
        """Return what to do next, as soon as there is anything; None if the host has ended."""
        with self._changed:
            while not self._closed:
                self._drop_abandoned()
                if self._calls:
                    call, self._running_call = self._calls.popleft()
                    return partial(self._call, call, self._running_call)
                if self._entries and (work := self._carry_out(self._decide())) is not None:
                    return work
                self._changed.wait()
        return None

    def _decide(self) -> Decision:
        return decide(
            [entry.ticket for entry in self._entries.values() if entry.ticket.phase is not Phase.DONE],
            width=self.policy.width,
            now_s=time.monotonic(),
            pass_s=self._pass_s,
            passes_without_video=self._passes_without_video,
        )

    def _carry_out(self, decision: Decision) -> Callable[[], None] | None:
        """End requests that are too late, and return the work that was decided; None if there is none."""
        for number in decision.too_late:
            entry = self._entries[number]
            if entry.ticket.deadline_s is not None and time.monotonic() < entry.ticket.deadline_s:
                self._pass_s *= 1 - NEWEST_PASS  # without a pass nothing else would correct the measurement
            self._remove(entry)
            entry.fail(TooLate(f"The actions cannot be clean within the {entry.within_s:g} s that the client allows."))
        if decision.prepare is not None:
            return partial(self._prepare, self._entries[decision.prepare])
        if not decision.rows:
            return None
        rows = [self._entries[number] for number in decision.rows]
        waiting = any(entry.ticket.phase is Phase.VIDEO for entry in self._entries.values())
        served = any(entry.ticket.phase is Phase.VIDEO for entry in rows)
        self._passes_without_video = self._passes_without_video + 1 if waiting and not served else 0
        return partial(self._pass, rows, [entry.job for entry in rows])

    def _call(self, call: Callable[[], None], done: Future[None]) -> None:
        try:
            call()
        except BaseException as error:
            tell = partial(done.set_exception, error)
        else:
            tell = partial(done.set_result, None)
        with self._changed:
            self._running_call = None
            if not done.done():  # else the host has ended meanwhile
                tell()

    def _prepare(self, entry: Entry) -> None:
        began_s = time.monotonic()
        try:
            job = self.policy.prepare(entry.request)
            entry.spent("prepare", time.monotonic() - began_s)
            self._move_on(entry, job)
        except BaseException as error:
            self._fail(entry, error)

    def _pass(self, entries: Sequence[Entry], jobs: Sequence[Any]) -> None:
        """Run one pass; if the policy raises, repeat it one job at a time, so that only the guilty one fails."""
        began_s = time.monotonic()
        try:
            after = self.policy.step(jobs)
            if len(after) != len(jobs):
                raise RuntimeError(f"the policy's step returned {len(after)} jobs for {len(jobs)}")
        except BaseException as error:
            if len(jobs) == 1:
                self._fail(entries[0], error)
                return
            for entry, job in zip(entries, jobs, strict=True):
                self._pass([entry], [job])
            return
        self._note_pass(entries, time.monotonic() - began_s)
        for entry, before, job in zip(entries, jobs, after, strict=True):
            try:
                if job.passes_left >= before.passes_left:
                    raise RuntimeError("the policy's step did not advance a job")
                self._move_on(entry, job)
            except BaseException as error:
                self._fail(entry, error)

    def _note_pass(self, entries: Sequence[Entry], seconds: float) -> None:
        with self._changed:
            self._num_passes += 1
            self._num_rows += len(entries)
            if any(entry.ticket.for_actions for entry in entries):
                weight = NEWEST_PASS if self._pass_s else 1.0
                self._pass_s += weight * (seconds - self._pass_s)
            for entry in entries:
                entry.num_passes += 1
                entry.spent("video_passes" if entry.ticket.phase is Phase.VIDEO else "passes", seconds)

    def _move_on(self, entry: Entry, job: Any) -> None:
        """Keep a job after its preparation or a pass; give out its actions if they have just become clean."""
        phase, last = job.phase, job.passes_left == 1
        group = None if phase is Phase.DONE else job.group
        reply = None
        if phase is not Phase.ACTIONS and not entry.acted.done():
            reply = self.policy.actions(job)
        with self._changed:
            if entry.ticket.id not in self._entries:
                return  # cancelled meanwhile
            entry.job = job
            left = max(1, (self._least_action_passes or 1) - entry.num_passes) if phase is Phase.ACTIONS else 0
            entry.ticket = replace(entry.ticket, phase=phase, group=group, passes_to_actions=left, last=last)
            if reply is not None:
                self._least_action_passes = min(self._least_action_passes or entry.num_passes, entry.num_passes)
                entry.waited("queue", "prepare", "passes")
                entry.has_prediction = self._has_prediction(entry)
                self._begin_turn(entry.ticket.client)
            is_over = not entry.has_prediction and phase is not Phase.ACTIONS
            if is_over:
                self._remove(entry)
            elif phase is Phase.DONE:
                self._to_decode.append(entry)
                self._decodable.notify()
        with suppress(InvalidStateError):  # cancelled meanwhile
            if is_over:
                entry.predicted.set_exception(NoPrediction("The request asked for no prediction, or there is none."))
            if reply is not None:  # last, because whoever waits runs at once
                entry.acted.set_result(reply)

    def _begin_turn(self, client: Hashable) -> None:
        """Note that a client has got actions: its other requests count as new."""
        now_s = time.monotonic()
        for entry in self._entries.values():
            if entry.ticket.client == client and entry.ticket.for_actions:
                entry.ticket = replace(entry.ticket, turn_s=now_s)

    def _has_prediction(self, entry: Entry) -> bool:
        if isinstance(entry.job, WholeJob):
            return entry.job.predicts
        return bool(self.spec.predicts) and entry.request.num_predicted_frames > 0

    def _run_decoder(self) -> None:
        while True:
            with self._changed:
                while not self._to_decode and not self._closed:
                    self._decodable.wait()
                if self._closed:
                    return
                entry = self._to_decode.popleft()
                job = entry.job
            began_s = time.monotonic()
            try:
                prediction = self.policy.finish(job)
            except BaseException as error:
                self._fail(entry, error)
            else:
                entry.spent("decode", time.monotonic() - began_s)
                self._deliver(entry, prediction)

    def _deliver(self, entry: Entry, prediction: Prediction) -> None:
        """Give out a prediction; drop the oldest that was not collected if there are too many."""
        with self._changed:
            if entry.ticket.id not in self._entries:
                return  # cancelled meanwhile
            self._remove(entry)
            entry.waited("video_queue", "video_passes", "decode")
            entry.prediction = prediction
            self._uncollected.add(entry)
            entry.predicted.set_result(None)

    def _fail(self, entry: Entry, error: BaseException) -> None:
        with self._changed:
            self._remove(entry)
            entry.fail(error)

    def _remove(self, entry: Entry) -> None:
        """Take a request out of what is under way, and free its tensors."""
        self._entries.pop(entry.ticket.id, None)
        with suppress(ValueError):
            self._to_decode.remove(entry)
        entry.job = None

    def _drop_abandoned(self) -> None:
        """Cancel requests whose handle no longer exists; a finaliser cannot do so itself, for it may run anywhere."""
        while self._abandoned:
            self.cancel([self._abandoned.popleft()], "The client dropped its handle.")

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(ENDED)

    def _end(self, error: BaseException) -> None:
        with self._changed:
            self._closed = True
            for entry in list(self._entries.values()):
                self._remove(entry)
                entry.fail(error)
            running = [] if self._running_call is None else [self._running_call]
            for done in [*running, *(done for _, done in self._calls)]:
                if not done.done():
                    done.set_exception(error)
            self._calls.clear()
            self._uncollected.clear()
            self._changed.notify_all()
            self._decodable.notify_all()
