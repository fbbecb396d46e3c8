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
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from evalkit.contracts.errors import EpisodeFault, EvalkitError
from evalkit.contracts.msgpack_arrays import BadMessage, pack, unpack
from evalkit.contracts.requests import visible_env
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction
from evalkit.serve.connection import Address, Connection, Lost, Slow, Unreachable, connect_within
from evalkit.serve.messages import (
    KEY,
    WITHIN,
    Greeting,
    check_env,
    check_may_leave,
    env_message,
    error_of,
    message_of,
    prediction_of,
    reply_of,
)

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
    """One open connection, and who waits for which answer; a thread of its own reads."""

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
        self._waiting: dict[int, Future[Mapping[str, Any]]] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._read, name="policy client", daemon=True).start()

    def send(self, verb: str, ours: Mapping[str, Any], message: Mapping[str, Any]) -> tuple[int, Future[Any]]:
        """Send a message; return its number and the future of its answer.

        Raises:
            Lost: If the connection has ended.
            BadMessage: If it holds what does not travel.
        """
        while self.abandoned:
            with suppress(IndexError):
                self._cancel(self.abandoned.popleft())
        number, answer = next(self._numbers), Future[Mapping[str, Any]]()
        with self._lock:
            if self.ended is not None:
                raise Lost(self.ended)
            self._waiting[number] = answer
        try:
            self._connection.send(pack({KEY: {"id": number, "do": verb, **ours}, **message}))
        except BaseException:
            self.forget(number)
            raise
        return number, answer

    def forget(self, number: int) -> None:
        """Drop the answer to a message when it comes."""
        with self._lock:
            self._waiting.pop(number, None)

    def cancel(self, number: int) -> None:
        """Tell the server that nobody waits for a request any more; a lost connection has done so."""
        self.forget(number)
        with suppress(Lost):
            self._cancel(number)

    def close(self) -> None:
        """Close the connection; whoever waits gets an error."""
        self._end("the connection was closed")
        self._connection.close()

    def _cancel(self, number: int) -> None:
        self._connection.send(pack({KEY: {"id": next(self._numbers), "do": "cancel", "of": number}}))

    def _read(self) -> None:
        """Hand every answer to who waits for it, until the connection ends."""
        try:
            while True:
                data = self._connection.receive(None)
                if isinstance(data, str):
                    raise BadMessage(f"the server says: {data[:400]}")
                message = unpack(data)
                ours = message.get(KEY) if isinstance(message, Mapping) else None
                if not isinstance(ours, Mapping):
                    raise BadMessage("the server answered with something other than one of our messages")
                with self._lock:
                    answer = self._waiting.pop(ours.get("id", 0), None)
                if answer is None:
                    continue  # nobody waits any more
                if "error" in ours:
                    answer.set_exception(error_of(ours, self._url))
                else:
                    answer.set_result(message)
        except (Lost, BadMessage) as error:
            self._end(str(error))
            self._connection.close()

    def _end(self, reason: str) -> None:
        with self._lock:
            self.ended = self.ended or reason
            waiting, self._waiting = list(self._waiting.values()), {}
        for answer in waiting:
            answer.set_exception(Lost(reason))


class ServedHandle:
    """A request that was sent. If the last reference to it is dropped, the server drops what it still computes."""

    def __init__(self, policy: ServedPolicy, link: _Link, number: int, answer: Future[Any]) -> None:
        self._policy, self._link, self._number, self._answer = policy, link, number, answer
        self._started = time.perf_counter()
        self._timings_ms: dict[str, float] = {}
        self._cancel = weakref.finalize(self, link.abandoned.append, number)
        self._cancel.atexit = False

    def actions(self, timeout_s: float | None = None) -> PolicyReply:
        """Return the reply as soon as the actions are clean; its prediction is fetched when it is called.

        Args:
            timeout_s: Time limit; the policy's own if not given.

        Raises:
            EpisodeFault: Blames the policy: what it raised, or no reply in time.
            EvalkitError: What the policy refused.
        """
        message = self._policy.answer(self._answer, timeout_s, self.cancel)
        both_ms = (time.perf_counter() - self._started) * 1e3
        try:
            reply = reply_of(message)
        except BadMessage as error:
            raise self._policy.fault(error) from error
        self._timings_ms = dict(reply.timings_ms)
        server_ms = self._timings_ms.pop("infer_ms", 0.0)
        self._timings_ms |= {"wire": max(0.0, both_ms - server_ms), "server": server_ms}
        follows = message[KEY].get("prediction") is True
        if not follows:
            self._cancel.detach()
        return replace(reply, timings_ms=self._timings_ms, prediction=self.prediction if follows else None)

    def prediction(self, timeout_s: float | None = None) -> Prediction:
        """Return the prediction as soon as it is finished, and add its timings to the reply's; raises as `actions`."""
        self._cancel.detach()
        try:
            _, answer = self._link.send("prediction", {"of": self._number}, {})
        except Lost as error:
            raise self._policy.fault(error) from error
        message = self._policy.answer(answer, timeout_s, self.cancel)
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
        link = self._connected()
        try:
            _, answer = link.send("reset", {"episode": episode_id, "env": env_message(env)}, {})
        except (Lost, BadMessage) as error:
            raise self.fault(error) from error
        self.answer(answer, None, link.close)
        self._links[episode_id] = link
        while len(self._links) > MAX_EPISODES:
            self._links.pop(next(iter(self._links)), None)

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
            number, answer = link.send("infer", {}, message)
        except (Lost, BadMessage) as error:
            raise self.fault(error) from error
        return ServedHandle(self, link, number, answer)

    def answer(self, answer: Future[Any], timeout_s: float | None, on_timeout: Any) -> Mapping[str, Any]:
        """Return an answer.

        Args:
            answer: Its future.
            timeout_s: Time limit; the policy's own if None.
            on_timeout: Called when the limit is reached.

        Raises:
            EpisodeFault: Blames the policy; retriable if the server may be there again.
            EvalkitError: What the policy refused.
        """
        limit_s = self._limits.reply_s if timeout_s is None else timeout_s
        try:
            return answer.result(limit_s)  # type: ignore[no-any-return]
        except TimeoutError as error:
            on_timeout()
            raise self.fault(Slow(f"no reply within {limit_s:g} s")) from error
        except Lost as error:
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
