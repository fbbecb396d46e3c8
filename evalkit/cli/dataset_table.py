"""The table of `score dataset --dry-run`: what would be predicted, and which branches would be executed.

In: a recording, the spec of a policy, modes and controls. Out: a table on the screen; nothing is predicted.
Read next: `evalkit/score/dataset.py`, which predicts; `evalkit/score/controls/choice.py`, the controls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from evalkit.console import out
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.spec import PolicySpec
from evalkit.score.controls.branches import BranchFolder, missing_branches
from evalkit.score.controls.choice import Controls
from evalkit.score.dataset import SUBJECTS, Mode
from evalkit.score.results.names import SUBJECTS as DESCRIPTIONS
from evalkit.score.sources.recorded import Source


def print_dataset(
    source: Source, policy: PolicySpec, modes: Sequence[Mode], controls: Sequence[str], branches: Path | None
) -> None:
    """Print tasks and episodes, what is predicted for each chunk, and the branches that are missing.

    Raises:
        BadConfig: If there is no episode.
    """
    outlines = source.outlines()
    if not outlines:
        raise BadConfig("There is nothing to score: the recording holds no episode that can be read.")
    tasks = Counter(outline.task for outline in outlines)
    listed = ", ".join(f"{task} {count}" for task, count in tasks.items())
    out.print(Text(f"{len(outlines)} episodes of {source.bench}: {listed}."), soft_wrap=True)
    table = Table(title=f"predictions of {policy.policy_id} from the first frame of each chunk of {policy.chunk_len}")
    for column in ("subject", "what it predicts"):
        table.add_column(column, overflow="fold")
    for subject in (*(SUBJECTS[mode] for mode in modes), *controls):
        table.add_row(subject, DESCRIPTIONS[subject])
    out.print(table)
    if branches is not None:
        folder = BranchFolder(root=branches, policy=policy)
        jobs = missing_branches(source, Controls(source, policy, controls), folder)
        count = sum(len(job.paths) * job.num_chunks for job in jobs)
        sentence = f"{branches} lacks the branches of {len(jobs)} episodes: {count} chunks would be executed."
        out.print(Text(sentence if jobs else f"{branches} holds every branch."), soft_wrap=True)
