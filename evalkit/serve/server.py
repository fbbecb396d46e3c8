"""A policy behind a websocket: openpi's dialect at any path, `/healthz`, and our messages over the same connections.

In: a host that owns a policy, an address. Out: replies to any number of clients, until the server is stopped.
Read next: `session.py`, one connection; `local.py`, the host; docs/serving.md, messages and limits.

The event loop only moves bytes: the host's threads compute. So a ping is answered while an inference runs, however
long it takes.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.contracts.errors import BadConfig, EvalkitError
from evalkit.serve.greeting import Greeting, check_may_leave
from evalkit.serve.session import ClientLimits, Session, Shared, Traffic

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.http11 import Request, Response

    from evalkit.serve.local import PolicyHost

HEALTH_PATH = "/healthz"

MAX_QUEUED_FRAMES = 4
"""Messages of one client that are read ahead while a plain one is answered."""

CLOSE_TIMEOUT_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Listen:
    """Where a server listens, and whom it lets in.

    Attributes:
        host: Address of the network interface; loopback unless others may connect.
        port: 0 for any free one.
        unix: Path of a Unix socket in place of host and port; only this user can connect.
        path: The only path that is served; None for any.
        token: What a client must send as `Authorization: Api-Key TOKEN`; None lets everyone in who can connect.
        max_clients: Connections at a time.
        limits: Bounds of one client.
        ping_interval_s: Seconds between pings to a client.
        ping_timeout_s: Seconds after which a client that does not answer a ping is gone.
        private: Whether requests may hold the planned episode and the simulator's state; over a Unix socket alone.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    unix: Path | None = None
    path: str | None = None
    token: str | None = field(default=None, repr=False)
    max_clients: int = 32
    limits: ClientLimits = field(default_factory=ClientLimits)
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 60.0
    private: bool = False

    def __post_init__(self) -> None:
        """Raise BadConfig for a private server that a network reaches."""
        if self.private and self.unix is None:
            raise BadConfig("A private policy server needs a Unix socket; give `unix` a path.")


