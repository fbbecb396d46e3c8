"""The process in which one env lives; runs in any interpreter that has numpy and msgpack.

In: messages on a socket, given as a file descriptor. Out: one answer a message; errors as text, never as pickles.
Read next: `evalkit/contracts/worker/client.py`, the other end, which also watches the clock.

Messages: `make` -> spec; `begin` -> solved, observation; `advance` -> what a chunk of actions did; `close`.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import socket
import sys
import time
import traceback
from typing import Any

from evalkit.contracts.worker import wire


def serve(connection: socket.socket) -> None:
    """Answer messages until `close` or until the harness is gone."""
    env: Any = None
    while True:
        try:
            message = wire.receive(connection)
        except EOFError:
            break
        try:
            if message["op"] == "close":
                break
            if message["op"] == "make":
                module, _, attribute = message["target"].partition(":")
                env = getattr(importlib.import_module(module), attribute)(**message["kwargs"])
                about = {"python": sys.version.split()[0], **env.about}
                answer: dict[str, Any] = {"spec": env.spec.to_json(), "about": about}
            elif message["op"] == "begin":
                answer = _begin(env, message)
            else:
                answer = _advance(env, message)
            data = wire.pack(answer)
        except Exception as error:
            traceback.print_exc()
            sys.stderr.flush()
            data = wire.pack({"error": f"{type(error).__name__}: {error}"})
        wire.send_packed(connection, data)
    if env is not None:
        env.close()


def _begin(env: Any, message: dict[str, Any]) -> dict[str, Any]:
    solved = env.begin(seed=message["seed"], max_steps=message["max_steps"])
    return {"solved": bool(solved), "observation": env.observe(render=message["render"])}


def _advance(env: Any, message: dict[str, Any]) -> dict[str, Any]:
    """Execute a chunk, rendering only where asked; stops at the first success.

    The last state is always observed; it is rendered if its offset is in `render_at`, if `render_last` is set, or if
    the goal is met and `render_success` is set.
    """
    render_at = set(message["render_at"])
    frames: list[tuple[int, dict[str, Any]]] = []
    success, offset, sim_s, render_s = False, 0, 0.0, 0.0
    last: dict[str, Any] = {}
    actions = message["actions"]
    for offset, action in enumerate(actions, start=1):
        started = time.perf_counter()
        success = bool(env.advance(action))
        stepped = time.perf_counter()
        sim_s += stepped - started
        done = success or offset == len(actions)
        render = offset in render_at or (done and message["render_last"]) or (success and message["render_success"])
        if render or done:
            last = env.observe(render=render)
            render_s += time.perf_counter() - stepped
        if render:
            frames.append((offset, last))
        if done:
            break
    return {
        "num_executed": offset,
        "success": success,
        "frames": frames,
        "last": None if frames and frames[-1][0] == offset else last,
        "sim_s": sim_s,
        "render_s": render_s,
    }


def _die_with_parent() -> None:
    """Ask Linux to kill this process when the thread that started it ends, however that happens."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
        if os.getppid() != parent:  # the parent died in between
            os._exit(1)


if __name__ == "__main__":
    _die_with_parent()
    serve(socket.socket(fileno=int(sys.argv[1])))
