"""The 24 tasks as data: step limits, and which simulator state an oracle may read.

In: nothing. Out: `TASKS` and the spec of each task's env, without starting a simulator.
Read next: `state.py`, which reads what is named here; `env.py`, which runs the tasks.

Instructions are not here: RoboCasa writes one when an episode is reset, because it names what was drawn ("pick the
apple from the counter and place it in the cabinet"). Tasks stand in the order of X-WAM's release, which its seeds use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from envs.robosuite.tasks import CONTROL_HZ, T_EE_CAM
from evalkit.contracts.spec import OSC_DELTA_BASE, ROBOT_STATE, CameraSpec, EnvSpec

CAMERAS = (
    CameraSpec(name="robot0_agentview_left", kind="static"),
    CameraSpec(name="robot0_agentview_right", kind="static"),
    CameraSpec(name="robot0_eye_in_hand", kind="wrist", arm="left", T_ee_cam=T_EE_CAM),
)
"""The arm is called left because there is one. The two static views are fixed to the robot's base."""

_BOX = ("pos_m", "quat_wxyz", "half_size_m")

_SUFFIXES = {
    "joint": ("joint", "axis_pos_m", "axis"),
    "geom": _BOX,
    "object": _BOX,
    "fixture": _BOX,
    "interior": _BOX,
    "site": ("pos_m",),
    "open": ("open_frac",),
    "on": ("on",),
}


@dataclass(frozen=True, kw_only=True)
class StateItem:
    """A part of the simulator's state, published in the base frame under keys that start with `name`.

    Attributes:
        name: Start of the key.
        kind: What is published.
            `joint`: `<name>_joint` (rad or m), `<name>_axis_pos_m` (a point on its axis), `<name>_axis` (unit; positive
            joint values turn about it or slide along it).
            `geom`, `object`, `fixture`, `interior`: a box, `<name>_pos_m` (its centre), `<name>_quat_wxyz`,
            `<name>_half_size_m` along its own axes; of a collision shape, of a movable object, of a fixture from
            outside, of the room inside a fixture.
            `site`: `<name>_pos_m`.
            `open`: `<name>_open_frac`, how open RoboCasa says that a door is: 0 closed, 1 open.
            `on`: `<name>_on`, 1 if RoboCasa says that the fixture is switched on.
        source: Where it is found; the first of several names that the model has. `{door_fxtr}` stands for the name of
            what RoboCasa's task keeps under `door_fxtr`.
    """

    name: str
    kind: Literal["joint", "geom", "object", "fixture", "interior", "site", "open", "on"]
    source: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys that it gives.

        Example:
            >>> StateItem(name="knob", kind="joint", source=("{stove}_knob_{knob}_joint",)).keys
            ('knob_joint', 'knob_axis_pos_m', 'knob_axis')
        """
        return tuple(f"{self.name}_{suffix}" for suffix in _SUFFIXES[self.kind])


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task; its name is RoboCasa's name of the environment.

    Attributes:
        max_steps: Control steps after which an episode is a failure.
        state: What an oracle may read.
    """

    max_steps: int
    state: tuple[StateItem, ...]

    @property
    def privileged_keys(self) -> tuple[str, ...]:
        """Return the names of the state that an oracle may read."""
        return tuple(key for item in self.state for key in item.keys)


def _door(fixture: str, joints: tuple[str, ...], handles: tuple[str, ...], name: str = "door") -> tuple[StateItem, ...]:
    return (
        StateItem(name=name, kind="joint", source=tuple(f"{{{fixture}}}_{joint}" for joint in joints)),
        StateItem(name=name, kind="open", source=(f"{fixture}.{name}",)),
        StateItem(name=f"{name}_handle", kind="geom", source=tuple(f"{{{fixture}}}_{handle}" for handle in handles)),
    )


def _fixture(name: str) -> StateItem:
    return StateItem(name="fixture", kind="fixture", source=(name,))


def _interior(name: str) -> StateItem:
    return StateItem(name="interior", kind="interior", source=(name,))


_OBJ = StateItem(name="obj", kind="object", source=("obj",))
_CONTAINER = StateItem(name="container", kind="object", source=("container",))

