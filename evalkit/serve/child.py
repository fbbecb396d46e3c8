"""The process of a policy: loads it, serves it on a Unix socket, ends with the process that started it.

In: a line of JSON on stdin; the file descriptor of a pipe. Out: one line on the pipe: ready, or why not.
Read next: `process.py`, which starts it and writes the line; `server.py`, which serves.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalkit.contracts.errors import EvalkitError

STDIN = 0

MAX_MESSAGE_BYTES = 256 * 2**20
"""Largest request; its one client is no stranger, and sends images of any size."""

EPISODES_PER_REQUEST = 16
"""Episodes that are known per request under way: a lane whose env is slow keeps its own while others begin many."""


def main(pipe: int) -> None:
    """Serve until the process that started this one ends, or kills it."""
    told: Mapping[str, Any] = json.loads(_first_line())
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        asyncio.run(_serve(told, pipe))
    except EvalkitError as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        _tell(pipe, error=str(error))
        sys.exit(2)


async def _serve(told: Mapping[str, Any], pipe: int) -> None:
    from evalkit.config import build_config
    from evalkit.contracts import msgpack_arrays
    from evalkit.contracts.bound import BoundPolicy
    from evalkit.contracts.plugins import load_policy
    from evalkit.serve.greeting import Greeting
    from evalkit.serve.local import PolicyHost
    from evalkit.serve.scheduler import Limits
    from evalkit.serve.server import Listen, PolicyServer
    from evalkit.serve.session import ClientLimits

    plugin = load_policy(told["policy"])
    config = build_config(plugin.config_type, told["settings"], see=f"evalkit list --policy {plugin.name}")
    bound = BoundPolicy(plugin=plugin, config=config, loaded_as=told["policy"])
    if told["bench"] is not None:
        bound = bound.for_bench(told["bench"])
    most = told["max_requests"]
    limits = Limits(max_jobs=most, max_jobs_per_client=most, max_uncollected=most)
    message = msgpack_arrays.Limits(num_bytes=MAX_MESSAGE_BYTES)
    of_run = ClientLimits(message=message, jobs=2 * most, predictions=most, episodes=EPISODES_PER_REQUEST * most)
    listen = Listen(unix=Path(told["socket"]), private=True, limits=of_run)
    policy = bound.load()
    greeting = Greeting(spec=policy.spec, width=getattr(policy, "width", 1), private=True)
    with PolicyHost(policy, limits) as host:
        await PolicyServer(host, greeting, listen).run(asyncio.Event(), lambda url: _tell(pipe, ready=url))


def _tell(pipe: int, **said: str) -> None:
    os.write(pipe, (json.dumps(said) + "\n").encode())


def _end_with_parent() -> None:
    """Wait until stdin is closed, which the end of the other process does, and end at once."""
    while os.read(STDIN, 1 << 16):
        pass
    os._exit(0)


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n") and (part := os.read(STDIN, 1 << 16)):
        line += part
    return line
