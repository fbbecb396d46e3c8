"""The process of an env: started in a group of its own, killed with all that it started.

In: a launch and the socket that the process answers on. Out: a running process, and how it ended.
Read next: `start.py`, its first lines; `client.py`, which asks it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

from evalkit.contracts.env import WorkerLaunch
from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.worker.output import Output

KILL_WAIT_S = 10.0
"""Seconds for a killed process to go; one that waits for its driver does not, and is left to it."""


class ChildProcess:
    """A process that leads a group and session of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._killed = False

    @property
    def pid(self) -> int:
        """Return its process id, which is also that of its group and session."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Return whether it has ended."""
        return self._process.poll() is not None

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end and return whether it came in time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=timeout_s)
        return self.has_ended

    def how_it_ended(self) -> str:
        """Return words for a process that has ended, for example `ended with exit code 1`."""
        code = self._process.returncode
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    @property
    def was_killed(self) -> bool:
        """Return whether a signal ended it."""
        return (self._process.returncode or 0) < 0

    def kill(self) -> None:
        """End it and whatever it started, at once, stopped processes too; calling it twice is fine."""
        if not self._killed:
            self._killed = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self.wait(KILL_WAIT_S)


class WorkerProcess(ChildProcess):
    """The process of one env.

    Args:
        launch: How to start it.
        connection: Its end of the socket.
        output: What takes its output.

    Raises:
        EvalkitError: If its interpreter, its working directory or a package is not there.
    """

    def __init__(self, launch: WorkerLaunch, connection: socket.socket, output: Output) -> None:
        packages = {name: str(Path(folder).absolute()) for name, folder in launch.packages.items()}
        _check_folders(launch, packages)
        script = Path(__file__).with_name("start.py")
        try:
            process = subprocess.Popen(
                [launch.python, str(script), str(connection.fileno()), json.dumps(packages)],
                cwd=launch.cwd,
                env={**os.environ, **launch.environ},
                pass_fds=[connection.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output.file,
                stderr=output.file,
                start_new_session=True,
            )
        except OSError as error:
            raise EvalkitError(f"Cannot start the interpreter {launch.python}: {error.strerror}.") from error
        super().__init__(process)


def _check_folders(launch: WorkerLaunch, packages: dict[str, str]) -> None:
    """Raise EvalkitError unless the folders of a launch are there."""
    folders = {"the working directory": launch.cwd, **{f"the package '{n}'": f for n, f in packages.items()}}
    for what, folder in folders.items():
        if folder is not None and not Path(folder).is_dir():
            raise EvalkitError(f"{launch.target} cannot start: there is no folder {folder}, where {what} must be.")
