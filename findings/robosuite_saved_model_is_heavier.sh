#!/usr/bin/env bash
# What surprises: the model that robosuite saves with every demonstration (`model_file`, from `sim.model.get_xml()`) has
# other masses than the model that was simulated. robosuite tells MuJoCo to infer inertia from collision geoms alone
# (`inertiagrouprange="0 0"`). MuJoCo's saved XML keeps neither this range nor the inferred inertia, so whoever loads it
# counts the visual geoms, too. Guess: a saved model loads as it was, as states and joints do. Of fixed bodies only the
# number changes. A body that moves changes its dynamics: the wheels' part of a mobile base weighs 1.3 kg where it was
# simulated and 153 kg where the file is loaded. Replaying states does not show it; replayed actions move other masses.
#
# Versions: robosuite 1.5.2, mujoco 3.3.1, numpy 1.26.4 (Python 3.11).
# Seen: Lift with PandaOmron, kg simulated -> loaded: mobilebase0_wheeled_base 1.330 -> 153.337, mobilebase0_support
# 15.904 -> 31.809, table 32.000 -> 70.087; NutAssemblySquare with Panda: peg1 0.205 -> 0.410. The masses of the Panda's
# links, its gripper and Lift's cube are the same.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet robosuite==1.5.2 mujoco==3.3.1 numpy==1.26.4
"$work/venv/bin/python" - 2>/dev/null <<'PY'
import mujoco
import numpy as np
import robosuite


def heavier(task: str, robot: str) -> dict[str, tuple[float, float]]:
    """Bodies whose mass differs: kilograms as simulated, and as loaded from the saved XML."""
    env = robosuite.make(
        task, robots=robot, has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False, seed=0
    )
    model = env.sim.model._model
    loaded = mujoco.MjModel.from_xml_string(env.sim.model.get_xml())
    pairs = {model.body(i).name: (model.body_mass[i], loaded.body_mass[i]) for i in range(model.nbody)}
    return {name: pair for name, pair in pairs.items() if not np.isclose(*pair, rtol=1e-3)}


mobile, pegs = heavier("Lift", "PandaOmron"), heavier("NutAssemblySquare", "Panda")
for task, bodies in (("Lift, PandaOmron", mobile), ("NutAssemblySquare, Panda", pegs)):
    for name, (simulated, loaded) in bodies.items():
        print(f"{task}: {name} {simulated:.3f} kg simulated, {loaded:.3f} kg loaded")
assert np.allclose(mobile["mobilebase0_wheeled_base"], (1.330, 153.337), atol=2e-3)
assert np.allclose(mobile["mobilebase0_support"], (15.904, 31.809), atol=2e-3)
assert np.allclose(pegs["peg1"], (0.205, 0.410), atol=2e-3)
assert not any(name.startswith(("robot0", "gripper0", "cube")) for name in mobile)
PY