_SINGLE_DOOR = (
    *_door("door_fxtr", ("doorhinge", "microjoint"), ("door_handle_handle", "door_handle")),
    _fixture("door_fxtr"),
)
_DOUBLE_DOOR = (
    *_door("door_fxtr", ("leftdoorhinge",), ("left_door_handle_handle",), "left_door"),
    *_door("door_fxtr", ("rightdoorhinge",), ("right_door_handle_handle",), "right_door"),
    _fixture("door_fxtr"),
)
_DRAWER = (*_door("drawer", ("slidejoint",), ("door_handle_handle",)), _fixture("drawer"))
_STOVE = (
    StateItem(name="knob", kind="joint", source=("{stove}_knob_{knob}_joint",)),
    StateItem(name="knob", kind="geom", source=("{stove}_knob_{knob}_main",)),
    _fixture("stove"),
)
_SINK = (
    StateItem(name="handle", kind="joint", source=("{sink}_handle_joint",)),
    StateItem(name="handle", kind="geom", source=("{sink}_handle_main",)),
    StateItem(name="spout", kind="joint", source=("{sink}_spout_joint",)),
    StateItem(name="spout", kind="geom", source=("{sink}_spout_top",)),
    _fixture("sink"),
)
_COFFEE = (
    StateItem(name="machine", kind="on", source=("coffee_machine",)),
    StateItem(name="start_button", kind="geom", source=("{coffee_machine}_start_button",)),
    StateItem(name="receptacle", kind="site", source=("{coffee_machine}_receptacle_place_site",)),
    _OBJ,
    _fixture("coffee_machine"),
)
_MICROWAVE = (
    StateItem(name="microwave", kind="on", source=("microwave",)),
    StateItem(name="start_button", kind="geom", source=("{microwave}_start_button",)),
    StateItem(name="stop_button", kind="geom", source=("{microwave}_stop_button",)),
    _fixture("microwave"),
)

TASKS: dict[str, Task] = {
    "PnPCounterToCab": Task(max_steps=500, state=(_OBJ, _fixture("counter"), _interior("cab"))),
    "PnPCabToCounter": Task(max_steps=500, state=(_OBJ, _fixture("counter"), _interior("cab"))),
    "PnPCounterToSink": Task(max_steps=700, state=(_OBJ, _fixture("counter"), _interior("sink"))),
    "PnPSinkToCounter": Task(max_steps=500, state=(_OBJ, _CONTAINER, _fixture("counter"), _interior("sink"))),
    "PnPCounterToMicrowave": Task(max_steps=600, state=(_OBJ, _CONTAINER, _fixture("counter"), _interior("microwave"))),
    "PnPMicrowaveToCounter": Task(max_steps=500, state=(_OBJ, _CONTAINER, _fixture("counter"), _interior("microwave"))),
    "PnPCounterToStove": Task(max_steps=500, state=(_OBJ, _CONTAINER, _fixture("stove"))),
    "PnPStoveToCounter": Task(max_steps=500, state=(_OBJ, _CONTAINER, _fixture("stove"))),
    "OpenSingleDoor": Task(max_steps=500, state=_SINGLE_DOOR),
    "CloseSingleDoor": Task(max_steps=500, state=_SINGLE_DOOR),
    "OpenDoubleDoor": Task(max_steps=1000, state=_DOUBLE_DOOR),
    "CloseDoubleDoor": Task(max_steps=700, state=_DOUBLE_DOOR),
    "OpenDrawer": Task(max_steps=500, state=_DRAWER),
    "CloseDrawer": Task(max_steps=500, state=_DRAWER),
    "TurnOnStove": Task(max_steps=500, state=_STOVE),
    "TurnOffStove": Task(max_steps=500, state=_STOVE),
    "TurnOnSinkFaucet": Task(max_steps=500, state=_SINK),
    "TurnOffSinkFaucet": Task(max_steps=500, state=_SINK),
    "TurnSinkSpout": Task(max_steps=500, state=_SINK),
    "CoffeeSetupMug": Task(max_steps=600, state=_COFFEE),
    "CoffeeServeMug": Task(max_steps=600, state=_COFFEE),
    "CoffeePressButton": Task(max_steps=300, state=_COFFEE),
    "TurnOnMicrowave": Task(max_steps=500, state=_MICROWAVE),
    "TurnOffMicrowave": Task(max_steps=500, state=_MICROWAVE),
}


def env_spec(task: str, *, image_hw_px: tuple[int, int]) -> EnvSpec:
    """Return what the env of a task gives."""
    return EnvSpec(
        env_id=f"robocasa/{task}",
        cameras=CAMERAS,
        image_hw_px=image_hw_px,
        arms=("left",),
        action_layout=OSC_DELTA_BASE,
        control_hz=CONTROL_HZ,
        privileged_keys=(*TASKS[task].privileged_keys, *ROBOT_STATE),
    )
