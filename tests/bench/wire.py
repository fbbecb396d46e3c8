"""Figures of the wire: a policy that costs nothing, asked over loopback with three images of 128 px and 16 numbers.

In: `EVALKIT_OPENPI_PYTHON` and `EVALKIT_VLA_EVAL_PYTHON`, interpreters that have openpi-client and vla-eval. Out:
`server_overhead_ms`, the median time of a request; `server_vs_vla_eval_raw` and `server_vs_openpi`, ratios of medians.
Read next: `wire_peers/`, both ends of each side; docs/serving.md, what the figures mean.

    python3 -m venv openpi && openpi/bin/pip install openpi-client==0.1.2 typing_extensions msgpack-numpy==0.4.8
    python3 -m venv vla_eval && vla_eval/bin/pip install vla-eval==0.8.0
    export EVALKIT_OPENPI_PYTHON=$PWD/openpi/bin/python EVALKIT_VLA_EVAL_PYTHON=$PWD/vla_eval/bin/python

Every side has a server and a client in processes of their own, and the sides ask in turn, `ROUNDS` times `REQUESTS`.
A request has 148 kB: images are raw on every side (vla-eval's default is PNG). evalkit's goes through `ServedPolicy`,
`PolicyServer` and `PolicyHost`, as in a run; openpi's through its client and a server that infers in its event loop;
vla-eval's through its `Connection` and `PredictModelServer`. p99 and the CPU time of both processes are printed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from tests.bench.figure import Figure, NotMeasurable

PEERS = Path(__file__).parent / "wire_peers"
ROOT = Path(__file__).parents[2]
ROUNDS, REQUESTS, WARM_UP = 7, 300, 100
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PYTHON_VARIABLES = {"ours": None, "openpi": "EVALKIT_OPENPI_PYTHON", "vla_eval": "EVALKIT_VLA_EVAL_PYTHON"}


@dataclass
class Measured:
    """What a side took.

    Attributes:
        medians_ms: Median of each round.
        all_ms: Every request.
        client_cpu_s: CPU time of the client in the rounds.
        server_cpu_s: The same of the server.
    """

    medians_ms: list[float] = field(default_factory=list)
    all_ms: list[float] = field(default_factory=list)
    client_cpu_s: float = 0.0
    server_cpu_s: float = 0.0

    def __str__(self) -> str:
        """Return p50, p99 and CPU time per request."""
        count = len(self.all_ms)
        cpu = f"CPU {self.client_cpu_s / count * 1e3:.2f} + {self.server_cpu_s / count * 1e3:.2f} ms (client + server)"
        return f"p50 {np.percentile(self.all_ms, 50):.3f} ms, p99 {np.percentile(self.all_ms, 99):.2f} ms, {cpu}"


class Side:
    """A server and a client that are running."""

    def __init__(self, server: subprocess.Popen[str], client: subprocess.Popen[str]) -> None:
        self._server, self._client = server, client
        self.measured = Measured()

    def ask(self, count: int, *, keep: bool = True) -> None:
        """Let the client ask."""
        before_s = _cpu_s(self._server.pid)
        assert self._client.stdin is not None
        print(count, file=self._client.stdin, flush=True)
        took = json.loads(_line(self._client))
        if keep:
            self.measured.medians_ms.append(statistics.median(took["ms"]))
            self.measured.all_ms += took["ms"]
            self.measured.client_cpu_s += took["cpu_s"]
            self.measured.server_cpu_s += _cpu_s(self._server.pid) - before_s


@cache
def measure() -> Mapping[str, Measured]:
    """Return what each side took that can be measured here; all ask in turn, in one run."""
    with ExitStack() as running:
        sides = {}
        for name, variable in PYTHON_VARIABLES.items():
            python = sys.executable if variable is None else os.environ.get(variable)
            if python:
                sides[name] = running.enter_context(_side(name, python))
        for side in sides.values():
            side.ask(WARM_UP, keep=False)
        for round_idx in range(ROUNDS):
            for side in list(sides.values())[:: 1 if round_idx % 2 else -1]:
                side.ask(REQUESTS)
        for name, side in sides.items():
            print(f"  {name:<9} {side.measured}", flush=True)
        return {name: side.measured for name, side in sides.items()}


@contextmanager
def _side(name: str, python: str) -> Iterator[Side]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)} if name == "ours" else dict(os.environ)
    with _process(python, name, environ, "serve") as server:
        url = _line(server)
        with _process(python, name, environ, "ask", url) as client:
            assert _line(client) == "ready"
            yield Side(server, client)


@contextmanager
def _process(python: str, name: str, environ: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [python, str(PEERS / f"{name}.py"), *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environ, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"{' '.join(map(str, process.args))} ended before it answered")  # type: ignore[arg-type]
    return line


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process (Linux)."""
    numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / TICKS_PER_S


def overhead() -> Figure:
    """Return our median milliseconds."""
    took = measure()["ours"]
    sides = {"p50": float(np.percentile(took.all_ms, 50)), "p99": float(np.percentile(took.all_ms, 99))}
    value = statistics.median(took.medians_ms)
    return Figure(
        name="server_overhead_ms", value=value, unit="ms of a request", goal="<= 1", sides=sides, side_unit="ms"
    )


def _ratio(name: str, other: str, label: str, goal: str) -> Figure:
    """Return the median over the rounds of the ratio of the medians."""
    if other not in measure():
        raise NotMeasurable(f"{PYTHON_VARIABLES[other]} names no interpreter with {label} (tests/bench/wire.py)")
    ours, theirs = measure()["ours"], measure()[other]
    value = statistics.median(a / b for a, b in zip(ours.medians_ms, theirs.medians_ms, strict=True))
    sides = {"evalkit": statistics.median(ours.medians_ms), label: statistics.median(theirs.medians_ms)}
    return Figure(name=name, value=value, unit=f"evalkit / {label}", goal=goal, sides=sides, side_unit="ms")


def against_vla_eval() -> Figure:
    """Compare with vla-eval's server and client, raw images."""
    return _ratio("server_vs_vla_eval_raw", "vla_eval", "vla-eval 0.8.0", "<= 0.5")


def against_openpi() -> Figure:
    """Compare with openpi's client and a minimal server."""
    return _ratio("server_vs_openpi", "openpi", "openpi-client 0.1.2", "<= 2.0")


FIGURES = {
    "server_overhead_ms": overhead,
    "server_vs_vla_eval_raw": against_vla_eval,
    "server_vs_openpi": against_openpi,
}
