"""Settings of a run that change no action: workers, limits, outputs.

In: overrides such as `run.workers=2`. Out: typed settings.
Read next: `runner.py`, which follows them; `evalkit/config.py`, which fills them in.
"""

from __future__ import annotations

from dataclasses import dataclass

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.limits import check_choice, check_device, check_range
from evalkit.contracts.worker.client import Timeouts
from evalkit.contracts.worker.memory import GIB, MACHINE_SHARE, machine_bytes

MAX_WORKERS = 1024
"""Env processes of one run; each takes a core and hundreds of megabytes."""

MAX_SERVERS = 64
"""Processes of one policy; each holds the weights."""

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
        policy_timeout_s: Time limit for the policy: from a request to its actions, from there to its prediction, and to
            start an episode; the time in which it answers other workers included.
        policy_start_timeout_s: Time limit to load the policy in a process of its own.
        policy_process: Whether the policy has a process of its own. A policy that hangs or dies there costs an attempt
            of one episode; in the run's process it ends the run. `auto`: a policy with a setting `device` has one.
        policy_python: Interpreter of that process; None for the run's own.
        servers: Processes of the policy; an episode stays with one of them. The results are those of one process.
        server_devices: Device of each process, in turn; empty for the policy's own setting.
        ray_address: Head of the Ray cluster, `host:port`, or `auto` for the one that runs on this machine; None for the
            environment's `RAY_ADDRESS`, or else a cluster of this machine alone. Only with `--execution ray`.
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
    policy_timeout_s: float = 600.0
    policy_start_timeout_s: float = 1800.0
    policy_process: bool | str = "auto"
    policy_python: str | None = None
    servers: int = 1
    server_devices: tuple[str, ...] = ()
    ray_address: str | None = None
    settle_steps: int = 20
    clips: bool | int | float = True
    video: bool = True
    steps: bool = False
    rollouts: str | None = None

    def __post_init__(self) -> None:
        """Raise BadConfig for numbers with which no run works."""
        limits = ("start_timeout_s", "reset_timeout_s", "chunk_timeout_s", "policy_timeout_s", "policy_start_timeout_s")
        for name in limits:
            check_range(f"run.{name}", getattr(self, name), 0.01, MAX_TIMEOUT_S, unit="s")
        check_range("run.workers", self.workers, 1, MAX_WORKERS)
        check_range("run.servers", self.servers, 1, MAX_SERVERS)
        check_choice("run.policy_process", self.policy_process, (True, False, "auto"))
        for device in self.server_devices:
            check_device("run.server_devices", device)
        if self.policy_process is False and (self.servers > 1 or self.server_devices or self.policy_python):
            raise BadConfig(
                "run.policy_process=false cannot be used with run.servers, run.server_devices or run.policy_python, "
                "which are about processes of the policy."
            )
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
