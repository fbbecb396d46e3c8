"""The command `xwam`: checkpoints, data sets and training.

In: arguments. Out: files, or lines on the screen; a mistake is one sentence on stderr and exit code 2.
Read next: `checkpoints.py`, `data.py`, `training.py` and `inverse_dynamics.py`, the verbs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from evalkit.contracts.errors import EvalkitError
from xwam.cli.checkpoints import average, convert, show, speed
from xwam.cli.data import check_data, export_lerobot, import_lerobot, statistics
from xwam.cli.inverse_dynamics import infer_actions
from xwam.cli.training import train, train_decoder


class PlainErrors(TyperGroup):
    """Shows what is wrong with a value without the type of the error."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    name="xwam",
    cls=PlainErrors,
    help="Checkpoints, data sets and training of X-WAM, a world action model.\n\n"
    "`evalkit run --policy xwam` evaluates a checkpoint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for verb in (
    show,
    convert,
    average,
    speed,
    check_data,
    statistics,
    export_lerobot,
    import_lerobot,
    train,
    train_decoder,
    infer_actions,
):
    app.command()(verb)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="xwam")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (ValueError, OSError, EvalkitError) as error:
        Console(stderr=True).print(Text.assemble(("xwam: ", "red"), str(error)), soft_wrap=True)
        return 2
    return 0
