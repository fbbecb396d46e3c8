"""Episodes in a row that end in the same error, which stop a run.

In: records as they are written. Out: `StoppedEarly` after too many equal errors.
Read next: `runner.py`, which asks after each record.
"""

from __future__ import annotations

import re
from pathlib import Path

from evalkit.contracts.errors import EpisodeFault, EvalkitError
from evalkit.contracts.text import count_of
from evalkit.store.records import EpisodeRecord

_LINE_OF_CODE = r"\w+\.py:\d+"
_PATH = r"(?:[\w.~-]*/)+[\w.~-]*"
_WORD_WITH_DIGITS = r"[-+]?\w*\d\w*(?:\.\d\w*)?"
_VARIES = re.compile(rf"(?P<code>{_LINE_OF_CODE})|{_PATH}|{_WORD_WITH_DIGITS}")


class StoppedEarly(EvalkitError):
    """A run that stopped because several episodes in a row ended in the same error; its records are kept."""


def error_kind(reason: str, *, task: str) -> str:
    """Return a reason without the parts that vary between episodes: the task's name, numbers, paths, hex words.

    A line of code stays, because the same message from another line is another error.

    Args:
        reason: The reason of an error.
        task: The task of the episode.

    Example:
        >>> error_kind("bench/Lift, seed 12: 0.5 m off in frames/Lift/0001.npz (policy.py:71).", task="Lift")
        '*, seed *: * m off in * (policy.py:71).'
    """
    return _VARIES.sub(lambda match: match["code"] or "*", reason.replace(task, "*"))


class EqualErrors:
    """Counts errors in a row with the same owner and the same kind of reason.

    Args:
        limit: Equal errors in a row that stop the run; 0 for no limit.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last: tuple[str, str] | None = None
        self._count = 0

    def reached(self, record: EpisodeRecord, fault: EpisodeFault | None) -> bool:
        """Count one record and return whether the limit is reached.

        A fault that is retriable, such as a process that died, may have its cause outside the run; it is not counted.
        """
        counts = fault is not None and not fault.retriable
        kind = (fault.blame, error_kind(fault.reason, task=record.task)) if fault is not None and counts else None
        self._count = self._count + 1 if kind == self._last else 1
        self._last = kind
        return kind is not None and self._count == self._limit


def stopped_early(fault: EpisodeFault, run: Path, *, num_equal: int, num_missing: int) -> StoppedEarly:
    """Return the sentences that name the error, its traceback and what to do.

    Args:
        fault: The last of the equal errors.
        run: The run folder.
        num_equal: Equal errors in a row.
        num_missing: Planned episodes without a record.
    """
    log = run / "logs" / f"{fault.blame}.log"
    if fault.blame == "env":
        trace = f"The output of the env processes is in {run / 'logs'}. "
    else:
        trace = f"Its traceback is in {log}. " if log.exists() else ""
    return StoppedEarly(
        f"The run stopped because {num_equal} episodes in a row ended in the same error ({fault.blame}): "
        f"{fault.reason.rstrip('.')}. {trace}Correct the cause, then run the same command again: it runs the "
        f"{count_of(num_missing, 'missing episode')}. Delete the error lines of {run / 'episodes.jsonl'} to repeat "
        "those episodes too; run.stop_after_equal_errors=0 never stops."
    )
