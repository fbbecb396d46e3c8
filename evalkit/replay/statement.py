"""What a file of demonstrations states about the env in which they were recorded, and whether a bench fits.

In: the attributes of the group `data`. Out: a `Statement`; one sentence for what does not fit, and for what is open.
Read next: `demos.py`, the file; `jobs.py`, which refuses what does not fit.

robomimic writes `env_args` (JSON: env_name, env_version, env_kwargs), robosuite's recorder `env` and `env_info` (JSON:
the arguments of the env) with `repository_version`. RoboCasa's `env_version` is its own one where `robosuite_version`
stands next to it. An argument that a file does not state has robosuite's default value, which is the bench's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evalkit.contracts.recording import Replay
from evalkit.contracts.spec import OSC_STEP_M, OSC_STEP_RAD, EnvSpec

ROBOSUITE_TYPE = 1
"""What robomimic calls robosuite under `type`; 2 is gym, 3 is iGibson."""

COMPOSITES = ("BASIC", "HYBRID_MOBILE_BASE")
"""Composite controllers of robosuite 1.5 that give an arm's actions to the arm's own controller as they are."""

_STEP = (OSC_STEP_M,) * 3 + (OSC_STEP_RAD,) * 3

MEANING: dict[str, tuple[Any, ...]] = {
    "type": ("OSC_POSE",),
    "input_type": ("delta",),
    "control_delta": (True,),
    "input_ref_frame": ("base", "world"),
    "impedance_mode": ("fixed",),
    "input_max": (1.0,),
    "input_min": (-1.0,),
    "output_max": (_STEP,),
    "output_min": (tuple(-step for step in _STEP),),
    "position_limits": (None,),
    "orientation_limits": (None,),
}
"""Settings of an arm's controller that say what an action means, and which values the layout `osc_delta_base` has."""

MOTION: dict[str, tuple[Any, ...]] = {
    "kp": (150.0,),
    "damping_ratio": (1.0,),
    "uncouple_pos_ori": (True,),
    "interpolation": (None, "null"),
}
"""Settings that say how the robot follows a goal, and which values the bench has."""


class Unfit(ValueError):
    """A file whose demonstrations the bench cannot replay; the sentence says why, without the file's name."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a file states. None where it does not.

    Attributes:
        task: Name of the env.
        robots: Names of the robots.
        grippers: Names of the grippers that are not the robot's default.
        controller: Settings of the arm's controller, empty for the robot's default.
        composite: Type of the composite controller around it.
        control_hz: Control rate.
        version: Version of robosuite.
        env_type: robomimic's number of the simulator.
    """

    task: str | None = None
    robots: tuple[str, ...] | None = None
    grippers: tuple[str, ...] = ()
    controller: Mapping[str, Any] = field(default_factory=dict)
    composite: str | None = None
    control_hz: float | None = None
    version: str | None = None
    env_type: int | None = None

    @property
    def in_world_axes(self) -> bool:
        """Return whether actions are along the axes of the world, not of the robot's base."""
        return bool(self.controller.get("input_ref_frame") == "world")


def text_of(value: Any) -> str:
    """Return an attribute of an HDF5 file as text; h5py gives bytes, text or an array of one, as it was written.

    Example:
        >>> text_of(b"Lift"), text_of(np.array(["Lift"])), text_of(np.bytes_(b"Lift"))
        ('Lift', 'Lift', 'Lift')
    """
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def read_statement(attributes: Mapping[str, Any]) -> Statement:
    """Return what a file states.

    Raises:
        Unfit: If a part of it cannot be read, or two parts contradict each other.

    Example:
        >>> read_statement({"env": b"Lift", "env_info": '{"robots": "Panda"}', "repository_version": "1.5.2"}).robots
        ('Panda',)
    """
    robomimic = _json_of(attributes, "env_args")
    arguments = robomimic.get("env_kwargs", {}) if robomimic else _json_of(attributes, "env_info")
    if not isinstance(arguments, Mapping):
        raise Unfit(f"env_kwargs in its env_args must be a JSON object, got {arguments!r:.80}")
    names = [robomimic.get("env_name"), arguments.get("env_name")]
    names += [text_of(attributes["env"])] if "env" in attributes else []
    tasks = sorted({str(name) for name in names if name is not None})
    if len(tasks) > 1:
        raise Unfit(f"it states {len(tasks)} tasks, {' and '.join(tasks)}, in env, env_args and env_info")
    composite, controller = _controller(arguments.get("controller_configs"))
    versions = {**attributes, **robomimic}
    version = next((versions[key] for key in _VERSION_KEYS if versions.get(key) is not None), None)
    return Statement(
        task=tasks[0] if tasks else None,
        robots=_names(arguments.get("robots")),
        grippers=tuple(name for name in _names(arguments.get("gripper_types")) or () if name != "default"),
        controller=controller,
        composite=composite,
        control_hz=_number("control_freq", arguments.get("control_freq")),
        version=None if version is None else text_of(version).removeprefix("v"),
        env_type=robomimic.get("type"),
    )


_VERSION_KEYS = ("robosuite_version", "repository_version", "env_version")


def check_statement(statement: Statement, replay: Replay, spec: EnvSpec) -> list[str]:
    """Return what is open, a sentence each: what the file does not state, and how its robot moves otherwise.

    Args:
        statement: What the file states.
        replay: Whose demonstrations the bench replays.
        spec: What its env gives.

    Raises:
        Unfit: Names the first statement that does not fit.
    """
    for refusal in _refusals(statement, replay, spec):
        raise Unfit(refusal)
    return list(_open(statement, replay))


