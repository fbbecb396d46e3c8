"""The seven tasks as data: words, step limits, cameras, and which simulator state an oracle may read.

In: nothing. Out: `TASKS` and the spec of each task's env, without starting a simulator.
Read next: `scene.py`, which builds them; `env.py`, which runs them.

Frames: THE base frame is the base of robot0. Robot0 is the arm `left`, also where it is the only one; in the two-arm
tasks robot1 faces robot0 from the other side of the table and is the arm `right`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evalkit.contracts.spec import OSC_DELTA_BASE, Arm, CameraSpec, EnvSpec

CONTROL_HZ = 20.0

T_EE_CAM = (
    (-1.0, 0.0, 0.0, 0.0),
    (0.0, -1.0, 0.0, 0.05),
    (0.0, 0.0, 1.0, -0.097),
    (0.0, 0.0, 0.0, 1.0),
)
"""Hand-eye transform of robosuite's Panda: `eye_in_hand` seen from the gripper's grip site."""

Vec3 = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class StaticCamera:
    """A camera that we add to robosuite's scene; positions in the world frame, metres."""

    name: str
    eye_m: Vec3
    target_m: Vec3
    fovy_deg: float = 45.0


@dataclass(frozen=True, kw_only=True)
class StateItem:
    """A part of the simulator's state, published in the base frame under keys that start with `name`.

    Attributes:
        name: Start of the key.
        kind: `pose` gives `<name>_pos_m` and `<name>_quat_wxyz` of a body, `site` gives `<name>_pos_m`,
            `hinge` gives `<name>_rad`, `size` gives `<name>_half_size_m` of a box.
        source: MuJoCo's name of the body, site, joint or geom.
    """

    name: str
    kind: Literal["pose", "site", "hinge", "size"]
    source: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys that it gives.

        Example:
            >>> StateItem(name="cube", kind="pose", source="cube_main").keys
            ('cube_pos_m', 'cube_quat_wxyz')
        """
        suffixes = {
            "pose": ("pos_m", "quat_wxyz"),
            "site": ("pos_m",),
            "hinge": ("rad",),
            "size": ("half_size_m",),
        }
        return tuple(f"{self.name}_{suffix}" for suffix in suffixes[self.kind])


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Where `wide` and `randomized` may put the objects of one of robosuite's samplers, relative to its origin."""

    x_m: tuple[float, float]
    y_m: tuple[float, float]
    yaw_rad: tuple[float, float] | None = None
    sampler: str | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task; its name is robosuite's name of the environment.

    Attributes:
        instruction: Instruction for policies, in every setting.
        max_steps: Control steps after which an episode is a failure; about three times what a calm expert needs.
        cameras: Static views in order.
        state: What an oracle may read.
        spread: Wider placement of the settings `wide` and `randomized`.
        num_arms: 1 or 2.
    """

    instruction: str
    max_steps: int
    cameras: tuple[StaticCamera, ...]
    state: tuple[StateItem, ...]
    spread: Spread
    num_arms: int = 1

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Return the arms that exist; robot i is arm i."""
        return ("left", "right") if self.num_arms == 2 else ("left",)

    @property
    def privileged_keys(self) -> tuple[str, ...]:
        """Return the names of the state that an oracle may read."""
        return tuple(key for item in self.state for key in item.keys)

    @property
    def camera_specs(self) -> tuple[CameraSpec, ...]:
        """Return the views in order: static ones, then the wrist of each arm."""
        static = [CameraSpec(name=camera.name, kind="static") for camera in self.cameras]
        wrist = [
            CameraSpec(name=f"robot{i}_eye_in_hand", kind="wrist", arm=arm, T_ee_cam=T_EE_CAM)
            for i, arm in enumerate(self.arms)
        ]
        return (*static, *wrist)


def _pair(target_m: Vec3, *, back_m: float, aside_m: float, up_m: float) -> tuple[StaticCamera, ...]:
    """Return two cameras in front of the robot, to the left and the right of a point as the robot sees it."""
    x, y, z = target_m
    left = StaticCamera(name="view_left", eye_m=(x + back_m, y + aside_m, z + up_m), target_m=target_m)
    right = StaticCamera(name="view_right", eye_m=(x + back_m, y - aside_m, z + up_m), target_m=target_m)
    return left, right


_TABLE = _pair((-0.04, 0.0, 0.88), back_m=0.5, aside_m=0.42, up_m=0.46)

