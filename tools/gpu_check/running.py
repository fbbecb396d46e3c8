"""Runs stages one after another, each in a process of its own with a time limit.

In: stages, the seconds for all of them. Out: one JSON value per stage.
Read next: `main.py` for the stages; `timing.py` for how work is timed.

A stage sends what it finds as soon as it has it, so a stage that is stopped, or dies, keeps its results so far. The
parent process never starts the device: a fault of the device ends with the stage that caused it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user chose.

    Attributes:
        device: `cuda`, `cuda:1` or `cpu`.
        quick: Small sizes and few repetitions.
        released: Folder of reference values of the released code; "" for none.
        fail: Stage that raises an error on purpose; "" for none.
    """

    device: str
    quick: bool
    released: str = ""
    fail: str = ""

    @property
    def on_gpu(self) -> bool:
        """Return whether the device is a GPU."""
        return self.device.startswith("cuda")


class Report:
    """What a stage has found; every call sends one message to the parent process.

    Args:
        file: Descriptor to write to.
        settings: What the user chose.
        earlier: The lines of the stages before, by stage.
        until_s: When the stage is stopped, in the time of `time.monotonic`.
    """

    def __init__(self, file: int, settings: Settings, earlier: Mapping[str, Line], until_s: float) -> None:
        self.settings, self.earlier, self._file, self._until_s = settings, earlier, file, until_s

    def left_s(self) -> float:
        """Return the seconds until the stage is stopped."""
        return self._until_s - time.monotonic()

    def fact(self, **values: Any) -> None:
        """Add values to the stage's line."""
        self._send("facts", values)

    def check(self, name: str, error: float, limit: float) -> None:
        """Add a comparison, which passes if the error is at most the limit; not-a-number never passes."""
        self._send("checks", {"name": name, "error": error, "limit": limit, "ok": bool(error <= limit)})

    def row(self, **values: Any) -> None:
        """Add one row of a table."""
        self._send("rows", values)

    def missing(self, package: str, consequence: str) -> None:
        """Say that a package is not installed and what was therefore left out."""
        self._send("missing", {"package": package, "left_out": consequence})

    def left_out(self, what: str, reason: str) -> None:
        """Say that a part of the stage was not run, and why."""
        self._send("left_out", {"what": what, "reason": reason})

    def _send(self, kind: str, value: Any) -> None:
        os.write(self._file, (json.dumps({kind: plain(value)}) + "\n").encode())


def plain(value: Any) -> Any:
    """Return a value that JSON can hold; numbers are rounded to six digits, infinities become texts.

    Example:
        >>> plain({"a": 1 / 3, "b": [float("inf")]})
        {'a': 0.333333, 'b': ['inf']}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of the check.

    Attributes:
        name: Its name in `--stages` and in the output.
        work: Does it.
        what: One line for `--help`.
        limit_s: When it is stopped, seconds.
        least_s: It is not started with fewer seconds left in all.
    """

    name: str
    work: Callable[[Report], None]
    what: str
    limit_s: float
    least_s: float = 5.0


def run_stages(stages: list[Stage], settings: Settings, total_s: float) -> Iterator[Line]:
    """Yield the line of every stage, and a last one named `summary`."""
    begun, lines = time.monotonic(), dict[str, Line]()
    for stage in stages:
        left_s = begun + total_s - time.monotonic()
        if left_s < stage.least_s:
            reason = f"{left_s:.0f} s are left of {total_s:.0f}, this stage needs about {stage.least_s:.0f}"
            lines[stage.name] = {"stage": stage.name, "ok": None, "seconds": 0.0, "skipped": reason}
        else:
            lines[stage.name] = run_stage(stage, settings, lines, min(stage.limit_s, left_s))
        yield lines[stage.name]
    yield summary(lines, time.monotonic() - begun)


