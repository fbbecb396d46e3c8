"""Settings of a run that change no action: workers, limits, outputs.

In: overrides such as `run.workers=2`. Out: typed settings.
Read next: `runner.py`, which follows them; `evalkit/config.py`, which fills them in.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.worker.client import Timeouts


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
        clips: Write predictions and ground truth, for `evalkit score`.
        video: Write one mp4 per episode, for viewing.
    """

    workers: int = 1
    max_attempts: int = 3
    start_timeout_s: float = 120.0
    reset_timeout_s: float = 120.0
    chunk_timeout_s: float = 60.0
    episodes_per_worker: int = 50
    clips: bool = True
    video: bool = True

    def __post_init__(self) -> None:
        """Raise BadConfig for numbers that are not above 0."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not isinstance(value, bool) and not value > 0:
                raise BadConfig(f"run.{entry.name} must be above 0, got {value}.")

    @property
    def timeouts(self) -> Timeouts:
        """Return the time limits of an env process."""
        return Timeouts(start_s=self.start_timeout_s, reset_s=self.reset_timeout_s, chunk_s=self.chunk_timeout_s)