TASKS: dict[str, Task] = {
    "Lift": Task(
        instruction="Pick up the cube and lift it off the table.",
        max_steps=200,
        cameras=_TABLE,
        state=(
            StateItem(name="cube", kind="pose", source="cube_main"),
            StateItem(name="cube", kind="size", source="cube_g0"),
        ),
        spread=Spread(x_m=(-0.12, 0.12), y_m=(-0.2, 0.2)),
    ),
    "Stack": Task(
        instruction="Stack the small red cube on top of the green cube.",
        max_steps=400,
        cameras=_TABLE,
        state=(
            StateItem(name="red_cube", kind="pose", source="cubeA_main"),
            StateItem(name="red_cube", kind="size", source="cubeA_g0"),
            StateItem(name="green_cube", kind="pose", source="cubeB_main"),
            StateItem(name="green_cube", kind="size", source="cubeB_g0"),
        ),
        spread=Spread(x_m=(-0.12, 0.12), y_m=(-0.18, 0.18)),
    ),
    "Door": Task(
        instruction="Turn the handle and pull the door open.",
        max_steps=400,
        cameras=(
            StaticCamera(name="view_left", eye_m=(-0.2, 0.75, 1.5), target_m=(-0.16, -0.2, 1.05)),
            StaticCamera(name="view_right", eye_m=(0.65, 0.2, 1.5), target_m=(-0.16, -0.2, 1.05)),
        ),
        state=(
            StateItem(name="handle", kind="site", source="Door_handle"),
            StateItem(name="latch", kind="pose", source="Door_latch"),
            StateItem(name="latch", kind="hinge", source="Door_latch_joint"),
            StateItem(name="door", kind="pose", source="Door_door"),
            StateItem(name="door", kind="hinge", source="Door_hinge"),
        ),
        spread=Spread(x_m=(0.05, 0.15), y_m=(-0.24, 0.12), yaw_rad=(-1.92, -1.42)),
    ),
    "PickPlaceCan": Task(
        instruction="Put the can into its compartment of the other bin.",
        max_steps=400,
        cameras=_pair((0.05, 0.0, 0.87), back_m=0.8, aside_m=0.55, up_m=0.75),
        state=(
            StateItem(name="can", kind="pose", source="Can_main"),
            StateItem(name="compartment", kind="pose", source="VisualCan_main"),
        ),
        spread=Spread(x_m=(-0.16, 0.16), y_m=(-0.21, 0.21), sampler="CollisionObjectSampler"),
    ),
    "NutAssemblySquare": Task(
        instruction="Fit the square nut over the square peg.",
        max_steps=400,
        cameras=_pair((0.02, 0.05, 0.9), back_m=0.52, aside_m=0.44, up_m=0.48),
        state=(
            StateItem(name="nut", kind="pose", source="SquareNut_main"),
            StateItem(name="nut_handle", kind="site", source="SquareNut_handle_site"),
            StateItem(name="peg", kind="pose", source="peg1"),
        ),
        spread=Spread(x_m=(-0.15, -0.07), y_m=(0.0, 0.225), sampler="SquareNutSampler"),
    ),
    "TwoArmLift": Task(
        instruction="Lift the pot by its two handles, one hand on each.",
        max_steps=400,
        num_arms=2,
        cameras=(StaticCamera(name="view_front", eye_m=(1.1, 0.0, 1.6), target_m=(0.0, 0.0, 0.98)),),
        state=(
            StateItem(name="pot", kind="pose", source="pot_root"),
            StateItem(name="green_handle", kind="site", source="pot_handle0"),
            StateItem(name="blue_handle", kind="site", source="pot_handle1"),
        ),
        spread=Spread(x_m=(-0.06, 0.06), y_m=(-0.05, 0.05)),
    ),
    "TwoArmHandover": Task(
        instruction="Pick up the hammer with one hand and pass it to the other.",
        max_steps=500,
        num_arms=2,
        cameras=(StaticCamera(name="view_front", eye_m=(1.3, -0.05, 1.6), target_m=(0.0, -0.15, 1.0)),),
        state=(StateItem(name="hammer", kind="pose", source="hammer_root"),),
        spread=Spread(x_m=(-0.15, 0.15), y_m=(-0.06, 0.06)),
    ),
}


def env_spec(task: str, *, image_hw_px: tuple[int, int]) -> EnvSpec:
    """Return what the env of a task gives."""
    info = TASKS[task]
    return EnvSpec(
        env_id=f"robosuite/{task}",
        cameras=info.camera_specs,
        image_hw_px=image_hw_px,
        arms=info.arms,
        action_layout=OSC_DELTA_BASE,
        control_hz=CONTROL_HZ,
        privileged_keys=info.privileged_keys,
    )
