"""The two dialects that servers of policies speak: openpi's, and XPolicyLab's.

In: an open connection, an observation of an adapter. Out: the server's values and the time that it says it took.
Read next: `adapter.py`, which says what an observation holds; `policy.py`, which asks.

openpi (openpi-client 0.1.2; also vLLM-Omni and SGLang, under a path): the server's first message is its metadata; each
request is the observation, each reply a dict or a bare array; a text frame is an error. XPolicyLab (`client_server/ws`,
commit 7198143e): every message is a frame with type, id and payload; an error is a frame of its own.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from evalkit.contracts.msgpack_arrays import BadMessage, Marker, pack, unpack
from evalkit.serve.connection import Connection

DialectName = Literal["openpi", "xpolicylab"]

EVALUATION_ID = "evalkit"
"""Name of the evaluation for an XPolicyLab server; it names neither task nor setting nor seed."""


class ServerError(Exception):
    """The server answered with an error; its text is the server's, perhaps a traceback.

    Attributes:
        sentence: The last line of the text.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.strip())
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        self.sentence = lines[-1] if lines else "an error without text"


class Answer(NamedTuple):
    """What a server replied to an observation.

    Attributes:
        values: A dict, a list of dicts or an array, as the adapter reads it.
        server_ms: Milliseconds of the inference as the server states them; None if it does not.
    """

    values: Any
    server_ms: float | None


@dataclass(frozen=True)
class Dialect(ABC):
    """How to speak to a server.

    Attributes:
        resets: Whether the server gets a message when an episode begins.
    """

    resets: bool

    @abstractmethod
    def hello(self, connection: Connection, timeout_s: float) -> Mapping[str, Any]:
        """Return the server's metadata; the first exchange on a connection."""

    @abstractmethod
    def reset(self, connection: Connection, session: str, timeout_s: float) -> None:
        """Tell the server that an episode begins."""

    @abstractmethod
    def infer(self, connection: Connection, observation: Any, session: str, step: int, timeout_s: float) -> Answer:
        """Return the server's answer to an observation.

        Raises:
            ServerError: If it is an error.
            BadMessage: If it is no message of the dialect.
        """


class OpenpiDialect(Dialect):
    """openpi's messages; `{"endpoint": "reset"}` is vLLM-Omni's addition."""

    def hello(self, connection: Connection, timeout_s: float) -> Mapping[str, Any]:
        """Return the first message."""
        return _mapping(
            _read(connection, "openpi", timeout_s), "the first message must be the server's metadata, a dict"
        )

    def reset(self, connection: Connection, session: str, timeout_s: float) -> None:
        """Send the reset and wait for the answer, text or a dict."""
        if self.resets:
            connection.send(pack({"endpoint": "reset"}, "openpi"))
            answer = connection.receive(timeout_s)
            if isinstance(answer, str) and "success" not in answer:
                raise ServerError(answer)
            if isinstance(answer, bytes):
                _raise_error(unpack(answer, "openpi"))

    def infer(self, connection: Connection, observation: Any, session: str, step: int, timeout_s: float) -> Answer:
        """Send the observation itself, and return the reply itself."""
        connection.send(pack(observation, "openpi"))
        values = _read(connection, "openpi", timeout_s)
        _raise_error(values)
        timing = values.get("server_timing") if isinstance(values, Mapping) else None
        return Answer(values, _milliseconds(timing, "infer_ms"))


class XPolicyLabDialect(Dialect):
    """XPolicyLab's frames. A trial's id is random, so that it tells nothing about the episode."""

    def hello(self, connection: Connection, timeout_s: float) -> Mapping[str, Any]:
        """Return the payload of the answer to `hello`."""
        return self._request(connection, "hello", {}, timeout_s)

    def reset(self, connection: Connection, session: str, timeout_s: float) -> None:
        """Tell the server that a trial begins."""
        if self.resets:
            self._request(connection, "reset", {"trial_id": session}, timeout_s, session=session)

    def infer(self, connection: Connection, observation: Any, session: str, step: int, timeout_s: float) -> Answer:
        """Send the observation in a frame, and return the actions of the answer."""
        payload = {"observation": observation}
        answer = self._request(connection, "infer", payload, timeout_s, session=session, step=step)
        if "actions" not in answer:
            raise BadMessage(f"the answer to 'infer' holds {', '.join(map(str, answer)) or 'nothing'}, not 'actions'")
        return Answer(answer["actions"], _milliseconds(answer, "latency_ms"))

    def _request(
        self,
        connection: Connection,
        kind: str,
        payload: Mapping[str, Any],
        timeout_s: float,
        *,
        session: str | None = None,
        step: int = 0,
    ) -> Mapping[str, Any]:
        """Send one frame and return the payload of its answer."""
        message_id = uuid.uuid4().hex
        frame = {
            "message_type": kind,
            "message_id": message_id,
            "evaluation_id": EVALUATION_ID,
            "action_case_id": None,
            "trial_id": session,
            "repeat_index": None,
            "step": step,
            "sent_at": datetime.now(UTC).isoformat(),
            "payload": payload,
        }
        connection.send(pack(frame, "msgpack_numpy"))
        answer = _mapping(_read(connection, "msgpack_numpy", timeout_s), "a frame must be a dict")
        if answer.get("message_id") != message_id:
            raise BadMessage(f"the answer to '{kind}' has the id of another message")
        body = _mapping(answer.get("payload") or {}, "the payload of a frame must be a dict")
        if answer.get("message_type") == "error":
            raise ServerError(f"{body.get('code', 'error')}: {body.get('message', '')}")
        expected = _ANSWERS[kind]
        if answer.get("message_type") != expected:
            raise BadMessage(f"the answer to '{kind}' must be '{expected}', got '{answer.get('message_type')}'")
        return body


_ANSWERS = {"hello": "hello_ack", "reset": "reset_result", "infer": "infer_result"}

DIALECTS: dict[str, type[Dialect]] = {"openpi": OpenpiDialect, "xpolicylab": XPolicyLabDialect}


def _read(connection: Connection, marker: Marker, timeout_s: float) -> Any:
    message = connection.receive(timeout_s)
    if isinstance(message, str):
        raise ServerError(message)
    return unpack(message, marker)


def _raise_error(values: Any) -> None:
    """Raise ServerError if a msgpack reply is an error: `{"type": "error", ...}` of vLLM-Omni, or `{"error": text}`."""
    if not isinstance(values, Mapping):
        return
    if values.get("type") == "error":
        raise ServerError(str(values.get("message", "")))
    if set(values) == {"error"}:
        raise ServerError(str(values["error"]))


def _mapping(value: Any, rule: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadMessage(f"{rule}, got {type(value).__name__}")
    return value


def _milliseconds(values: Any, name: str) -> float | None:
    found = values.get(name) if isinstance(values, Mapping) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
