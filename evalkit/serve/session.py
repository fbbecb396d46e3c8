"""One connection to a policy server: plain observations in order, and our messages in any order.

In: a websocket, a host that answers requests. Out: replies; when the peer leaves, its work is cancelled.
Read next: `messages.py` for the messages; `server.py`, which accepts connections.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from evalkit.contracts.errors import EpisodeFault, EvalkitError, describe
from evalkit.contracts.msgpack_arrays import BadMessage, Limits, pack, unpack
from evalkit.contracts.requests import seed_of
from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import PolicyReply, PolicyRequest
from evalkit.serve.episodes import ClientEpisodes, EpisodeIds, ServedEpisode
from evalkit.serve.handle import Handle, NotServed, Refused
from evalkit.serve.local import PolicyHost
from evalkit.serve.messages import (
    KEY,
    Greeting,
    check_env,
    env_of,
    error_message,
    prediction_message,
    reply_message,
    request_of,
    typed,
    within_s_of,
)

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection


@dataclass(frozen=True, kw_only=True)
class ClientLimits:
    """Bounds of one client.

    Attributes:
        message: Of its messages.
        jobs: Messages that are being answered at a time.
        predictions: Predictions that it has asked for and not fetched.
        send_timeout_s: How long it may take to read a reply.
    """

    message: Limits = field(default_factory=lambda: Limits(num_bytes=32 * 2**20))
    jobs: int = 64
    predictions: int = 64
    send_timeout_s: float = 30.0


@dataclass
class Traffic:
    """What a server has answered.

    Attributes:
        clients: Connections that are open.
        requests: Requests for actions so far.
        waiting: Requests for actions that wait for theirs.
        refused: Messages that were answered with an error.
    """

    clients: int = 0
    requests: int = 0
    waiting: int = 0
    refused: int = 0


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What the connections of a server have in common."""

    host: PolicyHost
    greeting: Greeting
    limits: ClientLimits
    ids: EpisodeIds = field(default_factory=EpisodeIds)
    traffic: Traffic = field(default_factory=Traffic)


