"""Settings of a run that change no action: workers, limits, outputs.

In: overrides such as `run.workers=2`. Out: typed settings.
Read next: `runner.py`, which follows them; `evalkit/config.py`, which fills them in.
"""

from __future__ import annotations

from dataclasses import dataclass

from evalkit.contracts.limits import check_range
from evalkit.contracts.worker.client import Timeouts
from evalkit.contracts.worker.memory import GIB, MACHINE_SHARE, machine_bytes

MAX_WORKERS = 1024
"""Env processes of one run; each takes a core and hundreds of megabytes."""

MAX_TIMEOUT_S = 86_400
"""A day: an env that needs longer for one answer does not answer."""

MAX_COUNT = 1_000_000


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Workers, limits and outputs.

    Attributes:
        workers: Env processes in parallel.
        max_attempts: Attempts of an episode whose env process dies or hangs; after the last one it is an error.
        start_timeout_s: Time limit for an env process to build its env.
        reset_timeout_s: Time limit to start an episode.
        chunk_timeout_s: Time limit to execute a chunk of actions, including rendering.
        episodes_per_worker: Episodes after which an env process is replaced, to limit memory leaks.
        worker_memory_gib: Resident memory of an env process, its children included, above which it is replaced after an
            episode; None for 80 % of the machine's memory divided by the workers, beyond which the system kills.
        stop_after_equal_errors: Episodes in a row that end in the same error (owner, and reason apart from numbers and
            paths), after which the run stops; 0 never stops it. Errors of the env count only until an episode of the
            session ends in success or failure.
        settle_steps: Control steps without action after a success, after which the goal is checked again; 0 for none.
        clips: Write predictions and ground truth, for `evalkit score`: `true`, `false`, or the share of the plan's
            episodes whose clips are kept, from 0 to 1, spread over the tasks.
        video: Write one mp4 per episode, for viewing.
        steps: Write one row per control step: reward where the env gives one, success, the policy's own numbers.
        rollouts: Folder of a LeRobot data set of the episodes that ended in success or failure; every step is rendered.
            It is written when the last episode is recorded.
    """

    workers: int = 1
    max_attempts: int = 3
    start_timeout_s: float = 120.0
    reset_timeout_s: float = 120.0
    chunk_timeout_s: float = 60.0
    episodes_per_worker: int = 50
    worker_memory_gib: float | None = None
    stop_after_equal_errors: int = 3
    settle_steps: int = 20
    clips: bool | int | float = True
    video: bool = True
    steps: bool = False
    rollouts: str | None = None

    def __post_init__(self) -> None:
        """Raise BadConfig for numbers with which no run works."""
        for name in ("start_timeout_s", "reset_timeout_s", "chunk_timeout_s"):
            check_range(f"run.{name}", getattr(self, name), 0.01, MAX_TIMEOUT_S, unit="s")
        check_range("run.workers", self.workers, 1, MAX_WORKERS)
        check_range("run.max_attempts", self.max_attempts, 1, MAX_COUNT)
        check_range("run.episodes_per_worker", self.episodes_per_worker, 1, MAX_COUNT)
        if self.worker_memory_gib is not None:
            check_range("run.worker_memory_gib", self.worker_memory_gib, 0.01, MAX_COUNT, unit="GiB")
        check_range("run.stop_after_equal_errors", self.stop_after_equal_errors, 0, MAX_COUNT)
        check_range("run.settle_steps", self.settle_steps, 0, MAX_COUNT)
        check_range("run.clips", self.clips, 0, 1)

    @property
    def clips_share(self) -> float:
        """Return the share of the plan's episodes whose clips are kept."""
        return float(self.clips)

    @property
    def worker_memory_bytes(self) -> int:
        """Return the size above which an env process is replaced."""
        if self.worker_memory_gib is not None:
            return int(self.worker_memory_gib * GIB)
        return int(MACHINE_SHARE * machine_bytes() / self.workers)

    @property
    def timeouts(self) -> Timeouts:
        """Return the time limits of an env process."""
        return Timeouts(start_s=self.start_timeout_s, reset_s=self.reset_timeout_s, chunk_s=self.chunk_timeout_s)
