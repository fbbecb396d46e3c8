"""A process in which an env plays states back, in the bench's own interpreter.

In: how to launch it, states. Out: observations, rendered.
Read next: `evalkit/contracts/env_worker.py`, the other end; `render.py`, which asks.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import evalkit
from evalkit.contracts import wire
from evalkit.contracts.env import WorkerLaunch
from evalkit.contracts.spec import EnvSpec

STATES_PER_MESSAGE = 16
START_S, FRAMES_S = 300.0, 300.0
"""Seconds that the process has to start or compile a model, and to render one message's states."""


class PlayerError(RuntimeError):
    """The process failed, hung or died; the sentence is the last that it said."""


class Refused(PlayerError):
    """The process is well, and says that it cannot do what it was asked."""


class Player:
    """One demonstration's process; use it in a `with`.

    Args:
        launch: How to start it.
    """

    def __init__(self, launch: WorkerLaunch) -> None:
        self._ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        root = str(Path(evalkit.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        with theirs:
            self._process = subprocess.Popen(
                [launch.python, "-m", "evalkit.contracts.env_worker", str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": path, **launch.environ},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
            )
        self._launch = launch

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._ours.close()
        self._log.close()

    def start(self) -> EnvSpec:
        """Compile the model; return what the env gives.

        Raises:
            PlayerError: If it cannot.
        """
        make = {"op": "make", "target": self._launch.target, "kwargs": dict(self._launch.kwargs)}
        spec = EnvSpec.from_json(self._ask(make, START_S)["spec"])
        self._ask({"op": "begin", "seed": 0, "max_steps": 0, "render": False}, START_S)
        return spec

    def play(self, states: np.ndarray) -> Iterator[dict[str, Any]]:
        """Yield an observation for each state.

        Raises:
            Refused: If a state does not fit the model.
            PlayerError: If the process fails.
        """
        for start in range(0, len(states), STATES_PER_MESSAGE):
            some = states[start : start + STATES_PER_MESSAGE]
            question = {"op": "advance", "actions": some, "render_at": list(range(1, len(some) + 1))}
            answer = self._ask({**question, "render_last": True, "render_success": False}, FRAMES_S)
            yield from (observation for _, observation in answer["frames"])

    def _ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        try:
            wire.send(self._ours, question)
            answer = wire.receive(self._ours, timeout_s=timeout_s)
        except (OSError, EOFError, wire.WireError) as error:  # TimeoutError is an OSError
            raise PlayerError(
                f"the simulator's process failed ({error}); its last words: {self._last_words()}"
            ) from error
        if "error" in answer:
            raise Refused(str(answer["error"]))
        return dict(answer)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "none"
