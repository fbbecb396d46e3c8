"""What a robot may be told that cannot be done where it stands, and the numbers of such episodes in a data set.

In: a bench, a task. Out: instructions; numbers.
Read next: `record.py`, which records refusals with `--refuse`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalkit.contracts.env import Bench
from evalkit.contracts.errors import BadConfig

EPISODES_PER_TASK = 100_000
"""Numbers of episodes that each task of a data set has to itself: half for demonstrations, half for refusals."""

FIRST_REFUSAL = EPISODES_PER_TASK // 2
"""Number, among those of a task, of the first refusal; their scenes are those of its demonstrations."""

REFUSALS = 5_000
"""Numbers of refusals that a task has for refusing anything, and then for each task that alone is refused."""

POSSIBLE: Mapping[str, Mapping[str, frozenset[str]]] = {"robosuite": {"Stack": frozenset({"Lift"})}}
"""Which other tasks can be done in a task's scene, so that nobody may refuse them; of other benches nobody knows."""

ANYTHING = "anything"
"""What is refused where no task is named."""


def impossible(bench: Bench, config: Any, task: str, setting: str, refuse: str) -> tuple[str, ...]:
    """Return the instructions that are refused: of other tasks of as many arms that the scene of a task does not allow.

    Raises:
        BadConfig: If nobody wrote down what it allows, it allows what is to be refused, or instructions are shuffled.
    """
    if bench.name not in POSSIBLE:
        raise BadConfig(
            f"Nobody wrote down what scenes of '{bench.name}' do not allow, so nothing can be refused there."
        )
    if getattr(config, "shuffle_instructions", False):
        raise BadConfig("Refusals need each task's own instruction: leave shuffle_instructions out.")

    def arms(name: str) -> tuple[str, ...]:
        return bench.env_spec(config, task=name, setting=setting).arms

    def instruction(name: str) -> str | None:
        (episode,) = bench.plan_episodes(config, task=name, setting=setting, num_episodes=1, seed=0)
        return episode.instruction

    possible = {task} | POSSIBLE[bench.name].get(task, frozenset())
    others = [other for other in bench.tasks if other not in possible and arms(other) == arms(task)]
    if refuse not in (ANYTHING, *others):
        raise BadConfig(f"--refuse {refuse}: in the scene of {task} only these can be refused: {', '.join(others)}.")
    refused = tuple(filter(None, map(instruction, others if refuse == ANYTHING else [refuse])))
    if not refused:
        raise BadConfig(f"--refuse {refuse}: no other task has an instruction that could be refused in that of {task}.")
    return refused
