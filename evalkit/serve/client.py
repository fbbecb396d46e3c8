"""A policy that a server of ours holds: on this machine, behind a Unix socket, or on another machine.

In: the address of a server, requests. Out: the replies that the policy would give in process, to the bit.
Read next: `messages.py`, what is sent; `server.py`, the other end.

Any number of threads may ask at once over the one connection: the server decides what runs together.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from evalkit.contracts.errors import EpisodeFault, EvalkitError
from evalkit.contracts.msgpack_arrays import BadMessage, pack, unpack
from evalkit.contracts.requests import visible_env
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction
from evalkit.serve.connection import Address, Connection, Lost, Slow, Unreachable, connect_within
from evalkit.serve.greeting import KEY, Greeting, check_env, check_may_leave
from evalkit.serve.messages import WITHIN, env_message, error_of, message_of, prediction_of, reply_of

MAX_EPISODES = 1024
"""Episodes of which the connection is known; the oldest are forgotten."""


@dataclass(frozen=True, kw_only=True)
class TimeLimits:
    """Time limits of a client.

    Attributes:
        connect_s: To connect, with repeated attempts.
        reply_s: From a message to its answer: actions, a prediction, the start of an episode.
    """

    connect_s: float = 30.0
    reply_s: float = 300.0


class _Link:
    """One open connection. Whoever waits for an answer reads, and puts the answers of others where they find them."""

    def __init__(self, address: Address, limits: TimeLimits) -> None:
        """Raise Unreachable, Lost, Slow or BadMessage if no server of ours answers."""
        self._connection = connect_within(address, limits.connect_s)
        self._url = address.url
        try:
            greeting = read_greeting(self._connection, limits.reply_s)
            if greeting is None:
                raise BadMessage("the server there is another program; `--policy remote` with an adapter evaluates it")
        except BaseException:
            self._connection.close()
            raise
        self.greeting = greeting
        self.ended: str | None = None
        self.abandoned: deque[int] = deque()
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()  # guards what is below
        self._is_read = False
        self._answers: dict[int, Mapping[str, Any] | None] = {}  # None while they are awaited

    def send(self, verb: str, ours: Mapping[str, Any], message: Mapping[str, Any]) -> int:
        """Send a message and return its number, with which `wait` returns its answer.

        Raises:
            Lost: If the connection has ended.
            BadMessage: If it holds what does not travel.
        """
        while self.abandoned:
            with suppress(IndexError):
                self.cancel(self.abandoned.popleft())
        number = next(self._numbers)
        data = pack({KEY: {"id": number, "do": verb, **ours}, **message})
        with self._changed:
            if self.ended is not None:
                raise Lost(self.ended)
            self._answers[number] = None
        try:
            self._connection.send(data)
        except Lost as error:
            self._end(str(error))
            raise
        return number

    def wait(self, number: int, limit_s: float) -> Mapping[str, Any]:
        """Return the answer to a message.

        Raises:
            Slow: If the limit is reached; the answer is dropped when it comes.
            Lost: If the connection ends first.
            BadMessage: If the server breaks the form.
            EpisodeFault, EvalkitError: What the server answered with.
        """
        deadline = time.monotonic() + limit_s
        try:
            while (answer := self._turn(number, deadline) or self._read(number, deadline)) is None:
                pass
        finally:
            with self._changed:
                self._answers.pop(number, None)
        if "error" in answer[KEY]:
            raise error_of(answer[KEY], self._url)
        return answer

    def cancel(self, number: int) -> None:
        """Let the server drop a request; a lost connection has done so."""
        with suppress(Lost):
            self._connection.send(pack({KEY: {"do": "cancel", "of": number}}))

    def close(self) -> None:
        """Close the connection; whoever waits gets an error."""
        self._end("the connection was closed")

    def _turn(self, number: int, deadline: float) -> Mapping[str, Any] | None:
        """Return an answer that has come; None if it is this thread's turn to read."""
        with self._changed:
            while (answer := self._answers[number]) is None:
                if self.ended is not None:
                    raise Lost(self.ended)
                if not self._is_read:
                    self._is_read = True
                    return None
                if not self._changed.wait(deadline - time.monotonic()):
                    raise Slow("no reply in time")
            return answer

    def _read(self, number: int, deadline: float) -> Mapping[str, Any] | None:
        """Read one answer: return it if it has this number, keep it for who waits for it otherwise."""
        answer, other = None, None
        try:
            answer = self._next(deadline)
            other = answer[KEY].get("id")
        except (Lost, BadMessage) as error:
            self._end(str(error))
            raise
        finally:
            with self._changed:
                self._is_read = False
                if other in self._answers:
                    self._answers[other] = answer
                self._changed.notify_all()
        return answer if other == number else None

    def _next(self, deadline: float) -> Mapping[str, Any]:
        data = self._connection.receive(max(0.0, deadline - time.monotonic()))
        if isinstance(data, str):
            raise BadMessage(f"the server says: {data[:400]}")
        message = unpack(data)
        if not isinstance(message, dict) or not isinstance(message.get(KEY), dict):
            raise BadMessage("the server answered with something other than one of our messages")
        return message

    def _end(self, reason: str) -> None:
        with self._changed:
            self.ended = self.ended or reason
            self._changed.notify_all()
        self._connection.close()