class PolicyServer:
    """A server of one policy; `run` serves until it is stopped.

    Attributes:
        traffic: What it has answered.
        url: Where it listens, once it does.
    """

    def __init__(self, host: PolicyHost, greeting: Greeting, listen: Listen) -> None:
        """Raise SpecMismatch for a policy that reads what must not cross a network."""
        if not listen.private:
            check_may_leave(greeting.spec, greeting.spec.policy_id)
        self._listen = listen
        self._shared = Shared(host=host, greeting=greeting, limits=listen.limits)
        self.traffic: Traffic = self._shared.traffic
        self.url = ""

    async def run(self, stop: asyncio.Event, on_ready: Callable[[str], None] = lambda _: None) -> None:
        """Serve until `stop` is set.

        Args:
            stop: Ends the server; clients get a close frame.
            on_ready: Called with the URL once clients can connect.

        Raises:
            EvalkitError: If the address cannot be used.
        """
        listen = self._listen
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(listen.max_clients))  # resets wait in it
        try:
            server = await self._start()
        except OSError as error:
            raise _cannot_listen(listen, error) from error
        try:
            async with server:
                self.url = self._url(server)
                on_ready(self.url)
                await stop.wait()
        finally:
            if listen.unix is not None:
                listen.unix.unlink(missing_ok=True)

    async def _start(self) -> Server:
        from websockets.asyncio.server import serve, unix_serve

        listen = self._listen
        options: dict[str, Any] = {
            "process_request": self._admit,
            "origins": [None],  # browsers name the page's origin: a web page must not drive the robot of its visitor
            "compression": None,
            "max_size": listen.limits.message.num_bytes,
            "max_queue": MAX_QUEUED_FRAMES,
            "ping_interval": listen.ping_interval_s,
            "ping_timeout": listen.ping_timeout_s,
            "close_timeout": CLOSE_TIMEOUT_S,
            "server_header": None,
        }
        if listen.unix is None:
            return await serve(self._handle, listen.host, listen.port, **options)
        return await unix_serve(self._handle, sock=unix_socket(listen.unix), **options)

    def _url(self, server: Server) -> str:
        listen = self._listen
        if listen.unix is not None:
            return f"unix://{listen.unix.absolute()}"
        port = next(iter(server.sockets)).getsockname()[1]
        host = f"[{listen.host}]" if ":" in listen.host else listen.host
        return f"ws://{host}:{port}{listen.path or ''}"

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Return the refusal of a request for a connection; None if it may connect."""
        listen, path = self._listen, request.path.partition("?")[0]
        if path == HEALTH_PATH:
            return connection.respond(HTTPStatus.OK, "OK\n")
        if listen.path is not None and path.rstrip("/") != listen.path.rstrip("/"):
            return connection.respond(HTTPStatus.NOT_FOUND, f"The policy is served at {listen.path}.\n")
        if listen.token is not None and not _is_token(request.headers.get("Authorization", ""), listen.token):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "Send the header 'Authorization: Api-Key TOKEN'.\n")
        if self.traffic.clients >= listen.max_clients:
            most = f"{listen.max_clients} clients are connected, which is the most; try again later.\n"
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, most)
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        if self.traffic.clients >= self._listen.max_clients:  # several were admitted at once
            await connection.close(1013, "Too many clients; try again later.")
            return
        self.traffic.clients += 1
        try:
            with suppress(ConnectionClosed, TimeoutError):
                await Session(connection, self._shared).run()
        finally:
            self.traffic.clients -= 1


MAX_SOCKET_PATH_BYTES = 107
"""Linux: `sun_path` has 108 bytes, one of them a zero."""


@contextmanager
def serving(host: PolicyHost, greeting: Greeting, listen: Listen) -> Iterator[PolicyServer]:
    """Serve in a thread until the block ends; raises EvalkitError if the address cannot be used."""
    server, loop, stop = PolicyServer(host, greeting, listen), asyncio.new_event_loop(), asyncio.Event()
    ready, failed = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            loop.run_until_complete(server.run(stop, lambda _: ready.set()))
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    thread = threading.Thread(target=run, name="policy server", daemon=True)
    thread.start()
    ready.wait()
    if failed:
        raise failed[0]
    try:
        yield server
    finally:
        with suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(stop.set)
        thread.join()


def check_listen(listen: Listen) -> None:
    """Raise EvalkitError if the path of a Unix socket cannot be used; nothing is changed."""
    if listen.unix is not None:
        try:
            _is_left_over(listen.unix)
        except OSError as error:
            raise _cannot_listen(listen, error) from error


def _cannot_listen(listen: Listen, error: OSError) -> EvalkitError:
    where = f"the Unix socket {listen.unix}" if listen.unix else f"{listen.host}:{listen.port}"
    return EvalkitError(f"Cannot listen on {where}: {error.strerror or error}; choose another one.")


def _is_left_over(path: Path) -> bool:
    """Return whether a path is a socket without a server; raise OSError if no socket can be made there."""
    if not path.absolute().parent.is_dir():
        raise OSError(None, f"the folder {path.absolute().parent} does not exist")
    if not os.access(path.absolute().parent, os.W_OK):
        raise OSError(None, f"the folder {path.absolute().parent} cannot be written to")
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise OSError(None, f"its path is longer than {MAX_SOCKET_PATH_BYTES} bytes")
    if not path.exists():
        return False
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise OSError(None, f"there is a {'folder' if path.is_dir() else 'file'} of this name, which is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
    raise OSError(None, "another server listens there")


def unix_socket(path: Path) -> socket.socket:
    """Return a bound Unix socket that only this user can connect to; one without a server is replaced.

    Raises:
        OSError: If the path cannot be used, or another server listens there.
    """
    if _is_left_over(path):
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        path.chmod(0o600)
    except OSError:
        listening.close()
        raise
    return listening


def _is_token(header: str, token: str) -> bool:
    """Return whether a header holds the token; the time that it takes does not depend on where they differ."""
    scheme, _, given = header.partition(" ")
    is_known = scheme.lower() in ("api-key", "bearer")
    return hmac.compare_digest(given.strip().encode(), token.encode()) and is_known
