"""The process in which one env lives; runs in any interpreter that has numpy and msgpack.

In: messages on a socket, given as a file descriptor. Out: one answer per message; errors as text, never as pickles.
Read next: `messages.py`, the messages; `client.py`, the other end, which also watches the clock.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import inspect
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from evalkit.contracts.spec import settling_action
from evalkit.contracts.types import ACTION_DIM
from evalkit.contracts.worker import messages, wire
from evalkit.contracts.worker.fingerprint import hash_arrays


def serve(connection: socket.socket, own_packages: Sequence[str]) -> None:
    """Answer messages until `Close`, or until the harness has ended.

    Args:
        connection: The socket.
        own_packages: Top-level packages with a place of their own, which a user's bench never replaces.
    """
    server = _Server(own_packages)
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
        except BaseException as error:  # SystemExit too: RoboTwin calls `exit()` where a description is missing
            _log(error)
            data = wire.pack(_failed(error).to_wire())
        _flush_output()
        wire.send_packed(connection, data)
    server.close()


def _flush_output() -> None:
    """Write what the env has printed so far, also from C, so that the harness can search it with the answer."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the env may have closed or replaced it
            stream.flush()
    ctypes.CDLL(None).fflush(None)


def _log(error: BaseException) -> None:
    """Write an error's traceback to the worker's output, unless the env has closed it."""
    with contextlib.suppress(Exception):
        traceback.print_exception(error)
        sys.stderr.flush()


def _failed(error: BaseException) -> messages.Failed:
    """Return an error as the harness receives it."""
    reason = str(error)
    if isinstance(error, SystemExit):
        reason = f"the env asked its process to end (exit code {error.code})"
    return messages.Failed(kind=type(error).__name__, reason=reason)


class _Server:
    """Owns the env and answers one message at a time."""

    def __init__(self, own_packages: Sequence[str]) -> None:
        self._own_packages = own_packages
        self._env: Any = None
        self._last_action = np.zeros(ACTION_DIM, np.float32)

    def answer(self, message: messages.Message) -> messages.Message:
        """Return the answer; whatever the env raises is passed on."""
        if isinstance(message, messages.Make):
            return self._make(message)
        if isinstance(message, messages.Begin):
            return self._begin(message)
        if isinstance(message, messages.Advance):
            return self._advance(message)
        if isinstance(message, messages.Settle):
            return self._settle(message.num_steps)
        if isinstance(message, messages.Observe):
            return messages.Observed(observation=self._env.observe(render=message.render))
        if isinstance(message, messages.Vet):
            return messages.Vetted(vetting=self._env.vet(message.seed, message.instructions))
        if isinstance(message, messages.Play):
            return messages.Played(observations=[self._play(state) for state in message.states])
        raise wire.WireError(f"the message '{message.name()}' is an answer, not a question")

    def close(self) -> None:
        """Free the env if there is one."""
        if self._env is not None:
            self._env.close()

    def _make(self, message: messages.Make) -> messages.Made:
        module, _, attribute = message.target.partition(":")
        self._env = getattr(_import(module, self._own_packages), attribute)(**message.kwargs)
        about = {"python": sys.version.split()[0], **self._env.about}
        return messages.Made(spec=self._env.spec.to_json(), about=about)

    def _begin(self, message: messages.Begin) -> messages.Begun:
        env: Any = self._env
        solved = bool(env.begin(seed=message.seed, max_steps=message.max_steps))
        if message.instruction is not None and _has(env, "instruct"):
            env.instruct(message.instruction)
        if not message.identify:
            return messages.Begun(solved=solved, observation=env.observe(render=message.render))
        state_sha256 = hash_arrays(env.state()) if _has(env, "state") else None
        observation = env.observe(render=message.render)
        return messages.Begun(
            solved=solved,
            observation=observation,
            scene=env.scene if _has(env, "scene") else None,
            first_state_sha256=state_sha256,
            first_frame_sha256=self._hash_frame(observation, message.render),
        )

    def _hash_frame(self, observation: dict[str, Any], rendered: bool) -> str | None:
        """Return the hash of the current frame; None where only policies without images can run."""
        try:
            frame = observation if rendered else self._env.observe(render=True)
        except Exception:  # no renderer: the run does not need one, and its log and `about` say why there is none
            traceback.print_exc()
            return None
        return hash_arrays({name: frame[name] for name in ("rgb", "depth")})

    def _settle(self, num_steps: int) -> messages.Settled:
        env: Any = self._env
        if _has(env, "hold_action"):
            action = env.hold_action(self._last_action)
        else:
            action = settling_action(self._last_action, env.spec.action_layout)
            if action is None:
                return messages.Settled(success=None)
        success = False
        for _ in range(num_steps):
            success = bool(env.advance(action))
        return messages.Settled(success=success)

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
        rewards: list[float] = []
        last: dict[str, Any] = {}
        for offset, action in enumerate(message.actions, start=1):
            started = time.perf_counter()
            success = bool(self._env.advance(action))
            self._last_action = action
            stepped = time.perf_counter()
            sim_s += stepped - started
            if _has(self._env, "reward"):
                rewards.append(float(self._env.reward()))
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
            counters=dict(self._env.counters()) if _has(self._env, "counters") else {},
            rewards=rewards,
        )


def _import(module: str, own_packages: Sequence[str]) -> ModuleType:
    """Return a module; one that is not found is a user's own bench, and is then searched in the current folder.

    There, its top-level package comes before one of the same name next to evalkit (`tools`); no other package does.
    """
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if top in own_packages:
            raise
        found = PathFinder.find_spec(top, [str(Path.cwd())])
        if found is None or not f"{module}.".startswith(f"{error.name}."):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == top]:
        del sys.modules[name]
    sys.path.append(str(Path.cwd()))
    sys.meta_path.insert(0, _InFolder(top, Path.cwd()))
    return importlib.import_module(module)


class _InFolder:
    """Finds one top-level package in a folder."""

    def __init__(self, package: str, folder: Path) -> None:
        self._package, self._folder = package, folder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return where the package lies; None for any other module."""
        return PathFinder.find_spec(name, [str(self._folder)]) if name == self._package else None


def _has(env: Any, member: str) -> bool:
    """Return whether an env has an optional member, without evaluating a property."""
    return inspect.getattr_static(env, member, None) is not None


def _die_with_parent() -> None:
    """Ask Linux to kill this process when the thread that started it ends, however that happens."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
        if os.getppid() != parent:  # the parent died in between
            os._exit(1)


def main(descriptor: int, own_packages: Sequence[str]) -> None:
    """Serve on the socket of this file descriptor until the harness is done or has ended."""
    _die_with_parent()
    serve(socket.socket(fileno=descriptor), own_packages)
