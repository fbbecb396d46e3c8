"""Text of table cells and of column explanations, the same in Markdown and on the console.

In: a typed cell and its kind; a table. Out: a short string; what the columns mean, in one line.
Read next: `document.py`, what a cell can be.
"""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.report.document import Cell, Column, Kind
from evalkit.report.stats import Interval

ABSENT = "-"


def cell_text(cell: Cell, kind: Kind) -> str:
    """Return the text of a cell; a dash where there is no value.

    Example:
        >>> cell_text(0.8, "percent"), cell_text(12, "count"), cell_text(Interval(1, 2), "number")
        ('80.0', '12', '1 to 2')
    """
    if cell is None or cell == "":
        return ABSENT
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Interval):
        return f"{_number_text(cell.low, kind)} to {_number_text(cell.high, kind)}"
    return _number_text(cell, kind)


def quantity(count: int, noun: str) -> str:
    """Return a count with its noun, which takes an `s` in the plural.

    Example:
        >>> quantity(1, "episode"), quantity(2, "task")
        ('1 episode', '2 tasks')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def number(value: float) -> str:
    """Return a number with four digits.

    Example:
        >>> number(27.70561), number(0.00491), number(1234.5)
        ('27.71', '0.00491', '1234')
    """
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def legend(columns: Sequence[Column], titles: Sequence[str]) -> str:
    """Return what columns mean, in one line; three or more with the same explanation are `other columns`.

    Args:
        columns: Of a table.
        titles: How each is named in the output.

    Example:
        >>> legend([Column(id="a", title="a", explanation="a name")], ["a"])
        'a: a name.'
    """
    by_explanation: dict[str, list[str]] = {}
    for column, title in zip(columns, titles, strict=True):
        if column.explanation:
            by_explanation.setdefault(column.explanation, []).append(title)
    entries = [
        f"{', '.join(group) if len(group) < 3 else 'other columns'}: {explanation}"
        for explanation, group in by_explanation.items()
    ]
    return f"{'; '.join(entries)}." if entries else ""


def _number_text(value: float, kind: Kind) -> str:
    if kind == "percent":
        return f"{100 * value:.1f}"
    return str(value) if kind == "count" else number(value)
