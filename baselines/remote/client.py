"""A client that stays connected: one connection, one message at a time, sent again when the connection ends.

In: messages of an adapter. Out: the server's answers, or an error after a stated number of attempts.
Read next: `dialects.py`; `evalkit/serve/connection.py`, the websocket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from baselines.remote.adapter import Adapter
from baselines.remote.dialects import DIALECTS, Answer, ServerError
from evalkit.serve.connection import Address, Connection, Lost, Slow, connect_within


class NoReply(Exception):
    """The server did not reply: it was too slow, or the connection ended in every attempt."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Limits of a client.

    Attributes:
        connect_s: Time limit to connect, with repeated attempts.
        reply_s: Time limit of a reply.
        attempts: How often a request is sent if the connection ends before its reply.
    """

    connect_s: float
    reply_s: float
    attempts: int


class Client:
    """Speaks an adapter's dialect to one server; connects when it is first used.

    Attributes:
        reconnections: How many connections ended since the last `begin`.
    """

    def __init__(self, address: Address, adapter: Adapter, patience: Patience) -> None:
        self.url = address.url
        self.reconnections = 0
        self._address, self._patience = address, patience
        self._dialect = DIALECTS[adapter.dialect](adapter.resets)
        self._connection: Connection | None = None
        self._metadata: Mapping[str, Any] = {}

    def __enter__(self) -> Client:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def metadata(self) -> Mapping[str, Any]:
        """Return what the server says about itself; raises as `ask` does."""
        try:
            self._connected()
        except (Lost, Slow) as error:
            self.close()
            raise NoReply(str(error)) from error
        return self._metadata

    def begin(self, session: str) -> None:
        """Tell the server that an episode begins, if its dialect has a word for it; raises as `ask` does."""
        self.reconnections = 0
        self._repeat(lambda connection: self._dialect.reset(connection, session, self._patience.reply_s), True)

    def ask(self, body: Mapping[str, Any], *, session: str, step: int, may_repeat: bool) -> Answer:
        """Return the server's answer.

        Args:
            body: The message.
            session: Random id of the episode.
            step: Number of the request in its episode.
            may_repeat: Whether the message may be sent on another connection; not if the server has lost what it
                remembers with the first one.

        Raises:
            NoReply: If no reply came in time, or the connection ended in every attempt.
            ServerError: If the reply is an error.
            BadMessage: If the reply is no message of the dialect.
            Unreachable: If the server cannot be reached again.
        """
        limit_s = self._patience.reply_s
        return self._repeat(
            lambda connection: self._dialect.infer(connection, body, session, step, limit_s), may_repeat
        )

    def close(self) -> None:
        """Close the connection; the next message opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _repeat(self, exchange: Any, may_repeat: bool) -> Any:
        """Return what an exchange returns, on a new connection where one ended."""
        attempts = self._patience.attempts if may_repeat else 1
        for attempt in range(1, attempts + 1):
            if self._connection is None and not may_repeat:
                raise NoReply("the connection is gone, and what the server remembers of the episode with it")
            try:
                return exchange(self._connected())
            except Slow as error:
                self.close()  # its reply may still come, and must not be taken for another one
                raise NoReply(str(error)) from error
            except ServerError:
                self.close()  # openpi's server closes its side after an error
                raise
            except Lost as error:
                self.close()
                self.reconnections += 1
                if attempt == attempts:
                    times = f" in {attempts} attempts" if attempts > 1 else ""
                    raise NoReply(f"{error}{times}") from error
        raise AssertionError("unreachable")

    def _connected(self) -> Connection:
        """Return the connection; open one and read the server's metadata where there is none."""
        if self._connection is None:
            connection = connect_within(self._address, self._patience.connect_s)
            try:
                self._metadata = self._dialect.hello(connection, self._patience.reply_s)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection
