"""How a plan is carried out.

In: overrides such as `run.workers=2`. Out: typed settings; nothing here changes an action.
Read next: `runner.py`, which follows them; `evalkit/config.py`, which fills them in.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.worker.client import Timeouts


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Workers, limits, and what is kept.

    Attributes:
        workers: Env workers at a time.
        max_attempts: How often an episode is started whose worker dies or hangs; then it is an error.
        start_timeout_s: Seconds for a worker to build its env.
        reset_timeout_s: Seconds for it to start an episode.
        chunk_timeout_s: Seconds for it to execute a chunk of actions, rendering included.
        episodes_per_worker: A worker is replaced after so many, so that leaks stay small.
        clips: Keep predictions beside what happened, for `evalkit score`.
        video: Keep an mp4 an episode, for people.
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
        """Refuse numbers that cannot carry out a plan."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not isinstance(value, bool) and not value > 0:
                raise BadConfig(f"run.{entry.name} must be above 0, got {value}.")

    @property
    def timeouts(self) -> Timeouts:
        """Return what a worker is held to."""
        return Timeouts(start_s=self.start_timeout_s, reset_s=self.reset_timeout_s, chunk_s=self.chunk_timeout_s)