def summary(lines: Mapping[str, Line], seconds: float) -> Line:
    """Return the last line: which stages passed, failed and were skipped.

    Example:
        >>> summary({"peak": {"ok": True}, "nano": {"ok": False}, "5b": {"ok": None}}, 1.0)["failed"]
        ['nano']
    """
    names = {verdict: [name for name, line in lines.items() if line["ok"] is verdict] for verdict in (True, False)}
    skipped = [name for name, line in lines.items() if line["ok"] is None]
    checks = [check for line in lines.values() for check in line.get("checks", [])]
    return {
        "stage": "summary",
        "ok": not names[False],
        "seconds": round(seconds, 1),
        "passed": names[True],
        "failed": names[False],
        "skipped": skipped,
        "checks_passed": sum(check["ok"] for check in checks),
        "checks_failed": [check["name"] for check in checks if not check["ok"]],
        "missing_packages": sorted({m["package"] for line in lines.values() for m in line.get("missing", [])}),
    }


def run_stage(stage: Stage, settings: Settings, earlier: Mapping[str, Line], limit_s: float) -> Line:
    """Return the line of a stage, run in a process of its own that is stopped after `limit_s`."""
    begun = time.monotonic()
    readable, writable = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(readable)
        _work(stage, Report(writable, settings, earlier, begun + limit_s))
    os.close(writable)
    messages, in_time = _received(readable, begun + limit_s)
    os.close(readable)
    status = _ended(child, in_time=in_time)
    line = _merged(stage.name, messages, time.monotonic() - begun)
    if not in_time:
        line["error"] = f"stopped after {limit_s:.0f} s; what it found until then stands here"
    elif status and "error" not in line:
        signalled = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        line["error"] = f"the process of the stage ended with {signalled}"
    line["ok"] = "error" not in line and all(check["ok"] for check in line.get("checks", []))
    if line["ok"] and not {"checks", "rows"} & set(line):
        packages = {part["package"] for part in line.get("missing", [])}
        line |= {"ok": None, "skipped": f"without {', '.join(sorted(packages))} there is nothing to do"}
    return line


def _work(stage: Stage, report: Report) -> None:
    """Do the work of a stage in the child process, and end that process."""
    os.setsid()  # so that processes that the stage starts can be stopped with it
    os.dup2(2, 1)  # only the parent writes to stdout
    status = 0
    try:
        if report.settings.fail == stage.name:
            raise RuntimeError("this stage was asked to fail with --fail")
        stage.work(report)
    except BaseException as error:
        status = 1
        text = " ".join(str(error).split())[:500]
        where = traceback.extract_tb(error.__traceback__)[-1]
        report._send("error", f"{type(error).__name__}: {text} ({Path(where.filename).name}:{where.lineno})")
        traceback.print_exc()
    finally:
        report._send("done", True)
        sys.stderr.flush()
        os._exit(status)


def _received(file: int, until_s: float) -> tuple[list[Line], bool]:
    """Return the messages of a stage, and whether it ended in time.

    The last message is `done`: the end of the file would come later, if the stage left processes behind.
    """
    data = b""
    while (left_s := until_s - time.monotonic()) > 0:
        if not select.select([file], [], [], left_s)[0]:
            break
        part = os.read(file, 1 << 16)
        data += part
        if not part or data.endswith(b'{"done": true}\n'):
            return _messages(data), True
    return _messages(data), False


def _messages(data: bytes) -> list[Line]:
    """Return the whole messages among these bytes, without `done`."""
    return [message for message in map(json.loads, data.split(b"\n")[:-1]) if "done" not in message]


def _ended(child: int, *, in_time: bool) -> int:
    """Return how a process ended: its exit status, or the negative number of a signal; stop what it left behind."""
    if not in_time:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    return status


def _merged(name: str, messages: list[Line], seconds: float) -> Line:
    """Return one line from the messages of a stage: facts side by side, everything else in lists."""
    line: Line = {"stage": name, "ok": None, "seconds": round(seconds, 1)}
    for message in messages:
        ((kind, value),) = message.items()
        if kind == "facts":
            line |= value
        elif kind == "error":
            line["error"] = value
        else:
            line.setdefault(kind, []).append(value)
    return line
