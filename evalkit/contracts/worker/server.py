"""The process in which one env lives; runs in any interpreter that has numpy and msgpack.

In: messages on a socket, given as a file descriptor. Out: one answer per message; errors as text, never as pickles.
Read next: `messages.py`, the messages; `client.py`, the other end, which also watches the clock.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.contracts.worker import messages, wire


def serve(connection: socket.socket) -> None:
    """Answer messages until `Close`, or until the harness has ended."""
    server = _Server()
    while True:
        try:
            raw = wire.receive(connection)
        except EOFError:
            break
        try:
            message = messages.from_wire(raw)
            if isinstance(message, messages.Close):
                break
            data = wire.pack(server.answer(message).to_wire())
        except Exception as error:
            traceback.print_exc()
            sys.stderr.flush()
            data = wire.pack(messages.Failed(kind=type(error).__name__, reason=str(error)).to_wire())
        wire.send_packed(connection, data)
    server.close()


class _Server:
    """Owns the env and answers one message at a time."""

    def __init__(self) -> None:
        self._env: Any = None

    def answer(self, message: messages.Message) -> messages.Message:
        """Return the answer; whatever the env raises is passed on."""
        if isinstance(message, messages.Make):
            return self._make(message)
        if isinstance(message, messages.Begin):
            solved = bool(self._env.begin(seed=message.seed, max_steps=message.max_steps))
            return messages.Begun(solved=solved, observation=self._env.observe(render=message.render))
        if isinstance(message, messages.Advance):
            return self._advance(message)
        if isinstance(message, messages.Observe):
            return messages.Observed(observation=self._env.observe(render=message.render))
        if isinstance(message, messages.Play):
            return messages.Played(observations=[self._play(state) for state in message.states])
        raise wire.WireError(f"the message '{message.name()}' is an answer, not a question")

    def close(self) -> None:
        """Free the env if there is one."""
        if self._env is not None:
            self._env.close()

    def _make(self, message: messages.Make) -> messages.Made:
        module, _, attribute = message.target.partition(":")
        if importlib.util.find_spec(module.partition(".")[0]) is None:  # a user's own bench, in the current folder
            sys.path.append(str(Path.cwd()))
        self._env = getattr(importlib.import_module(module), attribute)(**message.kwargs)
        about = {"python": sys.version.split()[0], **self._env.about}
        return messages.Made(spec=self._env.spec.to_json(), about=about)

    def _play(self, state: np.ndarray) -> dict[str, Any]:
        self._env.play(state)
        observation: dict[str, Any] = self._env.observe(render=True)
        return observation

    def _advance(self, message: messages.Advance) -> messages.Advanced:
        """Execute a chunk and render only where asked; stop at the first success.

        The last state is always observed; it is rendered if its offset is in `render_at`, if `render_last` is set, or
        if the goal is met and `render_success` is set.
        """
        render_at = set(message.render_at)
        frames: list[tuple[int, dict[str, Any]]] = []
        success, offset, sim_s, render_s = False, 0, 0.0, 0.0
        last: dict[str, Any] = {}
        for offset, action in enumerate(message.actions, start=1):
            started = time.perf_counter()
            success = bool(self._env.advance(action))
            stepped = time.perf_counter()
            sim_s += stepped - started
            done = success or offset == len(message.actions)
            render = offset in render_at or (done and message.render_last) or (success and message.render_success)
            if render or done:
                last = self._env.observe(render=render)
                render_s += time.perf_counter() - stepped
            if render:
                frames.append((offset, last))
            if done:
                break
        return messages.Advanced(
            num_executed=offset,
            success=success,
            frames=frames,
            last=None if frames and frames[-1][0] == offset else last,
            sim_s=sim_s,
            render_s=render_s,
        )


def _die_with_parent() -> None:
    """Ask Linux to kill this process when the thread that started it ends, however that happens."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
        if os.getppid() != parent:  # the parent died in between
            os._exit(1)


def main(descriptor: int) -> None:
    """Serve on the socket of this file descriptor until the harness is done or has ended."""
    _die_with_parent()
    serve(socket.socket(fileno=descriptor))
