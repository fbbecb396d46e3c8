"""A report on the console, for 80 columns and more; details are left out.

In: a `Document`. Out: a rich renderable.
Read next: `document.py`, the parts; `render_markdown.py`, which writes all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich import box
from rich import table as rich_table
from rich.console import Group, RenderableType
from rich.text import Text

from evalkit.report.document import Caveats, Cell, Column, Document, Figures, Paragraph, Part, Section, Table
from evalkit.report.format import ABSENT, cell_text, legend


def render_console(document: Document) -> RenderableType:
    """Return a document for the console."""
    return Group(*_parts(document.parts))


def _parts(parts: Sequence[Part]) -> Iterator[RenderableType]:
    for part in parts:
        match part:
            case Section() if not part.is_detail:
                yield Text(f"\n{part.title}", style="italic")
                yield from _parts(part.parts)
            case Table():
                yield _table(part)
                yield from _legend(part)
            case Caveats():
                yield _caveats(part)
            case Figures():
                yield Text(part.note)
            case Paragraph():
                yield Text(part.text)
            case _:
                pass


def _caveats(caveats: Caveats) -> RenderableType:
    grid = rich_table.Table.grid(padding=(0, 1, 0, 0))
    for sentence in caveats.sentences:
        grid.add_row(Text("-", style="yellow"), Text(sentence, style="yellow"))
    return grid


def _table(table: Table) -> rich_table.Table:
    rich = rich_table.Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for position, column in enumerate(table.columns):
        if column.narrow == "shown":
            justify = "left" if position == 0 or (column.kind == "text" and column.wraps) else "right"
            rich.add_column(
                _broken(column.short or column.title),
                justify=justify,  # type: ignore[arg-type]
                no_wrap=not column.wraps,
                overflow="fold",
            )
    first_total = len(table.rows) - table.num_totals
    for row_idx, row in enumerate(table.rows):
        rich.add_row(*map(Text, _cells(table.columns, row)), style="bold" if row_idx >= first_total else None)
    return rich


def _cells(columns: Sequence[Column], row: Sequence[Cell]) -> list[str]:
    texts = [cell_text(cell, column.kind) for cell, column in zip(row, columns, strict=True)]
    shown = [text for text, column in zip(texts, columns, strict=True) if column.narrow == "shown"]
    below = [text for text, column in zip(texts, columns, strict=True) if column.narrow == "below" and text != ABSENT]
    return ["\n".join([shown[0], *(f"  {part}" for text in below for part in text.split(", "))]), *shown[1:]]


def _legend(table: Table) -> Iterator[RenderableType]:
    shown = [column for column in table.columns if column.narrow == "shown"]
    columns = legend(shown, [column.short or column.title for column in shown])
    if columns or table.note:
        yield Text(" ".join(text for text in (columns, table.note) if text).replace("`", ""), style="dim")


def _broken(title: str) -> str:
    """Return a title over several lines.

    Example:
        >>> _broken("repeat_last_frame").splitlines()
        ['repeat_', 'last_', 'frame']
    """
    return re.sub(r"(?<=[_+/])", "\n", title)
