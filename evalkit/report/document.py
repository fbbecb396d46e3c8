"""A report as data: sections of text and tables, which any renderer can write.

In: nothing. Out: `Document` and its parts, frozen; typed cells, and an explanation for each column.
Read next: `build.py`, which makes a document from runs; `render_markdown.py`, `render_console.py`, `render_csv.py`.

A renderer reads a document and nothing else: no run, no score, no other renderer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evalkit.report.stats import Interval

Cell = str | int | float | Interval | None
"""None where there is no value."""

Kind = Literal["text", "count", "number", "percent"]
"""How a cell is written. A cell of kind `percent` holds a share, 0 to 1."""

Narrow = Literal["shown", "below", "hidden"]
"""What a narrow output does with a column: `below` puts its cell on a line below the first cell of the row."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Attributes:
        id: Stable name, the header in CSV.
        title: Header in tables.
        explanation: What a cell means, for a reader who does not know the project; lower case, neither semicolon
            nor full stop.
        kind: How its cells are written.
        short: Title where there is little room; the title if empty.
        narrow: What an output of 80 columns does with it.
        wraps: Whether a cell may be broken over lines.
    """

    id: str
    title: str
    explanation: str = ""
    kind: Kind = "text"
    short: str = ""
    narrow: Narrow = "shown"
    wraps: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of typed cells.

    Attributes:
        id: Stable name.
        columns: What each cell of a row is.
        rows: As many cells in each row as there are columns.
        note: What else a reader must know; full sentences, or empty.
        num_totals: How many rows at the end sum up those above.
    """

    id: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    num_totals: int = 0

    def __post_init__(self) -> None:
        """Check the width of every row."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"Table '{self.id}' has {len(self.columns)} columns, a row has {len(row)} cells.")


@dataclass(frozen=True, kw_only=True)
class Caveats:
    """What a reader must know before the numbers, one sentence each."""

    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Short statements, one per line; left out where there is little room."""

    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """A few sentences."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Images in files of their own.

    Attributes:
        note: What they show, one or two sentences.
        shown: Files that a page shows, relative to it.
        linked: Files that a page links to.
    """

    note: str
    shown: tuple[str, ...] = ()
    linked: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Json:
    """Settings as JSON; left out where there is little room."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled part of a report; sections nest.

    Attributes:
        title: One line.
        parts: What it holds, in order.
        is_detail: Left out where there is little room.
    """

    title: str
    parts: tuple[Part, ...]
    is_detail: bool = False


Part = Caveats | Facts | Figures | Paragraph | Json | Table | Section


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report.

    Attributes:
        title: One line.
        parts: What it holds, in order.
        data: Tables with full precision, which become files of their own.
    """

    title: str
    parts: tuple[Part, ...]
    data: tuple[Table, ...] = ()
