"""The verb `merge`: one run folder of several.

In: run folders of one plan. Out: a run folder with the records, clips and videos of all.
Read next: `evalkit/store/merge.py`, which merges; `run.py`, whose `--shard` makes such runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit.console import out
from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.text import count_of


def merge(
    to: Annotated[Path, typer.Argument(metavar="OUT", help="Merged run folder, new or to be extended.")],
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders of the same plan.")],
) -> None:
    """Merge runs of one plan into one run folder.

    The runs must have the same plan (`plan.json` holds its hash), as the shards of `evalkit run --shard i/n` have.
    Records, clips, videos and step rows are copied; the runs stay as they are. An episode that two runs recorded with
    different results is refused. Scores are not merged: run `evalkit score run OUT`. Exit with 2 if a planned episode
    is still missing; the merged run is written all the same.

    Examples:

    - `evalkit merge results/runs/all results/runs/shard1 results/runs/shard2`
    """
    from evalkit.store.merge import merge as merge_runs
    from evalkit.store.merge import missing_sentence

    merged = merge_runs(to, runs)
    equal = f", {count_of(merged.num_equal, 'record')} in several runs with equal results" if merged.num_equal else ""
    out.print(f"{count_of(merged.num_added, 'record')} added to {to}{equal}", soft_wrap=True)
    if merged.missing:
        raise EvalkitError(missing_sentence(merged.missing, to))
