"""RoboTwin's scripted expert on one seed: whether it solves the episode, how long it takes, and its motion.

In: scenes, a seed. Out: an `ExpertRun`; a `Vetting` for the manifest. Read next: `scene.py`, which builds scenes;
`planners/`, on which the verdict depends; `env.py`, whose `vet` calls this.

RoboTwin evaluates a policy on seeds that its expert solves: objects at rest, every plan found, goal met at the end.
RoboTwin counts any error as "not solved". Here an error is a verdict only where an unreachable pose caused it; any
other, and any of our own planners, is raised, so that a machine that lacks a file or a renderer rejects no seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from traceback import walk_tb
from typing import Any

import numpy as np

from evalkit.contracts.manifest import Vetting
from evalkit.contracts.types import PROPRIO_DIM

from . import planners
from .checkout import import_robotwin
from .instructions import SPLITS, Instructions
from .poses import measured_poses
from .scene import Scenes
from .tasks import ARMS, FRAME_STEPS

ERRORS_OF_MISSING_POSES = (AssertionError, AttributeError, IndexError, TypeError, ValueError)
"""What RoboTwin's tasks raise when they go on with a pose that is None because no plan reached it."""


@dataclass(frozen=True)
class ExpertRun:
    """What the expert did with a seed.

    Attributes:
        reason: Why it did not solve the episode, one short sentence; None if it did.
        steps: Physics steps that it took.
        ee_world: [T, 16] float64, measured poses of the end effectors and commanded grippers, as `proprio`: at the
            start, every 15 physics steps, and at the end. T is 0 if the scene has no start.
    """

    reason: str | None
    steps: int
    ee_world: np.ndarray

    @property
    def solved(self) -> bool:
        """Whether the seed counts."""
        return self.reason is None


@dataclass
class _Trace:
    """What is noted while the expert moves."""

    poses: list[np.ndarray]
    steps: int = 0
    unreached_by_arm: dict[str, str] = field(default_factory=dict)

    @property
    def unreached(self) -> str | None:
        """Say which arm last asked for a pose that no plan reached, and has reached none since; None if none has."""
        return next(reversed(self.unreached_by_arm.values()), None)


def run_expert(scenes: Scenes, seed: int) -> ExpertRun:
    """Build the scene of a seed and let the expert play it; the scene is then the current one, and used up.

    Raises:
        MissingAssets: If the scene needs a file that is not there.
        RuntimeError: If RoboTwin ends the process.
        Exception: Whatever else goes wrong for a reason that is not the seed's.
    """
    unstable: type[Exception] = import_robotwin("envs.utils.create_actor").UnStableError
    try:
        scene = scenes.build(seed)
    except unstable as error:
        objects = str(error).rpartition(":")[2].strip()
        return ExpertRun(f"the objects do not come to rest: {objects}", 0, np.zeros((0, PROPRIO_DIM)))
    with _traced(scene) as trace:
        reason = _play(scene, trace)
    poses = trace.poses if trace.steps % FRAME_STEPS == 0 else [*trace.poses, measured_poses(scene)]
    return ExpertRun(reason, trace.steps, np.array(poses))


def vet(
    scenes: Scenes,
    instructions: Instructions,
    *,
    setting: str,
    seed: int,
    begin: Callable[[int], tuple[Mapping[str, str], str, str]],
    listed: Mapping[str, str] | None = None,
) -> Vetting:
    """Return the verdict on a seed; for one that is accepted, begin its episode once more, as a policy meets it.

    Args:
        scenes: Where the expert plays.
        instructions: The task's.
        setting: `clean` or `randomized`; the sentences drawn depend on it.
        seed: Seed of the scene.
        begin: Begins the episode of a seed and returns the objects of its scene, and the hashes of its first state and
            of its first frame.
        listed: Sentence by split that others fixed for the seed; those that their own split gives in this scene are
            kept. None to draw a sentence of each split.

    Raises:
        MissingAssets: If the scene needs a file that is not there.
    """
    run = run_expert(scenes, seed)
    if not run.solved:
        return Vetting(seed=seed, accepted=False, reason=run.reason, expert_steps=run.steps or None)
    info, state_sha256, frame_sha256 = begin(seed)
    if listed is None:
        sentences: dict[str, str] = {
            split: instructions.draw(info, split, setting=setting, seed=seed) for split in SPLITS
        }
    else:
        sentences = {split: text for split, text in listed.items() if instructions.can_be_said(text, info, split)}
    return Vetting(
        seed=seed,
        accepted=True,
        instructions=sentences,
        expert_steps=run.steps,
        first_state_sha256=state_sha256,
        first_frame_sha256=frame_sha256,
    )


def _play(scene: Any, trace: _Trace) -> str | None:
    """Run the script; return why it did not solve the episode, or None."""
    try:
        scene.play_once()
    except SystemExit as error:
        raise RuntimeError(f"RoboTwin ended the process in play_once of {type(scene).__name__}") from error
    except ERRORS_OF_MISSING_POSES as error:
        if trace.unreached is None or _is_of_a_planner(error):
            raise
        return f"{trace.unreached} ({type(error).__name__}: {error})"
    if not scene.plan_success:
        return trace.unreached or "the expert found no pose for the next movement"
    return None if scene.check_success() else "the goal is not met when the expert is done"


def _is_of_a_planner(error: Exception) -> bool:
    """Say whether an error was raised within our planners, whatever the seed."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
    return any(name.startswith(f"{planners.__name__}.") for name in modules)


@contextmanager
def _traced(scene: Any) -> Iterator[_Trace]:
    """Note poses every 15 physics steps, and the last movement for which no plan was found."""
    trace = _Trace([measured_poses(scene)])
    step = scene.scene.step

    def traced_step() -> None:
        step()
        trace.steps += 1
        if trace.steps % FRAME_STEPS == 0:
            trace.poses.append(measured_poses(scene))

    scene.scene.step = traced_step
    for arm in ARMS:
        _note_failures(scene.robot, arm, "plan_path", trace, f"no plan of the {arm} arm reaches a pose")
        _note_failures(scene.robot, arm, "plan_multi_path", trace, f"the {arm} arm reaches none of the grasp poses")
    try:
        yield trace
    finally:
        scene.scene.step = step


def _note_failures(robot: Any, arm: str, method: str, trace: _Trace, sentence: str) -> None:
    """Note the sentence when a method of an arm finds no plan; forget it when the arm finds one again."""
    plan = getattr(robot, f"{arm}_{method}")

    def noted(*args: Any, **kwargs: Any) -> Mapping[str, Any]:
        result: Mapping[str, Any] = plan(*args, **kwargs)
        statuses = [result["status"]] if isinstance(result["status"], str) else list(result["status"])
        trace.unreached_by_arm.pop(arm, None)
        if "Success" not in statuses:
            trace.unreached_by_arm[arm] = sentence
        return result

    setattr(robot, f"{arm}_{method}", noted)
