"""Where the command `xwam` prints: lines and progress bars.

In: text. Out: the screen.
Read next: `xwam/cli/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": True}
"""Names and paths may hold brackets; none of them is markup."""


def say(text: str) -> None:
    """Print a line."""
    Console().print(text, **PLAIN)


@contextmanager
def working(text: str) -> Iterator[None]:
    """Show that something is going on whose end cannot be foreseen."""
    with Console().status(text):
        yield


@contextmanager
def counted(label: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar; yield the function that moves it, called with (units done, units in all)."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns, disable=not shown) as progress:
        bar = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


@contextmanager
def ticking(label: str, total: int, *, shown: bool = True) -> Iterator[Callable[[], None]]:
    """Show a progress bar; yield the function that moves it by one."""
    with counted(label, shown=shown) as on_progress:
        done = 0
        on_progress(done, total)

        def tick() -> None:
            nonlocal done
            done += 1
            on_progress(done, total)

        yield tick
