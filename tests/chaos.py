"""Chaos: `python -m tests.chaos --minutes 15`. Runs are disturbed at random; their records must be those of a calm run.

In: minutes, a seed. Out: a line per round; exit code 1 and the run folders if a record is missing, double or different.
Read next: `doubles/chaos.py`, the policy; `doubles/bench.py`, the bench; `unit/test_chaos.py`, a minute of it.

Each round runs one plan with `evalkit run` in a process, three env workers and two processes of the policy, until every
episode is recorded. Meanwhile, at random: SIGKILL of a worker, of a policy process, of the runner; SIGSTOP of a worker
or a policy process (a hang, which a time limit must end); SIGINT and SIGTERM of the runner; connections that break; a
disk that takes no more (a limit on the size of files, which gives the runner the error of a full disk). The policy
itself returns NaN in some episodes, a wrong shape in others, and hangs in one of each task.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.store.clips import ClipReader
from evalkit.store.files import find_unfinished
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import open_run
from tests.doubles.chaos import BREAK

ROOT = Path(__file__).resolve().parents[1]
COMMAND = (
    *(sys.executable, "-m", "evalkit.cli", "run", "--bench", "tests.doubles.bench:FakeBench"),
    *("--policy", "tests.doubles.chaos:ChaosPolicyPlugin", "run.stop_after_equal_errors=0"),
)
LIMITS = (
    *("run.max_attempts=12", "run.policy_timeout_s=3", "run.chunk_timeout_s=3", "run.reset_timeout_s=5"),
    *("run.start_timeout_s=20", "run.workers=3", "run.servers=2", "bench.fake.step_s=0.005"),
)
WORKER, POLICY = "contracts/worker/start.py", "evalkit.serve.child"
"""What the command line of an env process holds, and that of a process of the policy."""

FULL_BYTES = 60_000
"""Largest file on a full disk; `episodes.jsonl` and clips grow beyond it."""

MOST_SESSIONS = 400
PAUSE_S = (0.2, 2.5)
"""Least and most seconds between two disturbances."""


class Chaos(Exception):
    """A run that was disturbed is not what a calm run is; the message says where."""


@dataclass
class Session:
    """One process of `evalkit run`, and what is done to it."""

    process: subprocess.Popen[bytes]
    rng: random.Random
    stopped: list[int] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def disturb(self) -> None:
        """Do one thing at random to the runner or to one of its processes."""
        things: list[tuple[str, Callable[[], object]]] = [
            ("kill worker", lambda: self._signal(WORKER, signal.SIGKILL)),
            ("kill policy", lambda: self._signal(POLICY, signal.SIGKILL)),
            ("stop worker", lambda: self._signal(WORKER, signal.SIGSTOP)),
            ("stop policy", lambda: self._signal(POLICY, signal.SIGSTOP)),
            ("break connections", lambda: self._signal(POLICY, BREAK)),
            ("kill runner", lambda: self.process.send_signal(signal.SIGKILL)),
            ("interrupt runner", lambda: self.process.send_signal(self.rng.choice([signal.SIGINT, signal.SIGTERM]))),
        ]
        weights = [6, 4, 2, 2, 3, 1, 1]
        ((name, act),) = self.rng.choices(things, weights)
        act()
        self.done[name] += 1

    def wait_for_worker(self) -> None:
        """Wait until the runner has loaded the policy and begun."""
        while self.process.poll() is None:
            if any(WORKER in command_of(pid) for pid in children_of(self.process.pid)):
                return
            time.sleep(0.1)

    def end(self) -> int:
        """Wait for the end of the runner; end the processes that were stopped, which nobody else can."""
        code = self.process.wait(timeout=120)
        for pid in self.stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return code

    def _signal(self, program: str, number: signal.Signals) -> None:
        pids = [pid for pid in children_of(self.process.pid) if program in command_of(pid)]
        if pids:
            pid = self.rng.choice(pids)
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            if number == signal.SIGSTOP:
                self.stopped.append(pid)


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def command_of(pid: int) -> str:
    """Return the command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def fill_disk() -> None:
    """Let no file of the process grow beyond a size; a write beyond it raises an error, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, FULL_BYTES))


def planned(episodes: int, seed: int) -> tuple[str, ...]:
    return ("--episodes", str(episodes), "--seed", str(seed))


def calm_run(out: Path, episodes: int, seed: int) -> list[EpisodeRecord]:
    """Return the records of a run that nobody disturbs."""
    command = [*COMMAND, *planned(episodes, seed), *LIMITS, "run.max_attempts=1", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Chaos(f"The calm run ended with exit code {done.returncode}: {done.stderr[-2000:]}")
    return open_run(out).records()


def disturbed_run(out: Path, episodes: int, seed: int, rng: random.Random) -> Counter[str]:
    """Run a plan to its end under disturbances; return how many of each there were."""
    done: Counter[str] = Counter()
    command = [*COMMAND, *planned(episodes, seed), *LIMITS, "--out", str(out)]
    for _ in range(MOST_SESSIONS):
        full = rng.random() < 0.15
        with (out.parent / "output.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                preexec_fn=fill_disk if full else None,
                start_new_session=True,
            )
        session = Session(process, rng)
        done["sessions"] += 1
        done["full disk"] += full
        if rng.random() < 0.85:  # the others are disturbed while they start
            session.wait_for_worker()
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=rng.uniform(*PAUSE_S))
            if process.poll() is None:
                session.disturb()
        code = session.end()
        done += session.done
        if code == 0:
            return done
        if code not in (2, 130, -signal.SIGKILL, -signal.SIGINT, -signal.SIGTERM):
            raise Chaos(f"{out}: the runner ended with exit code {code}; its output is in {out.parent / 'output.log'}.")
    raise Chaos(f"{out}: the run was not complete after {MOST_SESSIONS} sessions.")


def check(out: Path, calm: list[EpisodeRecord]) -> None:
    """Raise Chaos unless a run has each planned record once, with the results of the calm run, and no broken file."""
    folder = open_run(out)
    lines = [json.loads(line) for line in folder.records_path.read_text().splitlines()]
    counts = Counter(f"{line['task']}/{line['index']:04d}" for line in lines)
    expected = {record.key: record for record in calm}
    if set(counts) != set(expected) or set(counts.values()) != {1}:
        raise Chaos(f"{out}: records {counts}, planned {sorted(expected)}")
    for record in folder.records():
        ours, theirs = (
            (each.outcome, each.blame, each.steps, each.actions_sha256, each.first_state_sha256)
            for each in (record, expected[record.key])
        )
        if ours != theirs:
            raise Chaos(f"{out}: {record.key} is {ours} ({record.reason}), in the calm run {theirs}")
        if record.clip is not None:
            with ClipReader(out / record.clip) as clip:
                if sum(chunk.num_executed for chunk in clip) != record.steps:
                    raise Chaos(f"{out}: the clip of {record.key} is not whole")
        elif record.outcome in ("success", "failure"):
            raise Chaos(f"{out}: {record.key} has no clip")
    if unfinished := find_unfinished(out):
        raise Chaos(f"{out}: unfinished files {unfinished}")


def run_chaos(folder: Path, *, seconds: float, seed: int = 0, episodes: int = 24) -> Counter[str]:
    """Run rounds until the time is over; return the disturbances of all. The last round is completed.

    Raises:
        Chaos: If a disturbed run is not what a calm run is.
    """
    rng, total, deadline = random.Random(seed), Counter[str](), time.monotonic() + seconds
    while time.monotonic() < deadline:
        number = total["rounds"]
        path = folder / f"round{number}"
        path.mkdir()
        calm = calm_run(path / "calm", episodes, number)
        done = disturbed_run(path / "disturbed", episodes, number, rng)
        check(path / "disturbed", calm)
        total += done + Counter({"rounds": 1})
        listed = ", ".join(f"{name} {count}" for name, count in sorted(done.items()))
        print(f"round {number}: {len(calm)} episodes as in the calm run; {listed}", flush=True)
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Disturb runs at random.")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    where = Path(tempfile.mkdtemp(prefix="evalkit-chaos-"))
    print(f"in {where}")
    try:
        run_chaos(where, seconds=60 * arguments.minutes, seed=arguments.seed)
    except Chaos as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(1)
