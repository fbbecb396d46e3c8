"""Planners and expert in a real RoboTwin: against SAPIEN's kinematics, mplib's timing, and themselves.

In: RoboTwin in an interpreter of its own, with the assets of ten tasks. Out: checks of plans and verdicts.
Read next: `robotwin_planner_facts.py`, which measures there; `tests/unit/test_robotwin_planner.py`, without RoboTwin.
"""

from typing import Any

import pytest

from tests.doubles.robotwin import MPLIB_VARIABLE, measured, needs_robotwin, root

pytestmark = [*needs_robotwin(), pytest.mark.timeout(900)]

needs_mplib = needs_robotwin(MPLIB_VARIABLE)[1]


def facts(function: str, *arguments: Any, **where: Any) -> Any:
    """Return what a function of `robotwin_planner_facts.py` measures."""
    return measured(function, root(), *arguments, timeout_s=800, module="robotwin_planner_facts", **where)


def test_every_reachable_pose_is_reached() -> None:
    found = facts("reach")
    assert found["found"] == found["asked"]
    assert found["metres"] < 2e-5
    assert found["radians"] < 2e-5
    assert found["limits_kept"]
    assert found["far"] == "Fail"


def test_urdf_limits_nothing_but_the_range_does() -> None:
    found = facts("reach")
    assert found["urdf_range"] == [-10.0, 10.0]
    assert max(abs(limit) for side in found["range"] for limit in side) < 3.6


def test_constrained_move_is_straight() -> None:
    found = facts("straight")
    assert found["mm"] < 0.2
    assert found["turn_rad"] < 1e-3
    assert found["samples"] >= 32


def test_expert_repeats_to_the_bit() -> None:
    """In another process and after another seed, with the verdict that RoboTwin's authors' planner gives."""
    one, two = facts("expert", "click_bell", [100000, 100001]), facts("expert", "click_bell", [100001])
    assert one[1] == two[0]
    assert [run["reason"] for run in one] == [None, None]
    assert all(run["rows"] == 1 + -(-run["steps"] // 15) for run in one)


@pytest.mark.parametrize(("joint", "reached_rad", "blocked_rad"), [(2, -0.2, -0.5), (3, -0.02, -0.5)])
def test_the_arm_stops_itself_outside_its_range(joint: int, reached_rad: float, blocked_rad: float) -> None:
    reached, blocked = facts("range_end", joint, [reached_rad, blocked_rad])
    assert reached < 0.01
    assert blocked > 0.2


@needs_mplib
def test_a_time_limit_is_no_verdict() -> None:
    found = facts("out_of_time", python=MPLIB_VARIABLE)
    assert "plans ran out of time on this machine: no verdict on seed 100000" in found["verdict"]
    assert found["counters"]["timed_out_plans"] == 2
    assert found["counters"]["failed_plans_left"] == found["counters"]["failed_plans_right"] == 1


@needs_mplib
def test_joint_actions_are_timed_as_by_mplib() -> None:
    found = facts("joint_timing", python=MPLIB_VARIABLE)
    assert found["mplib"] == "0.2.1"
    assert [ours for _, ours in found["lengths"]] == [theirs for theirs, _ in found["lengths"]]
    assert found["largest"] == 0


@needs_mplib
def test_mplib_repeats_and_reaches_the_pose() -> None:
    found = facts("mplib_plans", python=MPLIB_VARIABLE)
    assert [plan["same"] for plan in found["plans"]] == [True, True, True]
    assert all(plan["off"] < 2.1e-3 and plan["samples"] >= 32 for plan in found["plans"])
    assert found["far"] == "Fail"
