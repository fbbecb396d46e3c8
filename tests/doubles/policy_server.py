"""A server of a policy in a thread of the tests: a double for other people's servers, in both dialects.

In: a function from observations to replies. Out: a URL under a path; everything that arrived.
Read next: `openpi_partner.py`, which speaks with the unmodified `openpi-client` in its own interpreter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import numpy as np

from evalkit.contracts.msgpack_arrays import pack, unpack

PATH = "/v1/realtime/robot/openpi"

Reply = Callable[[Mapping[str, Any]], Any]


@dataclass
class PolicyServer:
    """A running server.

    Attributes:
        url: Its address.
        seen: Observations, in order.
        headers: Headers of each connection.
        resets: How often an episode began.
    """

    url: str
    seen: list[Mapping[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    resets: int = 0


class HangUp(Exception):
    """Raised by a reply function: the server closes the connection without a reply."""


class SayError(Exception):
    """Raised by a reply function: the server answers with this text."""


def hold(columns: int, rows: int = 8) -> Reply:
    """Return a function that answers each observation with zeros: deltas that hold the robot."""
    return lambda _: {"actions": np.zeros((rows, columns), np.float32), "server_timing": {"infer_ms": 0.01}}


@contextmanager
def serving(
    reply: Reply,
    *,
    metadata: Mapping[str, Any] | None = None,
    dialect: str = "openpi",
    path: str = PATH,
    api_key: str | None = None,
    ssl: Any = None,
) -> Iterator[PolicyServer]:
    """Serve until the block ends."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import ServerConnection, serve

    state = PolicyServer(url="")

    def check(connection: ServerConnection, request: Any) -> Any:
        state.headers.append(dict(request.headers.raw_items()))
        if request.path != path:
            return connection.respond(HTTPStatus.NOT_FOUND, "no such path\n")
        if api_key is not None and request.headers.get("Authorization") != f"Api-Key {api_key}":
            return connection.respond(HTTPStatus.UNAUTHORIZED, "no\n")
        return None

    def openpi(connection: ServerConnection) -> None:
        connection.send(pack(dict(metadata or {}), "openpi"))
        for data in connection:
            observation = unpack(data, "openpi")  # type: ignore[arg-type]
            if observation.get("endpoint") == "reset":
                state.resets += 1
                connection.send("reset successful")
                continue
            state.seen.append(observation)
            connection.send(pack(reply(observation), "openpi"))

    def xpolicylab(connection: ServerConnection) -> None:
        for data in connection:
            frame = unpack(data, "msgpack_numpy")  # type: ignore[arg-type]
            kind, payload = frame["message_type"], {"ok": True, **(metadata or {})}
            state.resets += kind == "reset"
            if kind == "infer":
                state.seen.append(frame["payload"]["observation"])
                payload = {"actions": reply(frame["payload"]["observation"]), "latency_ms": 0.02}
            kinds = {"hello": "hello_ack", "reset": "reset_result", "infer": "infer_result"}
            connection.send(pack({**frame, "message_type": kinds[kind], "payload": payload}, "msgpack_numpy"))

    def handle(connection: ServerConnection) -> None:
        try:
            {"openpi": openpi, "xpolicylab": xpolicylab}[dialect](connection)
        except HangUp:
            connection.close(1011, "gone")
        except SayError as error:
            connection.send(str(error))
            connection.close(1011, "Internal server error. Traceback included in previous frame.")
        except ConnectionClosed:
            pass

    with serve(handle, "127.0.0.1", 0, process_request=check, ssl=ssl, compression=None, max_size=None) as server:
        port = server.socket.getsockname()[1]
        host = "localhost" if ssl is not None else "127.0.0.1"
        state.url = f"{'wss' if ssl is not None else 'ws'}://{host}:{port}{path}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield state
        server.shutdown()
        thread.join()
