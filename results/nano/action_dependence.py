"""Do nano's predictions depend on the actions? Controls and action dependence, next to nano made blind to its actions.

In: the shipped weights. Out: a run, branches, two scored folders and their report; run again, it does what is missing.
Read next: `README.md`, which discusses the numbers; docs/scoring.md, what they mean.

The blind row is nano itself: whatever actions it is given, it predicts for actions that hold the robot still.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from evalkit import load_policy
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import OSC_DELTA_BASE, EnvSpec, still_action
from evalkit.contracts.types import PolicyReply, PolicyRequest
from evalkit.report.write import write_scored_folders_report
from evalkit.score.chunk import ScoreOptions
from evalkit.score.dataset import score_dataset
from evalkit.score.results.names import CONTROLS

TASKS = ("Lift", "Door")


class Blind:
    """A policy that predicts the same future whatever actions it is given."""

    def __init__(self, policy: Policy) -> None:
        self.spec, self._policy = replace(policy.spec, policy_id=f"{policy.spec.policy_id}, blind"), policy

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Start an episode."""
        self._policy.reset(episode_id, env)

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return the given actions, and the prediction for actions that hold the robot still."""
        replies = []
        for request in requests:
            given = request.given_actions
            if given is None:
                raise ValueError("This control is given its actions.")
            still = given * 0 + still_action(given[0] * 0, OSC_DELTA_BASE)
            (reply,) = self._policy.infer([replace(request, given_actions=still)])
            replies.append(replace(reply, actions=given))
        return replies


def main(
    out: Annotated[Path, typer.Argument(help="Folder for runs, branches and scores.")],
    seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 901,
    episodes: Annotated[int, typer.Option(help="Episodes of each task.")] = 3,
) -> None:
    """Run, execute other actions, score and report.

    Example: `python results/nano/action_dependence.py results/runs/dependence`
    """
    settings = ("policy.xwam.execute_steps=32", "run.video=false", "run.settle_steps=0")
    command = ["run", "--policy", "xwam", "--bench", "robosuite", "--tasks", ",".join(TASKS), "--seed", str(seed)]
    command += ["--episodes", str(episodes), "--out", str(out / "run"), *settings]
    subprocess.run([sys.executable, "-m", "evalkit.cli", *command], check=True)
    nano = load_policy("xwam").load()
    options = ScoreOptions(lpips_nets=())
    for name, policy in {"nano": nano, "blind": Blind(nano)}.items():
        result = out / name / "scores.parquet"
        if not result.exists():
            score_dataset(
                out / "run",
                policy,
                result,
                modes=("recorded",),
                controls=CONTROLS,
                branches=out / "branches",
                options=options,
            )
    write_scored_folders_report([out / "nano", out / "blind"], out / "report")
    print(out / "report/report.md")


if __name__ == "__main__":
    typer.run(main)
