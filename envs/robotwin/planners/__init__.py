"""Motion planners that RoboTwin's robot can use: its own `curobo`, `mplib`, or ours for a machine without CUDA, `cpu`.

In: RoboTwin's modules `envs.robot.planner` and `envs.robot.robot`, a planner's name. Out: those modules with the
planner in place, and its counts. Read next: `cpu.py`.

RoboTwin's scripted expert and every end-effector action go through the planner, so a run names it and a planner other
than `curobo` is a departure.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .counts import PlanCounts
from .curobo import check_curobo, kept_planner

PLANNERS = ("curobo", "mplib", "cpu")

COUNTED: dict[str, tuple[str, ...]] = {
    "curobo": (),
    "mplib": ("straight", "sampled", "timed_out"),
    "cpu": ("straight", "bent"),
}
"""The counts of each planner that records hold; those of `PlanCounts` that can differ from 0 and say how it moved."""

_MODULES = {"mplib": ".mplib", "cpu": ".cpu"}

__all__ = ["COUNTED", "PLANNERS", "PlanCounts", "install"]


def install(name: str, planner_module: ModuleType, robot_module: ModuleType) -> PlanCounts:
    """Put a planner in place of RoboTwin's `CuroboPlanner` and `MplibPlanner`; return the counts that it keeps.

    Args:
        name: One of `PLANNERS`; `curobo` is RoboTwin's own, made once per arm, and keeps no counts.
        planner_module: `envs.robot.planner`.
        robot_module: `envs.robot.robot`, which took the classes by name from the module before.

    Raises:
        ValueError: No such planner, or mplib or cpu lack something.
        EvalkitError: What curobo needs is not installed.
    """
    if name == "curobo":
        check_curobo(planner_module)
        robot_module.CuroboPlanner = kept_planner(planner_module.CuroboPlanner)  # type: ignore[attr-defined]
        return PlanCounts()
    if name not in _MODULES:
        raise ValueError(f"Unknown planner '{name}'; expected one of {', '.join(PLANNERS)}.")
    chosen = import_module(_MODULES[name], __name__)
    for module in (planner_module, robot_module):
        module.CuroboPlanner = chosen.Planner  # type: ignore[attr-defined]
        module.MplibPlanner = chosen.PathTiming  # type: ignore[attr-defined]
    counts: PlanCounts = chosen.COUNTS
    return counts