class Session:
    """One client."""

    def __init__(self, connection: ServerConnection, shared: Shared) -> None:
        self._connection, self._shared = connection, shared
        self._spec, self._private = shared.greeting.spec, shared.greeting.private
        self._episodes = ClientEpisodes(shared.ids)
        self._handles: dict[int, Handle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: asyncio.Task[None]

    async def run(self) -> None:
        """Answer until the peer leaves; raises ConnectionClosed if it leaves without a word."""
        self._leaving = asyncio.create_task(self._free_when_closed())
        try:
            await self._send(self._shared.greeting.to_wire())
            async for data in self._connection:
                if not await self._answer(data):
                    break
        finally:
            for task in (self._leaving, *self._tasks):
                task.cancel()
            self._shared.host.forget(self)
            self._episodes.forget_all()

    async def _free_when_closed(self) -> None:
        """Cancel the work of a peer that leaves while its plain request is answered and nothing is read."""
        await self._connection.wait_closed()
        self._shared.host.forget(self)

    async def _answer(self, data: bytes | str) -> bool:
        """Answer a message, or begin to; return whether the connection can go on."""
        try:
            if isinstance(data, str):
                raise BadMessage("a text frame is refused; send msgpack in a binary frame")
            message = unpack(data, limits=self._shared.limits.message)
            if not isinstance(message, Mapping):
                raise BadMessage(f"a message must be a dict, got {type(message).__name__}")
        except BadMessage as error:
            await self._refuse(error)
            await self._connection.close(1007, "This was no message; the text frame before says why.")
            return False
        ours = message.get(KEY)
        if ours is None:
            await self._plain(message)
        elif isinstance(ours, Mapping) and ours.get("do") == "cancel":
            self._cancel(ours.get("of"))
        elif not isinstance(ours, Mapping) or type(ours.get("id")) is not int:
            await self._refuse(BadMessage(f"'{KEY}' must be a dict with a whole number 'id'"))
        elif len(self._tasks) >= self._shared.limits.jobs:
            most = self._shared.limits.jobs
            busy = EpisodeFault("policy", f"{most} messages wait for their answers, which is the most", retriable=True)
            await self._send({KEY: {"id": ours["id"], **error_message(busy)}})
        else:
            task = asyncio.create_task(self._ours(message, ours))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    # ---- openpi's dialect

    async def _plain(self, message: Mapping[str, Any]) -> None:
        """Answer an observation; an error is a text frame."""
        try:
            if message.get("endpoint") == "reset":  # vLLM-Omni's addition
                self._episodes.forget("")
                await self._send({"status": "reset successful"})
                return
            if message.get("num_predicted_frames"):
                raise BadMessage(f"num_predicted_frames needs our messages (the key '{KEY}'); leave it out")
            await self._send((await self._inferred(await self._numbered(message)))[0])
        except Exception as error:
            await self._refuse(error)

    async def _numbered(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return a plain message with the episode, number and seed that it leaves out; the first begins the episode.

        The seed is the hash of the number alone, so that a client that sends none gets the same actions again.
        """
        name = message.get("episode_id", "")
        episode = self._episodes.get(name) or await self._begin(name, env_of(message, self._spec))
        chunk_idx = episode.num_requests
        steps = chunk_idx * self._spec.execute_steps
        given = {"episode_id": name, "chunk_idx": chunk_idx, "step_idx": steps, "noise_seed": seed_of(chunk_idx)}
        return {**given, **message}

    # ---- our messages

    async def _ours(self, message: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        """Answer one of our messages; an error has the number of its message."""
        number = ours["id"]
        try:
            verb = self._verbs().get(str(ours.get("do")))
            if verb is None:
                raise BadMessage(
                    f"'do' must be one of {', '.join(self._verbs())}, cancel, got {str(ours.get('do'))[:40]}"
                )
            answer = await verb(message, ours)
            answer[KEY] = {"id": number, **answer.get(KEY, {})}
            await self._send(answer)
        except Exception as error:
            self._shared.traffic.refused += 1
            with suppress(Exception):  # the peer is gone
                await self._send({KEY: {"id": number, **error_message(_fault_of(error))}})

    def _verbs(self) -> dict[str, Callable[..., Any]]:
        return {"reset": self._reset, "infer": self._infer, "prediction": self._prediction}

    async def _reset(self, message: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
        env = typed(EnvSpec, ours.get("env"), "the env's spec of a reset")
        check_env(env, self._spec)
        await self._begin(ours.get("episode"), env)
        return {}

    async def _infer(self, message: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
        if len(self._handles) >= self._shared.limits.predictions:
            raise BadMessage(f"{len(self._handles)} predictions wait to be fetched or cancelled, which is the most")
        answer, details = await self._inferred(message, number=ours["id"])
        answer[KEY] = {"details": details, "prediction": ours["id"] in self._handles}
        return answer

    async def _prediction(self, message: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
        handle = self._handle_of(ours)
        try:
            await asyncio.wrap_future(handle.predicted)
            message = prediction_message(handle.prediction(timeout_s=0))
            return {**message, KEY: {"timings_ms": dict(handle.timings_ms)}}
        finally:
            self._handles.pop(ours["of"], None)

    def _cancel(self, number: object) -> None:
        """Drop a request, which may be answered already; nothing is said about it."""
        if isinstance(number, int) and (handle := self._handles.pop(number, None)) is not None:
            handle.cancel()

    def _handle_of(self, ours: Mapping[str, Any]) -> Handle:
        number = ours.get("of")
        if type(number) is not int or number not in self._handles:
            raise BadMessage(f"no prediction waits under the number {str(number)[:40]}")
        return self._handles[number]

    # ---- both

    async def _begin(self, name: object, env: EnvSpec) -> ServedEpisode:
        """Return a new episode of the policy; a peer that leaves meanwhile is not waited for."""
        episode = self._episodes.begin(name, env)
        try:
            starting = asyncio.create_task(asyncio.to_thread(self._shared.host.reset, episode.id, env))
            done, _ = await asyncio.wait({starting, self._leaving}, return_when=asyncio.FIRST_COMPLETED)
            if starting not in done:
                raise EpisodeFault("policy", "The client left.")
            starting.result()
        except BaseException:
            self._episodes.forget(str(name))
            raise
        return episode

    async def _inferred(
        self, message: Mapping[str, Any], *, number: int | None = None
    ) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """Return the answer to a request and the reply's details; keep its handle if a prediction follows."""
        started, traffic = time.perf_counter(), self._shared.traffic
        request, within_s = self._request(message), within_s_of(message)
        handle = self._shared.host.submit(request, client=self, within_s=within_s)
        if number is not None:
            self._handles[number] = handle
        traffic.requests += 1
        traffic.waiting += 1
        try:
            reply: PolicyReply = await asyncio.wrap_future(handle.acted)
        finally:
            traffic.waiting -= 1
            if number is not None and not handle.has_prediction:
                self._handles.pop(number, None)
        reply = replace(reply, timings_ms={**reply.timings_ms, **handle.timings_ms})
        return reply_message(reply, infer_ms=(time.perf_counter() - started) * 1e3), reply.details

    def _request(self, message: Mapping[str, Any]) -> PolicyRequest:
        """Return the request that a message is, under the id that the policy knows."""
        episode = self._episodes.get(message.get("episode_id"))
        if episode is None:
            raise BadMessage("no episode of this episode_id has begun on this connection; send a reset first")
        request = request_of(message, self._spec, episode.env, private=self._private)
        episode.num_requests += 1
        return replace(request, episode_id=episode.id)

    async def _refuse(self, error: Exception) -> None:
        """Send an error as openpi's server does, as text; the connection stays open."""
        self._shared.traffic.refused += 1
        fault = _fault_of(error)
        with suppress(TimeoutError):
            await self._sent(fault.reason if isinstance(fault, EpisodeFault) else str(fault))

    async def _send(self, message: Mapping[str, Any]) -> None:
        await self._sent(pack(message))

    async def _sent(self, data: bytes | str) -> None:
        """Send a frame; a peer that does not read it in time is cut off."""
        try:
            async with asyncio.timeout(self._shared.limits.send_timeout_s):
                await self._connection.send(data)
        except TimeoutError:
            self._connection.transport.abort()
            raise


def _fault_of(error: Exception) -> EpisodeFault | EvalkitError:
    """Return an error as clients see it; one that is not ours names the line of the policy that raised it."""
    if isinstance(error, EpisodeFault | EvalkitError):
        return error
    if isinstance(error, BadMessage | NotServed):
        return EpisodeFault("policy", f"{str(error).rstrip('.')}.", retriable=isinstance(error, Refused))
    return EpisodeFault("policy", f"{describe(error)}.")
