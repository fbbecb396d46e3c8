"""The command `evalkit`: one line per verb, in the order in which they are used.

In: a command line. Out: exit code 0, or one sentence on stderr and exit code 2.
Read next: `list.py`, `vet.py`, `plan.py`, `check.py`, `run.py`, `merge.py`, `serve.py`, `score.py`, `report.py`,
`data.py`, `doctor.py` for the verbs; `options.py` for what they share.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import typer
from rich.text import Text
from typer.core import TyperGroup
from typer.exceptions import TyperException

from evalkit.cli import check, score
from evalkit.cli.data import record, replay
from evalkit.cli.doctor import doctor
from evalkit.cli.list import list_
from evalkit.cli.merge import merge
from evalkit.cli.plan import plan
from evalkit.cli.report import report, view
from evalkit.cli.run import Interrupted, run
from evalkit.cli.serve import serve
from evalkit.cli.vet import vet
from evalkit.console import err
from evalkit.contracts.errors import EvalkitError

VERBS = (
    *("list", "vet", "plan", "check", "run", "merge", "serve"),
    *("score", "report", "view", "record", "replay", "doctor"),
)


class InOrder(TyperGroup):
    """Lists the verbs in the order in which they are used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs."""
        return [verb for verb in VERBS if verb in self.commands]

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; where its arguments cannot be read, name the value or the setting that was meant."""
        try:
            return super().invoke(ctx)
        except TyperException as error:
            clarify(error)
            raise


def clarify(error: Any) -> None:
    """Complete the message of a flag that cannot be read: name the value, or the setting that was meant."""
    if isinstance(error, typer.BadParameter):
        error.message = error.message.removeprefix("Value error, ")
        causes: list[Any] = getattr(error.__cause__, "errors", list)()
        value = str(causes[0].get("input")) if causes else ""
        error.message += "" if value in error.message else f", got '{value}'"
    elif flag := getattr(error, "option_name", None):
        from evalkit.run.settings import RunSettings

        name = flag.lstrip("-").replace("-", "_")
        if error.ctx.info_name == "run" and name in RunSettings.__dataclass_fields__:
            error.message += f". Write run.{name}=VALUE, without --"


app = typer.Typer(
    name="evalkit",
    cls=InOrder,
    help="Evaluate world action models: robot policies that also predict RGB-D video.\n\n"
    "`run` lets a policy act in a simulator, `score` compares its predictions with the ground truth, `report` makes "
    "tables. `list` shows the benches and policies that are installed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("list")(list_)
for verb in (vet, plan, run, merge, serve, report, view, record, replay, doctor):
    app.command()(verb)
app.add_typer(check.app, name="check")
app.add_typer(score.app, name="score")


def main() -> None:
    """Run the command line; a user's mistake is one sentence on stderr and exit code 2."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except EvalkitError as error:
        err.print(Text.assemble(("error: ", "red"), str(error)), soft_wrap=True)
        sys.exit(130 if isinstance(error, Interrupted) else 2)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
