"""Rewrite the golden files: `python -m tests.golden`, or `make golden`.

In: nothing. Out: one file per case, and a line for each that changed.
Read next: `cases.py`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.golden.cases import CASES, FOLDER


def main() -> None:
    """Write the text of every case."""
    for name, make in CASES.items():
        path = FOLDER / name
        with tempfile.TemporaryDirectory() as folder:
            text = make(Path(folder))
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
