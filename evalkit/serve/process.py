"""A policy in a process of its own, in any interpreter: watched, killed when it hangs, started again.

In: a policy with its settings, an interpreter, time limits. Out: a `Policy` whose faults cost an episode, not the run.
Read next: `child.py`, the process; `pool.py`, several of them; `client.py`, the connection.

The process serves the policy on a Unix socket that only this user can open, so a policy that reads the episode or the
simulator's state can run there too. It ends when this process ends, however that ends.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from evalkit.contracts.bound import BoundPolicy
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction
from evalkit.contracts.worker.output import Output
from evalkit.contracts.worker.process import ChildProcess
from evalkit.serve.client import ServedPolicy, TimeLimits
from evalkit.serve.connection import Address, Lost, Slow, Unreachable

FIRST_WAIT_S = 0.5
"""Seconds before a process is started again; doubled for each further one that ends without an answer."""

MAX_WAIT_S = 30.0

CONNECT_S = 10.0
"""Seconds to connect to a process that says that it serves; to one that has been lost there is no other connection."""

LOOK_S = 0.2
"""Seconds between two looks at whether to go on waiting for a process."""

MAX_EPISODES = 1024
"""Episodes whose process is remembered; older ones have ended."""

END_S = 2.0
"""Seconds for a process whose connection broke to end, so that its exit code can be stated."""

START = Path(__file__).parents[1] / "contracts" / "worker" / "start.py"

BOOT = f"""
import runpy, sys
start = runpy.run_path({str(START)!r})
start["clean_path"]()
sys.meta_path.insert(0, start["PlacedPackages"]({{}}))
from evalkit.serve.child import main
main(int(sys.argv[1]))
"""
"""What the interpreter runs: packages come from the same places as in an env process, evalkit's from this tree."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class PolicyLaunch:
    """How to start a policy in a process.

    Attributes:
        policy: Name or `module:attribute` of the plugin.
        settings: Fields of its `config_type`, JSON values.
        bench: Name of the bench; see `PolicyPlugin.for_bench`.
        python: Its interpreter; evalkit's requirements and those of the policy must be installed there.
        log_path: Where its output is appended; None for nowhere.
        max_requests: Requests under way at a time.
    """

    policy: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    bench: str | None = None
    python: str = sys.executable
    log_path: Path | None = None
    max_requests: int = 64

    @classmethod
    def of(cls, policy: BoundPolicy, **changes: Any) -> PolicyLaunch:
        """Return the launch of a policy with its settings.

        Raises:
            BadConfig: If a setting cannot be passed to another process.
        """
        try:
            settings = json.loads(json.dumps(asdict(policy.config), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise BadConfig(
                f"The settings of policy '{policy.name}' cannot be passed to a process of its own ({error}); give "
                "run.policy_process=false."
            ) from error
        return cls(policy=policy.address, settings=settings, **changes)

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment of the process: its output appears at once."""
        return {**os.environ, "PYTHONUNBUFFERED": "1"}

    def to_json(self, socket: Path) -> str:
        """Return the line that the process reads first."""
        names = ("policy", "settings", "bench", "max_requests")
        return json.dumps({**{name: getattr(self, name) for name in names}, "socket": str(socket)})


@dataclass(frozen=True, kw_only=True)
class ProcessLimits:
    """Time limits of a policy in a process.

    Attributes:
        start_s: To load the policy.
        reply_s: From a request to its actions, from there to its prediction, and for the start of an episode; the time
            in which it waits for other requests included.
    """

    start_s: float = 1800.0
    reply_s: float = 600.0


class _Server(ChildProcess):
    """One process with its connection, and the calls that wait for it."""

    def __init__(self, launch: PolicyLaunch, limits: ProcessLimits, closed: threading.Event) -> None:
        """Start it and wait until it serves.

        Raises:
            EvalkitError: If the interpreter cannot be started, the policy cannot be loaded, or `closed` is set.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="evalkit-policy-"))
        self.output = Output(launch.log_path)
        self.lost: str | None = None
        self.guilty: object = None
        self.calls: dict[object, bool] = {}  # in the order in which they began; True if for actions
        told, telling = os.pipe()
        try:
            super().__init__(self._popen(launch, telling))
            os.close(telling)
            self._await_ready(launch, limits, told, closed)
            address = Address(url=f"unix://{self._socket}")
            self.policy = ServedPolicy(address, TimeLimits(connect_s=CONNECT_S, reply_s=limits.reply_s))
        except BaseException:
            self.kill()
            raise
        finally:
            os.close(told)

    @property
    def _socket(self) -> Path:
        return self._folder / "policy.sock"

    def _popen(self, launch: PolicyLaunch, telling: int) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(
                [launch.python, "-c", BOOT, str(telling)],
                env=launch.environ,
                pass_fds=[telling],
                stdin=subprocess.PIPE,
                stdout=self.output.file,
                stderr=self.output.file,
                start_new_session=True,
            )
        except OSError as error:
            os.close(telling)
            raise EvalkitError(f"Cannot start the interpreter {launch.python}: {error.strerror}.") from error
        assert process.stdin is not None
        with suppress(OSError):  # it has ended; `_await_ready` says how
            process.stdin.write((launch.to_json(self._socket) + "\n").encode())
            process.stdin.flush()  # stays open: its end tells the process that this one has ended
        return process

    def _await_ready(self, launch: PolicyLaunch, limits: ProcessLimits, told: int, closed: threading.Event) -> None:
        """Wait for the line in which the process says that it serves, or why it does not."""
        deadline, line = time.monotonic() + limits.start_s, b""
        while not line.endswith(b"\n"):
            if closed.is_set():
                raise EvalkitError("The policy's process was ended.")
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise EvalkitError(
                    f"Policy '{launch.policy}' was not loaded within {limits.start_s:g} s "
                    f"(run.policy_start_timeout_s){self.log_note}."
                )
            if not select.select([told], [], [], min(LOOK_S, left_s))[0]:
                continue
            part = os.read(told, 1 << 16)
            if not part:
                self.wait(END_S)
                how = self.how_it_ended() if self.has_ended else "closed its connection"
                raise EvalkitError(
                    f"The process of policy '{launch.policy}' {how} before it served{self.log_note}. It runs "
                    f"{launch.python}; its last line: {self.output.last_line}"
                )
            line += part
        said = json.loads(line)
        if "error" in said:
            raise EvalkitError(f"{str(said['error']).rstrip('.')}{self.log_note}.")

    @property
    def log_note(self) -> str:
        """Return words that say where its output is; empty if nowhere."""
        path = self.output.path
        return "" if path is None else f" (its output is in {path.parent.name}/{path.name})"

    def close(self) -> None:
        """End it, and whoever waits for it."""
        self.kill()
        with suppress(AttributeError):  # it never served
            self.policy.close()

    def kill(self) -> None:
        """End the process, and remove its socket."""
        with suppress(AttributeError):  # it never started
            super().kill()
        self.output.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class PolicyProcess:
    """A policy in a process of its own; any number of threads may use it.

    A request that is not answered in time, or whose process ends, raises a retriable `EpisodeFault`; the process is
    killed, and the next episode starts another one, after a wait that grows while none answers. The fault counts for
    one of the episodes alone: the one that the process was working on, as far as that is known.

    Attributes:
        spec: The policy's spec.
    """

    def __init__(
        self, launch: PolicyLaunch, limits: ProcessLimits | None = None, closed: threading.Event | None = None
    ) -> None:
        """Start the process and load the policy.

        Args:
            launch: How to start it.
            limits: Time limits.
            closed: What another thread sets to end the start of the process; `end` sets it too.

        Raises:
            EvalkitError: If the policy cannot be loaded.
        """
        self._launch, self._limits = launch, limits or ProcessLimits()
        self._lock = threading.Lock()  # guards what is below
        self._starting = threading.Lock()
        self._closed = closed or threading.Event()
        self._failures = 0
        self._lost_s = 0.0
        self._episodes: dict[str, _Server] = {}
        self._server: _Server | None = _Server(launch, self._limits, self._closed)
        self.spec: PolicySpec = self._server.policy.spec

    @property
    def pid(self) -> int | None:
        """Return the process id; None while it is not running."""
        server = self._server
        return None if server is None else server.pid

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Start an episode; start the process if it does not run."""
        server = self._running()
        self._asked(server, partial(server.policy.reset, episode_id, env), for_actions=True)
        with self._lock:
            self._episodes[episode_id] = server
            while len(self._episodes) > MAX_EPISODES:
                del self._episodes[next(iter(self._episodes))]

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply per request, in order.

        Raises:
            EpisodeFault: What the policy raised; retriable if the process ends or does not answer in time.
            EvalkitError: What the policy refused.
        """
        servers = {self._server_of(request.episode_id) for request in requests}
        if len(servers) > 1:
            raise _lost("An episode of the request began in an earlier process of the policy.", counts=False)
        (server,) = servers
        replies = self._asked(server, partial(server.policy.infer, requests), for_actions=True)
        with self._lock:
            self._failures = 0
        return [self._with_guarded_prediction(server, reply) for reply in replies]

    def end(self) -> None:
        """End the process; whoever waits for it gets an error, and none is started again."""
        self._closed.set()
        with self._lock:
            server, self._server = self._server, None
            if server is not None:
                server.lost = server.lost or "The run ended."
        if server is not None:
            server.close()

    def _with_guarded_prediction(self, server: _Server, reply: PolicyReply) -> PolicyReply:
        fetch = reply.prediction
        if fetch is None:
            return reply

        def prediction() -> Prediction:
            return self._asked(server, fetch, for_actions=False)

        return replace(reply, prediction=prediction)

    def _server_of(self, episode_id: str) -> _Server:
        with self._lock:
            server = self._episodes.get(episode_id)
        if server is None:
            raise EpisodeFault("policy", "An episode must be reset before its first request.")
        if server.lost is not None:
            raise _lost(server.lost, counts=False)
        return server

    def _running(self) -> _Server:
        """Return the process; start one if there is none.

        Raises:
            EpisodeFault: If it cannot be started now.
        """
        with self._starting:
            if self._server is not None:
                return self._server
            wait_s = min(FIRST_WAIT_S * 2 ** (self._failures - 1), MAX_WAIT_S)
            if self._closed.wait(max(0.0, self._lost_s + wait_s - time.monotonic())):
                raise EpisodeFault("policy", "The policy's process was ended.")
            try:
                server = _Server(self._launch, self._limits, self._closed)
            except EvalkitError as error:
                with self._lock:
                    self._failures += 1
                    self._lost_s = time.monotonic()
                raise _lost(f"The policy cannot be started again: {error}") from error
            with self._lock:
                self._server = server
                self._episodes = {key: each for key, each in self._episodes.items() if each.lost is None}
            if self._closed.is_set():
                self.end()
            return server

    def _asked(self, server: _Server, call: Callable[[], Answer], *, for_actions: bool) -> Answer:
        with _noted(server, self._lock, for_actions) as ticket:
            try:
                return call()
            except EpisodeFault as fault:
                if not isinstance(fault.__cause__, Lost | Slow | Unreachable | TimeoutError):
                    said = fault.reason.removeprefix(f"The server at {server.policy.url}: ")
                    raise EpisodeFault(fault.blame, said, retriable=fault.retriable) from None
                raise self._lose(server, ticket, is_slow=isinstance(fault.__cause__, Slow | TimeoutError)) from fault

    def _lose(self, server: _Server, ticket: object, *, is_slow: bool) -> EpisodeFault:
        """End a process that hangs or broke its connection; return the fault of one of the calls that waited for it."""
        with self._lock:
            if server.lost is None:
                server.lost = self._why_lost(server, is_slow=is_slow)
                acting = [call for call, for_actions in server.calls.items() if for_actions]
                server.guilty = next(iter(acting or server.calls), None)
                if self._server is server:
                    self._server = None
                    self._failures += 1
                    self._lost_s = time.monotonic()
            reason, counts = server.lost, ticket is server.guilty
        server.close()
        return _lost(reason, counts=counts)

    def _why_lost(self, server: _Server, *, is_slow: bool) -> str:
        name = f"Policy '{self._launch.policy.rpartition(':')[2]}'"
        if is_slow:
            limit = f"{self._limits.reply_s:g} s (run.policy_timeout_s)"
            server.output.note(f"evalkit: no answer within {limit}; this process is killed.")
            return f"{name} did not answer within {limit}, and its process was killed{server.log_note}."
        if server.wait(END_S):
            return f"The process of {name[0].lower()}{name[1:]} {server.how_it_ended()}{server.log_note}."
        return f"The process of {name[0].lower()}{name[1:]} closed its connection and was killed{server.log_note}."


def _lost(reason: str, *, counts: bool = True) -> EpisodeFault:
    return EpisodeFault("policy", reason, retriable=True, counts=counts)


@contextmanager
def _noted(server: _Server, lock: threading.Lock, for_actions: bool) -> Iterator[object]:
    """Note a call among those that wait for a process."""
    ticket = object()
    with lock:
        server.calls[ticket] = for_actions
    try:
        yield ticket
    finally:
        with lock:
            server.calls.pop(ticket, None)