class ServedHandle:
    """A request that was sent. If the last reference to it is dropped, the server drops what it still computes."""

    def __init__(self, policy: ServedPolicy, link: _Link, number: int) -> None:
        self._policy, self._link, self._number = policy, link, number
        self._started = time.perf_counter()
        self._timings_ms: dict[str, float] = {}
        self._acting = threading.Lock()
        self._reply: PolicyReply | None = None  # without `prediction`: a cycle would keep a dropped handle alive
        self._error: EpisodeFault | EvalkitError | None = None
        self._follows = False
        self._cancel = weakref.finalize(self, link.abandoned.append, number)
        self._cancel.atexit = False

    def actions(self, timeout_s: float | None = None) -> PolicyReply:
        """Return the reply as soon as the actions are clean; its prediction is fetched when it is called.

        Called again, or by several threads, it returns or raises the same; the first call sets the time limit.

        Args:
            timeout_s: Time limit; the policy's own if not given.

        Raises:
            EpisodeFault: Blames the policy: what it raised, or no reply in time.
            EvalkitError: What the policy refused.
        """
        with self._acting:
            if self._error is not None:
                raise self._error
            try:
                self._reply = self._reply or self._received(timeout_s)
            except (EpisodeFault, EvalkitError) as error:
                self._error = error
                raise
            return replace(self._reply, prediction=self.prediction if self._follows else None)

    def _received(self, timeout_s: float | None) -> PolicyReply:
        """Return the reply when it comes, without its prediction; raises as `actions`."""
        message = self._policy.answer(self._link, self._number, timeout_s, self.cancel)
        both_ms = (time.perf_counter() - self._started) * 1e3
        try:
            reply = reply_of(message)
        except BadMessage as error:
            raise self._policy.fault(error) from error
        self._timings_ms = dict(reply.timings_ms)
        server_ms = self._timings_ms.pop("infer_ms", 0.0)
        self._timings_ms |= {"wire": max(0.0, both_ms - server_ms), "server": server_ms}
        self._follows = message[KEY].get("prediction") is True
        if not self._follows:
            self._cancel.detach()
        return replace(reply, timings_ms=self._timings_ms)

    def prediction(self, timeout_s: float | None = None) -> Prediction:
        """Return the prediction as soon as it is finished, and add its timings to the reply's; raises as `actions`."""
        self._cancel.detach()
        try:
            number = self._link.send("prediction", {"of": self._number}, {})
        except Lost as error:
            raise self._policy.fault(error) from error
        message = self._policy.answer(self._link, number, timeout_s, self.cancel)
        self._timings_ms |= message[KEY].get("timings_ms", {})
        return prediction_of(message)

    def cancel(self) -> None:
        """Tell the server to drop the request."""
        self._cancel.detach()
        self._link.cancel(self._number)


