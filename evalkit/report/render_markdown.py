"""A report as Markdown.

In: a `Document`. Out: text.
Read next: `document.py`, the parts; `write.py`, which puts the text on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote

from evalkit.report.document import Caveats, Document, Facts, Figures, Json, Paragraph, Part, Section, Table
from evalkit.report.format import cell_text, legend


def render_markdown(document: Document) -> str:
    """Return a document as Markdown.

    Example:
        >>> print(render_markdown(Document(title="Report", parts=(Paragraph(text="No runs."),))), end="")
        # Report
        <BLANKLINE>
        No runs.
    """
    return "\n\n".join([f"# {document.title}", *_parts(document.parts, level=2)]) + "\n"


def _parts(parts: Sequence[Part], *, level: int) -> Iterator[str]:
    for part in parts:
        match part:
            case Section():
                yield f"{'#' * level} {part.title}"
                yield from _parts(part.parts, level=level + 1)
            case Table():
                yield from _table(part)
            case Caveats():
                yield "\n".join(f"> - **{sentence}**" for sentence in part.sentences)
            case Facts():
                yield "\n".join(f"- {line}" for line in part.lines)
            case Figures():
                yield part.note
                yield from (f"![{path}]({quote(path)})" for path in part.shown)
                if part.linked:
                    yield "\n".join(f"- [{path}]({quote(path)})" for path in part.linked)
            case Paragraph():
                yield part.text
            case Json():
                yield f"```json\n{part.text}\n```"


def _table(table: Table) -> Iterator[str]:
    header = [column.title for column in table.columns]
    kinds = [column.kind for column in table.columns]
    rows = ([cell_text(cell, kind) for cell, kind in zip(row, kinds, strict=True)] for row in table.rows)
    yield "\n".join(_line(cells) for cells in (header, ["---"] * len(header), *rows))
    columns = legend(table.columns, [f"`{title}`" for title in header])
    if columns or table.note:
        yield " ".join(text for text in (columns and f"Columns: {columns}", table.note) if text)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
