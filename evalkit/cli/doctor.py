"""The verb `doctor`: what this machine has and lacks.

In: the name of a bench with overrides of its settings, or none. Out: a table on the screen.
Read next: `evalkit/doctor.py`, which looks.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from evalkit.console import out


def doctor(
    bench: Annotated[
        str | None,
        typer.Argument(metavar="[BENCH]", help="Name of a bench: show only what this bench needs in addition."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Hydra overrides of the bench's settings, for example `bench.robocasa.protocol=xwam`.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show what this machine has, what it lacks, and how to install it.

    Exit with 1 if something required is missing. What is `absent` is optional.

    Examples:

    - `evalkit doctor`
    - `evalkit doctor robocasa`
    - `evalkit doctor robocasa bench.robocasa.protocol=xwam`
    """
    from rich.table import Table

    from evalkit.config import bind_bench
    from evalkit.doctor import examine, examine_bench

    findings = examine() if bench is None else examine_bench(bind_bench(bench, overrides or []))
    if not findings:
        out.print(f"Bench '{bench}' needs nothing in addition to what `evalkit doctor` shows.")
        return
    table = Table("requirement", "state", "how to get it", box=None, pad_edge=False)
    for finding in findings:
        state = ("ok", "green") if finding.ok else ("missing", "red") if finding.needed else ("absent", "yellow")
        table.add_row(finding.what, Text.assemble(state, " " + finding.found), "" if finding.ok else finding.remedy)
    out.print(table)
    if not all(finding.ok for finding in findings):
        out.print("`missing` marks what is required, `absent` what is optional.")
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(1)
