"""One websocket to a server of a policy, ours or another one's.

In: a URL, bytes. Out: bytes or text, or an error that says how the connection failed.
Read next: `client.py` for servers of ours, `baselines/remote/dialects.py` for others.

No pings are sent: a server that computes inside its event loop does not answer them, and the pings that websockets
sends by default would end the connection of any inference of more than 40 s. The time limit of a reply takes their
place.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MAX_MESSAGE_BYTES = 256 * 2**20
"""Largest message that is accepted; a chunk of actions has some kilobytes."""

CLOSE_TIMEOUT_S = 2.0

RETRY_WAIT_S = 0.5
"""Pause between two attempts to connect."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Unreachable(Exception):
    """No connection can be made; the message says why."""


class KeyRefused(Unreachable):
    """The server asks for an API key, and got none or another one; trying again does not help."""


class Lost(Exception):
    """The connection ended before the reply was complete."""


class Slow(Exception):
    """The reply did not come in time."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server is, and how to reach it.

    Attributes:
        url: `ws://` or `wss://`, host, port and path; or `unix://` and the path of a Unix socket.
        headers: Sent with the request for the connection.
        ca_file: Certificates that a `wss` server is checked against, in addition to the system's.
        timeout_s: Time limit to connect.
        send_timeout_s: Time limit to send a message to a server that does not read; None for no limit.
    """

    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca_file: str | None = None
    timeout_s: float = 30.0
    send_timeout_s: float | None = None

    @property
    def has_key(self) -> bool:
        """Return whether an API key is sent."""
        return any(name.lower() == "authorization" for name, _ in self.headers)

    @property
    def unix_path(self) -> str | None:
        """Return the path of a Unix socket; None for a network address."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else None


class Connection:
    """An open websocket; one message at a time.

    Raises:
        Unreachable: If it cannot be opened.
    """

    def __init__(self, address: Address) -> None:
        from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

        self._open = ExitStack()
        try:
            self._socket = self._open.enter_context(_connecting(address))
        except InvalidStatus as error:
            raise _refusal(error.response.status_code, address) from error
        except (InvalidHandshake, InvalidURI, EOFError) as error:
            raise Unreachable(f"no websocket answers there ({error})") from error
        except TimeoutError as error:
            raise Unreachable(f"no answer within {address.timeout_s:g} s") from error
        except OSError as error:
            raise Unreachable(str(error.strerror or error)) from error
        if address.send_timeout_s is not None:
            limit = struct.pack("ll", int(address.send_timeout_s), int(address.send_timeout_s % 1 * 1e6))
            self._socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def send(self, data: bytes) -> None:
        """Send one message; raises Lost if the connection is closed."""
        from websockets.exceptions import ConnectionClosed

        try:
            self._socket.send(data)
        except (ConnectionClosed, OSError) as error:
            raise Lost(_why_closed(error)) from error

    def receive(self, timeout_s: float | None) -> bytes | str:
        """Return the next message; without a limit, wait until the connection ends.

        Raises:
            Lost: If the connection ends first.
            Slow: If the time limit is reached; the connection must not be used again, because the reply may still come.
        """
        from websockets.exceptions import ConnectionClosed

        try:
            return self._socket.recv(timeout=timeout_s)
        except TimeoutError as error:
            raise Slow(f"no reply within {timeout_s:g} s") from error
        except (ConnectionClosed, OSError) as error:
            raise Lost(_why_closed(error)) from error

    def close(self) -> None:
        """Close the websocket; calling it twice is fine."""
        self._open.close()


def connect_within(address: Address, limit_s: float) -> Connection:
    """Return a connection; try again until the limit is reached, and at least once.

    Raises:
        Unreachable: If no attempt succeeded.
        KeyRefused: At once.
    """
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return Connection(address)
        except KeyRefused:
            raise
        except Unreachable:
            if time.monotonic() + RETRY_WAIT_S >= deadline:
                raise
        time.sleep(RETRY_WAIT_S)


def _connecting(address: Address) -> Any:
    """Return the connection as a context that opens it."""
    from websockets.sync.client import connect, unix_connect

    options: dict[str, Any] = {
        "additional_headers": list(address.headers),
        "compression": None,
        "open_timeout": address.timeout_s,
        "close_timeout": CLOSE_TIMEOUT_S,
        "ping_interval": None,
        "max_size": MAX_MESSAGE_BYTES,
    }
    if address.unix_path is not None:
        return unix_connect(address.unix_path, **options)
    context = _context(address) if address.url.startswith("wss:") else None
    is_here = (urlsplit(address.url).hostname or "") in LOOPBACK
    return connect(address.url, ssl=context, proxy=None if is_here else True, **options)


def _context(address: Address) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if address.ca_file is not None:
        if not Path(address.ca_file).is_file():
            raise Unreachable(f"the file of certificates {address.ca_file} is not there")
        try:
            context.load_verify_locations(address.ca_file)
        except ssl.SSLError as error:
            raise Unreachable(f"{address.ca_file} holds no certificates ({error})") from error
    return context


def _refusal(code: int, address: Address) -> Unreachable:
    """Return what an HTTP status in place of a connection means."""
    answer = f"the server answers with HTTP status {code}"
    if code == 401:
        why = "the server refuses the API key that was sent" if address.has_key else "the server asks for an API key"
        return KeyRefused(f"{answer}: {why}")
    advice = {403: ": the server refuses this API key, or this path", 404: ": the server has no such path"}
    return Unreachable(f"{answer}{advice.get(code, '')}")


def _why_closed(error: Exception) -> str:
    from websockets.exceptions import ConnectionClosed

    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        reason = f", {error.rcvd.reason}" if error.rcvd.reason else ""
        return f"the server closed the connection (code {error.rcvd.code}{reason})"
    return "the connection broke"
