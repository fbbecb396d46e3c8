"""One connection to a policy server: plain observations in order, and our messages in any order.

In: a websocket, a host that answers requests. Out: replies; when the peer leaves, its work is cancelled.
Read next: `messages.py` for the messages; `server.py`, which accepts connections.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from websockets.exceptions import ConnectionClosed

from evalkit.contracts.errors import EpisodeFault, EvalkitError, describe
from evalkit.contracts.msgpack_arrays import BadMessage, Limits, pack, unpack
from evalkit.contracts.requests import seed_of
from evalkit.contracts.spec import EnvSpec
from evalkit.serve.episodes import ClientEpisodes, EpisodeIds, ServedEpisode
from evalkit.serve.greeting import KEY, Greeting, check_env, typed
from evalkit.serve.handle import Handle, NotServed, Refused
from evalkit.serve.local import PolicyHost
from evalkit.serve.messages import env_of, error_message, prediction_message, reply_message, request_of, within_s_of

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class ClientLimits:
    """Bounds of one client.

    Attributes:
        message: Of its messages.
        jobs: Messages that are being answered at a time.
        predictions: Predictions that it has asked for and not fetched.
        episodes: Its episodes; the one that was used longest ago makes room.
        send_timeout_s: How long it may take to read a reply.
    """

    message: Limits = field(default_factory=lambda: Limits(num_bytes=32 * 2**20))
    jobs: int = 64
    predictions: int = 64
    episodes: int = 64
    send_timeout_s: float = 30.0


@dataclass
class Traffic:
    """What a server has answered.

    Attributes:
        clients: Connections that are open.
        requests: Requests for actions so far.
        refused: Messages that were answered with an error.
    """

    clients: int = 0
    requests: int = 0
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
        self._episodes = ClientEpisodes(shared.ids, shared.limits.episodes)
        self._handles: dict[int, Handle] = {}
        self._num_waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
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
            if not isinstance(message, dict):
                raise BadMessage(f"a message must be a dict, got {type(message).__name__}")
        except BadMessage as error:
            await self._refuse(error)
            await self._connection.close(1007, "This was no message; the text frame before says why.")
            return False
        ours = message.get(KEY)
        if ours is None:
            await self._plain(message)
        elif isinstance(ours, dict) and ours.get("do") == "cancel":
            self._cancel(ours.get("of"))
        elif isinstance(ours, dict) and type(ours.get("id")) is int:
            self._ours(message, ours)
        else:
            await self._refuse(BadMessage(f"'{KEY}' must be a dict with a whole number 'id'"))
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
            handle = self._submit(await self._numbered(message))
            started = time.perf_counter()
            await self._until(handle.acted)
            await self._send(self._reply(handle, started)[0])
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

    def _ours(self, message: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        """Begin to answer one of our messages; an error has the number of its message."""
        number = ours["id"]
        try:
            most = self._shared.limits.jobs
            if self._num_waiting + len(self._tasks) >= most:
                raise Refused(f"{most} messages wait for their answers, which is the most")
            if ours.get("do") == "infer":
                self._infer(message, number)
            elif ours.get("do") == "reset":
                self._later(self._answered(number, self._reset(ours)))
            elif ours.get("do") == "prediction":
                self._later(self._answered(number, self._prediction(ours)))
            else:
                known = "reset, infer, prediction or cancel"
                raise BadMessage(f"'do' must be {known}, got {str(ours.get('do'))[:40]}")
        except Exception as error:
            self._later(self._fail(number, error))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answered(self, number: int, work: Awaitable[dict[str, Any]]) -> None:
        """Send what a message is answered with, or why it is not."""
        try:
            answer = await work
            await self._send({**answer, KEY: {"id": number, **answer.get(KEY, {})}})
        except Exception as error:
            await self._fail(number, error)

    async def _fail(self, number: int, error: Exception) -> None:
        self._shared.traffic.refused += 1
        with suppress(Exception):  # the peer is gone
            await self._send({KEY: {"id": number, **error_message(_fault_of(error))}})

    async def _reset(self, ours: Mapping[str, Any]) -> dict[str, Any]:
        env = typed(EnvSpec, ours.get("env"), "the env's spec of a reset")
        check_env(env, self._spec)
        await self._begin(ours.get("episode"), env)
        return {}

    def _infer(self, message: Mapping[str, Any], number: int) -> None:
        """Submit a request; its answer is sent as soon as its actions are clean."""
        if len(self._handles) >= self._shared.limits.predictions:
            raise BadMessage(f"{len(self._handles)} predictions wait to be fetched or cancelled, which is the most")
        handle, started = self._submit(message), time.perf_counter()
        self._handles[number] = handle
        self._num_waiting += 1
        handle.acted.add_done_callback(lambda _: self._soon(self._acted, number, handle, started))

    async def _until(self, future: Future[Any]) -> None:
        """Wait until a future of the host is done, however it ends."""
        waiter = self._loop.create_future()
        future.add_done_callback(lambda _: self._soon(_wake, waiter))
        await waiter

    def _soon(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call from another thread; after the end of the server, nothing is left to do."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)

    def _acted(self, number: int, handle: Handle, started: float) -> None:
        """Send the actions of a request; keep its handle if a prediction follows."""
        self._num_waiting -= 1
        if not handle.has_prediction:
            self._handles.pop(number, None)
        try:
            answer, details = self._reply(handle, started)
            data = pack({**answer, KEY: {"id": number, "details": details, "prediction": handle.has_prediction}})
        except Exception as error:
            self._later(self._fail(number, error))
        else:
            self._later(self._sent(data))

    async def _prediction(self, ours: Mapping[str, Any]) -> dict[str, Any]:
        handle = self._handle_of(ours)
        try:
            await self._until(handle.predicted)
            message = prediction_message(_result(lambda: handle.prediction(timeout_s=0)))
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

    def _submit(self, message: Mapping[str, Any]) -> Handle:
        """Return the handle of a request; it has the id under which the policy knows its episode."""
        episode = self._episodes.get(message.get("episode_id"))
        if episode is None:
            raise BadMessage("no episode of this episode_id has begun on this connection; send a reset first")
        request = request_of(message, self._spec, episode.env, episode_id=episode.id, private=self._private)
        handle = self._shared.host.submit(request, client=self, within_s=within_s_of(message))
        episode.num_requests += 1
        self._shared.traffic.requests += 1
        return handle

    def _reply(self, handle: Handle, started: float) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """Return the answer to a request whose actions are clean, and the details of its reply; raises its error."""
        reply = _result(lambda: handle.actions(timeout_s=0))
        timings = {**reply.timings_ms, **handle.timings_ms}
        return reply_message(reply.actions, timings, infer_ms=(time.perf_counter() - started) * 1e3), reply.details

    async def _refuse(self, error: Exception) -> None:
        """Send an error as openpi's server does, as text; the connection stays open."""
        self._shared.traffic.refused += 1
        fault = _fault_of(error)
        await self._sent(fault.reason if isinstance(fault, EpisodeFault) else str(fault))

    async def _send(self, message: Mapping[str, Any]) -> None:
        await self._sent(pack(message))

    async def _sent(self, data: bytes | str) -> None:
        """Send a frame; a peer that does not read it in time is cut off."""
        alarm = self._loop.call_later(self._shared.limits.send_timeout_s, self._connection.transport.abort)
        try:
            with suppress(ConnectionClosed):
                await self._connection.send(data)
        finally:
            alarm.cancel()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _result(call: Callable[[], Result]) -> Result:
    """Return what a call returns; a policy that asks the interpreter to end does not end the server."""
    try:
        return call()
    except Exception:
        raise
    except BaseException as error:
        raise EpisodeFault("policy", f"{describe(error)}.") from error


def _fault_of(error: Exception) -> EpisodeFault | EvalkitError:
    """Return an error as clients see it; one that is not ours names the line of the policy that raised it."""
    if isinstance(error, EpisodeFault | EvalkitError):
        return error
    if isinstance(error, BadMessage | NotServed):
        return EpisodeFault("policy", f"{str(error).rstrip('.')}.", retriable=isinstance(error, Refused))
    return EpisodeFault("policy", f"{describe(error)}.")
