"""Step rows: one row per control step of an episode, as a Parquet file.

In: executed chunks. Out: `steps/<task>/<index>.parquet`, whole or not at all.
Read next: `recorder.py`, the other listeners; `lane.py`, which adds them.

Columns: `episode`, `task`, `index`, `chunk` (from 0), `step` (from 1: control steps executed so far), `reward` (null
where the env gives none), `success` (whether the goal is met after the step), and the numbers of the policy's reply to
the chunk, the same in each of its rows: `detail/<name>` and `ms/<name>`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd

from evalkit.contracts.types import Episode
from evalkit.run.episode import ExecutedChunk
from evalkit.store.files import write_whole


class StepRecorder:
    """Collects the rows of an episode and writes them at its end."""

    def __init__(self, path: Path, episode: Episode) -> None:
        self._path, self._episode = path, episode
        self._rows: list[dict[str, Any]] = []

    def on_chunk(self, chunk: ExecutedChunk) -> None:
        """Add a row for each executed action."""
        outcome, request = chunk.outcome, chunk.request
        numbers = {
            **{f"detail/{name}": float(value) for name, value in chunk.reply.details.items() if _is_number(value)},
            **{f"ms/{name}": float(value) for name, value in chunk.reply.timings_ms.items()},
        }
        for offset in range(1, outcome.num_executed + 1):
            self._rows.append(
                {
                    "episode": self._episode.key,
                    "task": self._episode.task,
                    "index": self._episode.index,
                    "chunk": request.chunk_idx,
                    "step": request.step_idx + offset,
                    "reward": outcome.rewards[offset - 1] if outcome.rewards else None,
                    "success": outcome.success and offset == outcome.num_executed,
                    **numbers,
                }
            )

    def on_end(self, outcome: str) -> None:
        """Write the file."""
        table, buffer = pd.DataFrame(self._rows), io.BytesIO()
        if "reward" in table:
            table["reward"] = table["reward"].astype("float64")
        table.to_parquet(buffer, index=False)
        write_whole(self._path, buffer.getvalue())

    def abandon(self) -> None:
        """Forget the rows; no file was written yet."""
        self._rows.clear()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | bool)
