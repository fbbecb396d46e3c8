"""Instructions that cannot be done in a task's scene, and the episode numbers of refusals in a data set.

In: a bench, a task. Out: instructions; numbers.
Read next: `plan.py`, which plans refusals.
"""

from __future__ import annotations

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.recording import RecordableBench

EPISODES_PER_TASK = 100_000
"""Episode numbers that each task of a data set has to itself: half for demonstrations, half for refusals."""

FIRST_REFUSAL = EPISODES_PER_TASK // 2
"""Number, among those of a task, of the first refusal; the scenes are those of the task's demonstrations."""

REFUSALS = 5_000
"""Numbers that a task has for refusals of anything, and then for refusals of each single task."""

ANYTHING = "anything"
"""The value of `--refuse` for refusals of all tasks that cannot be done in the scene."""


def number_of_first(bench: RecordableBench, task: str, refuse: str | None) -> int:
    """Return the number of the first demonstration of a task, or of its first refusal of one kind."""
    tasks = sorted(bench.tasks)
    start = tasks.index(task) * EPISODES_PER_TASK
    if refuse is None:
        return start
    return start + FIRST_REFUSAL + REFUSALS * [ANYTHING, *tasks].index(refuse)


def impossible(bench: BoundBench, task: str, setting: str, refuse: str) -> tuple[str, ...]:
    """Return the instructions to refuse: of other tasks of as many arms that cannot be done in the scene of a task.

    Raises:
        BadConfig: If the bench does not say what can be done there, or what is to be refused can be done there.
    """
    possible = bench.recordable.possible_tasks(bench.config, task=task)
    if possible is None:
        raise BadConfig(
            f"Bench '{bench.name}' does not say which tasks its scenes do not allow, so nothing can be refused there."
        )

    def arms(name: str) -> tuple[str, ...]:
        return bench.env_spec(task=name, setting=setting).arms

    def instruction(name: str) -> str | None:
        (episode,) = bench.plan_episodes(task=name, setting=setting, num_episodes=1, seed=0)
        return episode.instruction

    others = [other for other in bench.tasks if other not in possible and arms(other) == arms(task)]
    if refuse not in (ANYTHING, *others):
        raise BadConfig(f"--refuse {refuse}: in the scene of {task} only these can be refused: {', '.join(others)}.")
    refused = tuple(filter(None, map(instruction, others if refuse == ANYTHING else [refuse])))
    if not refused:
        raise BadConfig(f"--refuse {refuse}: no other task has an instruction that could be refused in that of {task}.")
    return refused
