"""Text of table cells, the same in every output for people.

In: a typed cell and its kind. Out: a short string.
Read next: `document.py`, what a cell can be.
"""

from __future__ import annotations

from evalkit.report.document import Cell, Kind
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


def number(value: float) -> str:
    """Return a number with four digits.

    Example:
        >>> number(27.70561), number(0.00491), number(1234.5)
        ('27.71', '0.00491', '1234')
    """
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _number_text(value: float, kind: Kind) -> str:
    if kind == "percent":
        return f"{100 * value:.1f}"
    return str(value) if kind == "count" else number(value)
