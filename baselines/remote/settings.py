"""The settings of the policy `remote`.

In: overrides. Out: where the server is, its adapter, time limits.
Read next: `policy.py`, which follows them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.limits import check_range
from evalkit.serve.connection import Address

KEY_VARIABLE = "EVALKIT_REMOTE_API_KEY"
"""Environment variable with the server's API key; a setting would put it into plans and run folders."""

MAX_CHUNK, MAX_TIMEOUT_S = 1000, 86_400


@dataclass(frozen=True, kw_only=True)
class RemoteConfig:
    """Settings of the policy.

    Attributes:
        url: Address of the server, `ws://` or `wss://`, with port and path, or `unix://` and the path of a Unix
            socket. An API key comes from EVALKIT_REMOTE_API_KEY.
        adapter: What the server is sent and what its actions mean: a name (docs/remote.md), or a path of a YAML file.
            None: nothing for a server that `evalkit serve` started, `evalkit-osc` for any other.
        label: Name of the policy in records and reports; None for the server's or the adapter's.
        chunk_len: Actions in a reply; None for the server's or the adapter's.
        execute_steps: Actions that are executed before the next request; None for the server's or the adapter's.
        connect_timeout_s: Time limit to connect: of the one attempt at the start, and of all attempts after a lost
            connection.
        reply_timeout_s: Time limit of a reply, the first one included.
        attempts: How often a request is sent if the connection ends before its reply.
        ca_file: Certificates that a `wss` server is checked against, in addition to the system's.
        check_motion: Whether each chunk must begin near the measured state, and an episode's first actions must be as
            large as those of the layout (docs/remote.md). False for a policy that does jump or crawl.
    """

    url: str = "ws://localhost:8000"
    adapter: str | None = None
    label: str | None = None
    chunk_len: int | None = None
    execute_steps: int | None = None
    connect_timeout_s: float = 30.0
    reply_timeout_s: float = 300.0
    attempts: int = 3
    ca_file: str | None = None
    check_motion: bool = True

    def __post_init__(self) -> None:
        """Raise BadConfig for settings that reach no server."""
        parts = urlsplit(self.url)
        is_known = bool(parts.hostname) if parts.scheme in ("ws", "wss") else self.url.startswith("unix:///")
        path = self.url.removeprefix("unix://")
        if path and path != self.url and not path.startswith("/"):
            raise BadConfig(
                f"policy.remote.url=unix://{path} must hold an absolute path, for example unix://{Path(path).absolute()}."
            )
        if not is_known:
            raise BadConfig(
                f"policy.remote.url must be like ws://host:8000/path, wss://host/path or unix:///path/of/socket, got "
                f"'{_shown(self.url)}'."
            )
        if parts.username or parts.password or parts.query:
            raise BadConfig(
                f"policy.remote.url must hold neither a password nor a query, because plans and reports show it; put "
                f"the API key into {KEY_VARIABLE}."
            )
        for name in ("connect_timeout_s", "reply_timeout_s"):
            check_range(f"policy.remote.{name}", getattr(self, name), 0.1, MAX_TIMEOUT_S, unit="s")
        check_range("policy.remote.attempts", self.attempts, 1, 100)
        for name in ("chunk_len", "execute_steps"):
            if getattr(self, name) is not None:
                check_range(f"policy.remote.{name}", getattr(self, name), 1, MAX_CHUNK)


def address_of(config: RemoteConfig) -> Address:
    """Return the address of the server, with the API key of the environment."""
    key = os.environ.get(KEY_VARIABLE, "")
    return Address(
        url=config.url,
        headers=(("Authorization", f"Api-Key {key}"),) if key else (),
        ca_file=config.ca_file,
        timeout_s=config.connect_timeout_s,
    )


def key_advice(address: Address) -> str:
    """Return what to do where a server refuses a connection for its API key."""
    source = "the server's API key (for `evalkit serve --token-file FILE`, what FILE holds)"
    return f"{KEY_VARIABLE} must hold {source}" if address.has_key else f"set {KEY_VARIABLE} to {source}"


def _shown(url: str) -> str:
    """Return a URL without what stands before an @."""
    head, _, tail = url.rpartition("@")
    return f"...@{tail}" if head else tail
