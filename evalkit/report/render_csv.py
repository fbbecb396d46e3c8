"""The data tables of a report as CSV, with full precision.

In: a `Document`. Out: the text of each file, by its name.
Read next: `build.py`, which makes the data tables.
"""

from __future__ import annotations

import csv
import io

from evalkit.report.document import Document, Table


def render_csv(document: Document) -> dict[str, str]:
    """Return one CSV text for each data table of a document, by file name; an absent value is an empty cell."""
    return {f"{table.id}.csv": _csv(table) for table in document.data}


def _csv(table: Table) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([column.id for column in table.columns])
    writer.writerows(table.rows)
    return buffer.getvalue()