class ServedPolicy:
    """A policy on a server of ours; satisfies `evalkit.contracts.policy.Policy`.

    Attributes:
        spec: The policy's spec, as the server states it.
        greeting: All that the server states.
        url: Its address.
        reconnections: Connections that were opened after the first one.
    """

    def __init__(self, address: Address, limits: TimeLimits | None = None) -> None:
        """Connect.

        Raises:
            EvalkitError: If no server of ours answers, or it asks for what must not cross a network.
        """
        self.url = address.url
        self._limits = limits or TimeLimits()
        self._address = replace(address, timeout_s=self._limits.connect_s, send_timeout_s=self._limits.reply_s)
        self._lock = threading.Lock()
        self._links: dict[str, _Link] = {}
        self.reconnections = 0
        try:
            self._link = _Link(self._address, self._limits)
        except (Unreachable, Lost, Slow, BadMessage) as error:
            raise EvalkitError(f"No policy server of evalkit answers at {self.url}: {error}.") from error
        self.greeting = self._link.greeting
        self.spec: PolicySpec = self.greeting.spec
        self._private = self.greeting.private and address.unix_path is not None
        if not self._private:
            check_may_leave(self.spec, self.spec.policy_id)

    def __enter__(self) -> ServedPolicy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the server frees what it holds for it."""
        self._link.close()

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Start an episode; connect again if the connection has ended.

        Raises:
            SpecMismatch: If the env is not one of the policy's.
            EpisodeFault: Blames the policy: the server does not answer, or the policy raised an error.
        """
        env = visible_env(env, self.spec)
        check_env(env, self.spec)
        try:
            link = self._begun(episode_id, env)
        except (Lost, Slow, BadMessage) as error:
            raise self.fault(error) from error
        self._links[episode_id] = link
        while len(self._links) > MAX_EPISODES:
            self._links.pop(next(iter(self._links)), None)

    def _begun(self, episode_id: str, env: EnvSpec) -> _Link:
        """Return the connection on which an episode has begun; another one if the first had ended unnoticed."""
        body = {"episode": episode_id, "env": env_message(env)}
        for is_last in (False, True):
            link = self._connected()
            try:
                link.wait(link.send("reset", body, {}), self._limits.reply_s)
                return link
            except Slow as error:
                link.close()  # whether it began is not known
                raise Slow(f"no reply within {self._limits.reply_s:g} s") from error
            except Lost:
                if is_last:
                    raise
        raise AssertionError("unreachable")

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply per request, in order; the server has all of them before the first is answered."""
        handles = [self.submit(request) for request in requests]
        return [handle.actions() for handle in handles]

    def submit(self, request: PolicyRequest, *, client: object = None, within_s: float | None = None) -> ServedHandle:
        """Return the handle of a request; the arguments are those of `PolicyHost.submit`.

        Raises:
            EpisodeFault: Blames the policy: the connection on which the episode began has ended.
        """
        link = self._links.get(request.episode_id)
        if link is None:
            raise EpisodeFault("policy", "An episode must be reset before its first request.")
        message = message_of(request, private=self._private)
        if within_s is not None:
            message[WITHIN] = within_s * 1e3
        try:
            number = link.send("infer", {}, message)
        except (Lost, BadMessage) as error:
            raise self.fault(error) from error
        return ServedHandle(self, link, number)

    def answer(
        self, link: _Link, number: int, timeout_s: float | None, on_timeout: Callable[[], None]
    ) -> Mapping[str, Any]:
        """Return an answer.

        Args:
            link: The connection over which it comes.
            number: That of its message.
            timeout_s: Time limit; the policy's own if None.
            on_timeout: Called when the limit is reached.

        Raises:
            EpisodeFault: Blames the policy; retriable if the server may be there again.
            EvalkitError: What the policy refused.
        """
        limit_s = self._limits.reply_s if timeout_s is None else timeout_s
        try:
            return link.wait(number, limit_s)
        except Slow as error:
            on_timeout()
            raise self.fault(Slow(f"no reply within {limit_s:g} s")) from error
        except (Lost, BadMessage) as error:
            raise self.fault(error) from error

    def fault(self, error: Exception) -> EpisodeFault:
        """Return the fault of the policy that an error of the connection is."""
        if isinstance(error, BadMessage):
            return EpisodeFault("policy", f"What was sent to or by the server at {self.url} is no message: {error}.")
        said = str(error).rstrip(".")
        return EpisodeFault("policy", f"The server at {self.url} gave no reply: {said}.", retriable=True)

    def _connected(self) -> _Link:
        """Return the connection; open another one if it has ended.

        Raises:
            EpisodeFault: If the server does not answer, or serves another policy now.
        """
        with self._lock:
            if self._link.ended is None:
                return self._link
            try:
                link = _Link(self._address, self._limits)
            except (Unreachable, Lost, Slow, BadMessage) as error:
                raise self.fault(error) from error
            if link.greeting != self.greeting:
                link.close()
                raise EvalkitError(
                    f"The server at {self.url} serves another policy now: {link.greeting.spec.policy_id} with other "
                    f"facts than {self.spec.policy_id} at the start; begin another run for it."
                )
            self._link = link
            self.reconnections += 1
            return link


def read_greeting(connection: Connection, limit_s: float) -> Greeting | None:
    """Return what a server of ours says first on a new connection; None if another one answers.

    Raises:
        BadMessage: If it speaks another version.
        Lost: If the connection ends first.
        Slow: If nothing comes in time.
    """
    data = connection.receive(limit_s)
    if isinstance(data, str):
        return None
    try:
        metadata = unpack(data)
    except BadMessage:
        return None
    return Greeting.from_wire(metadata)
