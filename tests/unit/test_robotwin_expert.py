"""What is noted of the plans of RoboTwin's expert: which arm reached no pose, and for how long that counts."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from envs.robotwin import expert
from envs.robotwin.planners.shared import gripper_plan


def planned(*statuses: tuple[str, str]) -> str | None:
    """Return the sentence after plans of arms with these statuses."""
    trace, coming = expert._Trace([]), list(statuses)
    robot = SimpleNamespace(
        left_plan_path=lambda: {"status": coming.pop(0)[1]}, right_plan_path=lambda: {"status": coming.pop(0)[1]}
    )
    for arm in ("left", "right"):
        expert._note_failures(robot, arm, "plan_path", trace, f"{arm} failed")
    for arm, _ in statuses:
        getattr(robot, f"{arm}_plan_path")()
    return trace.unreached


def test_the_last_arm_without_a_plan_is_named() -> None:
    assert planned(("left", "Fail"), ("right", "Fail")) == "right failed"
    assert planned(("right", "Fail"), ("left", "Success")) == "right failed"


def test_an_arm_that_finds_a_plan_again_is_not_named() -> None:
    assert planned(("left", "Fail"), ("left", "Success")) is None


def played(play_once: Callable[[], Any]) -> str | None:
    """Return the verdict on a scene whose script does this after an arm found no plan."""
    scene: Any = SimpleNamespace(play_once=play_once, plan_success=True, check_success=lambda: True)
    return expert._play(scene, expert._Trace([], unreached_by_arm={"left": "left failed"}))


def test_an_error_of_a_planner_is_no_verdict() -> None:
    """The same error in a task of RoboTwin, which goes on with a pose that is None, is one."""
    with pytest.raises(TypeError):
        played(lambda: gripper_plan(None, 1.0))  # type: ignore[arg-type]
    assert str(played(lambda: 1.0 - None)).startswith("left failed (TypeError: ")  # type: ignore[operator]
