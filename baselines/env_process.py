"""A process in which an env lives, in the bench's own interpreter, for commands that drive one without the harness.

In: how to launch it, questions. Out: its answers; mistakes and deaths as errors.
Read next: `evalkit/contracts/worker/server.py`, the other end; `replay/player.py` and `scripted/remote_env.py`, who
ask.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import evalkit
from evalkit.contracts.env import WorkerLaunch
from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.worker import wire

START_S, ANSWER_S = 300.0, 300.0
"""Seconds that the process has to build its env or an episode, and to answer anything else."""


class EnvProcessError(EvalkitError):
    """The process failed, hung or died; the sentence is the last that it said."""


class Refused(EnvProcessError):
    """The process is well, and says that it cannot do what it was asked."""


class EnvProcess:
    """One env's process; use it in a `with`.

    Args:
        launch: How to start it.

    Attributes:
        about: What only the running env knows; empty before `make`.

    Raises:
        EnvProcessError: If the interpreter does not start.
    """

    def __init__(self, launch: WorkerLaunch) -> None:
        self._ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        root = str(Path(evalkit.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [launch.python, "-m", "evalkit.contracts.worker.server", str(theirs.fileno())],
                    env={**os.environ, "PYTHONPATH": path, **launch.environ},
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                )
            except OSError as error:
                raise EnvProcessError(f"Cannot start the interpreter {launch.python}: {error.strerror}.") from error
        self._launch = launch
        self.about: Mapping[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; calling it twice is fine."""
        self._process.kill()
        self._process.wait()
        self._ours.close()
        self._log.close()

    def make(self) -> EnvSpec:
        """Build the env; return what it gives.

        Raises:
            EnvProcessError: If it cannot be built.
        """
        question = {"op": "make", "target": self._launch.target, "kwargs": dict(self._launch.kwargs)}
        answer = self.ask(question, START_S)
        self.about = answer["about"]
        return EnvSpec.from_json(answer["spec"])

    def ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Return the answer to a question.

        Raises:
            Refused: If the answer is an error.
            EnvProcessError: If the process fails.
        """
        try:
            wire.send(self._ours, question)
            answer = wire.receive(self._ours, timeout_s=timeout_s)
        except (OSError, EOFError, wire.WireError) as error:  # TimeoutError is an OSError
            raise EnvProcessError(
                f"the simulator's process failed ({error}); its last words: {self._last_words()}"
            ) from error
        if "error" in answer:
            raise Refused(str(answer["error"]))
        return dict(answer)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "none"
