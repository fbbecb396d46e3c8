"""The verb `doctor`: what this machine has and lacks.

In: the name of a bench or policy with overrides of its settings, or none. Out: a table on the screen.
Read next: `evalkit/doctor.py`, which looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from evalkit.console import out

if TYPE_CHECKING:
    from evalkit.contracts.env import Finding


def doctor(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A bench or a policy: show only what it needs in addition."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Hydra overrides of its settings, for example `bench.robocasa.protocol=xwam`.",
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
    - `evalkit doctor xwam policy.xwam.checkpoint=nano`
    - `evalkit doctor remote policy.remote.url=ws://host:8000 policy.remote.adapter=pi0-robotwin`
    """
    from rich.table import Table

    from evalkit.doctor import examine

    findings = examine() if name is None else _examine_named(name, overrides or [])
    if not findings:
        out.print(f"'{name}' needs nothing in addition to what `evalkit doctor` shows.")
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


def _examine_named(name: str, overrides: Sequence[str]) -> list[Finding]:
    """Return what a bench, or else a policy, of this name needs in addition to evalkit, and whether it is there.

    Raises:
        UnknownName: If there is neither, or it has no such setting.
    """
    from evalkit.config import bind_bench, bind_policy
    from evalkit.contracts import plugins
    from evalkit.contracts.errors import UnknownName
    from evalkit.doctor import examine_bench

    benches, policies = plugins.names(plugins.BENCHES), plugins.names(plugins.POLICIES)
    if name in policies and name not in benches:
        return bind_policy(name, overrides).examine()
    if ":" not in name and name not in benches:
        raise UnknownName("bench or policy", name, [*benches, *policies], see="evalkit list")
    return examine_bench(bind_bench(name, overrides))
