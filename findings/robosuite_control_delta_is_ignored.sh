#!/usr/bin/env bash
# What surprises: robosuite up to 1.4 chose absolute actions of its OSC_POSE controller by `control_delta: false`, and
# files of demonstrations state it so. robosuite 1.5 converts such a configuration on its own
# (`refactor_composite_controller_config`) and does not warn. Guess: `control_delta: false` becomes
# `input_type: absolute`. It is dropped: the controller takes the same actions as deltas, clipped to [-1, 1], and the arm
# leaves for somewhere else. Nothing in the run says so; only the robot's path differs.
#
# Versions: robosuite 1.5.2, mujoco 3.3.1, numpy 1.26.4 (Python 3.11).
# Seen: sent ten times the pose at which it stands, the arm of Lift is 239 mm from its start with `control_delta` false,
# true or left out, to the bit; with `input_type: absolute` it stays, within 1 mm.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet robosuite==1.5.2 mujoco==3.3.1 numpy==1.26.4
"$work/venv/bin/python" - 2>/dev/null <<'PY'
import mujoco
import numpy as np
import robosuite
from robosuite.controllers.composite.composite_controller_factory import refactor_composite_controller_config
from robosuite.utils.transform_utils import mat2quat, quat2axisangle

OLD = {
    "type": "OSC_POSE",
    "input_max": 1,
    "input_min": -1,
    "output_max": [0.05] * 3 + [0.5] * 3,
    "output_min": [-0.05] * 3 + [-0.5] * 3,
    "kp": 150,
    "damping_ratio": 1,
    "impedance_mode": "fixed",
    "uncouple_pos_ori": True,
    "interpolation": None,
    "ramp_ratio": 0.2,
}


def moved_m(**settings: object) -> tuple[str, np.ndarray]:
    """What the controller takes, and how far the arm goes if it is sent the pose at which it stands."""
    config = refactor_composite_controller_config({**OLD, **settings}, "Panda", ["right"])
    env = robosuite.make(
        "Lift", robots="Panda", controller_configs=config, has_renderer=False, has_offscreen_renderer=False,
        use_camera_obs=False, ignore_done=True, seed=0,
    )
    env.reset()
    arm = env.robots[0].part_controllers["right"]
    start_m = np.array(arm.ref_pos)
    pose = np.concatenate([start_m, quat2axisangle(mat2quat(np.array(arm.ref_ori_mat))), [0.0]])
    for _ in range(10):
        env.step(pose)
    arm.update(force=True)
    return arm.input_type, np.array(arm.ref_pos) - start_m


print(f"versions: robosuite {robosuite.__version__}, mujoco {mujoco.__version__}, numpy {np.__version__}")
cases = {"left out": {}, "true": {"control_delta": True}, "false": {"control_delta": False}}
results = {name: moved_m(**settings) for name, settings in cases.items()}
for name, (input_type, move_m) in results.items():
    print(f"control_delta {name}: input_type {input_type}, {1000 * np.linalg.norm(move_m):.0f} mm from the start")
still = moved_m(input_type="absolute", input_ref_frame="world")
print(f"input_type absolute: {1000 * np.linalg.norm(still[1]):.0f} mm from the start")
assert {input_type for input_type, _ in results.values()} == {"delta"}
assert all(np.array_equal(move_m, results["left out"][1]) for _, move_m in results.values())
assert np.linalg.norm(results["false"][1]) > 0.1
assert np.linalg.norm(still[1]) < 0.02
PY