def _refusals(statement: Statement, replay: Replay, spec: EnvSpec) -> Iterator[str]:
    if statement.env_type not in (None, ROBOSUITE_TYPE):
        yield f"its env_args state the simulator type {statement.env_type}, robosuite's is {ROBOSUITE_TYPE}"
    if statement.version is not None and not f"{statement.version}.".startswith(f"{replay.version}."):
        yield (
            f"it was recorded with robosuite {statement.version}, whose models differ from those of robosuite "
            f"{replay.version}, which can be replayed"
        )
    if statement.robots is not None and (len(statement.robots) != 1 or statement.robots[0] not in replay.robots):
        yield f"its robot is {' and '.join(statement.robots) or 'none'}, one {replay.robots[0]} can be replayed"
    if set(statement.grippers) - {replay.gripper}:
        yield f"its gripper is {' and '.join(statement.grippers)}, the bench's is {replay.gripper}"
    if statement.control_hz is not None and abs(statement.control_hz - spec.control_hz) > 1e-6:
        yield f"its control rate is {statement.control_hz:g} Hz, the bench's is {spec.control_hz:g} Hz"
    if statement.composite not in (None, *COMPOSITES):
        yield f"its composite controller is {statement.composite}, {' or '.join(COMPOSITES)} can be replayed"
    for name, values in MEANING.items():
        if name in statement.controller and not _is_one_of(statement.controller[name], values):
            expected = " or ".join(map(_shown, values))
            yield (
                f"its arm's controller has {name} {_shown(statement.controller[name])}, the bench's has {expected}, so "
                "its actions mean something else"
            )


def _open(statement: Statement, replay: Replay) -> Iterator[str]:
    unstated = [
        name
        for name, value in (
            ("robot", statement.robots),
            ("controller", statement.controller),
            ("version of robosuite", statement.version),
        )
        if not value
    ]
    if unstated:
        yield (
            f"it does not state its {', '.join(unstated)}; a {replay.robots[0]} with OSC_POSE deltas of "
            f"{OSC_STEP_M:g} m and {OSC_STEP_RAD:g} rad and robosuite {replay.version} are assumed"
        )
    for name, values in MOTION.items():
        if name in statement.controller and not _is_one_of(statement.controller[name], values):
            yield (
                f"its controller has {name} {_shown(statement.controller[name])} in place of {_shown(values[0])}: the "
                "same actions move the bench's robot otherwise"
            )


def _json_of(attributes: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the JSON object under an attribute; empty where there is none."""
    if name not in attributes:
        return {}
    try:
        content = json.loads(text_of(attributes[name]))
    except ValueError as error:
        raise Unfit(f"its attribute {name} is not JSON ({error})") from error
    if not isinstance(content, Mapping):
        raise Unfit(f"its attribute {name} must hold a JSON object, got {content!r:.80}")
    return content


def _controller(configs: Any) -> tuple[str | None, Mapping[str, Any]]:
    """Return the type of the composite controller and the settings of the arm's; None and empty for the default.

    Example:
        >>> _controller({"type": "BASIC", "body_parts": {"right": {"type": "OSC_POSE"}}})
        ('BASIC', {'type': 'OSC_POSE'})
        >>> _controller([{"type": "JOINT_VELOCITY"}])
        (None, {'type': 'JOINT_VELOCITY'})
    """
    if isinstance(configs, Sequence) and not isinstance(configs, str):
        configs = configs[0] if len(configs) == 1 else f"{len(configs)} controllers"
    if configs is None:
        return None, {}
    if not isinstance(configs, Mapping):
        raise Unfit(f"its controller_configs must describe the controller of one robot, got {configs!r:.80}")
    if "body_parts" not in configs:
        return None, configs
    parts = configs["body_parts"]
    arms = parts.get("arms", parts) if isinstance(parts, Mapping) else {}
    if not isinstance(arms, Mapping) or not isinstance(arms.get("right"), Mapping):
        raise Unfit("its controller_configs hold no settings of the arm 'right' under body_parts")
    return str(configs.get("type")), arms["right"]


def _names(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    return (value,) if isinstance(value, str) else tuple(map(str, value if isinstance(value, Sequence) else [value]))


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise Unfit(f"its {name} must be a number, got {value!r:.80}")


def _is_one_of(value: Any, expected: Sequence[Any]) -> bool:
    """Return whether a value equals an expected one; one number stands for six of it.

    Example:
        >>> _is_one_of([1, 1, 1, 1, 1, 1], (1.0,)), _is_one_of(0.05, (_STEP,)), _is_one_of(None, (1.0,))
        (True, False, False)
    """
    return any(_equals(value, one) for one in expected)


def _equals(value: Any, one: Any) -> bool:
    if one is None or isinstance(one, str | bool):
        return bool(value == one)
    try:
        values = np.broadcast_to(np.asarray(value, np.float64), 6)
    except (TypeError, ValueError):
        return False
    return bool(np.allclose(values, one, rtol=1e-6, atol=0))


def _shown(value: Any) -> str:
    """Return a setting's value for a sentence."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(f'{part:g}' if isinstance(part, int | float) else str(part) for part in value)}]"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
