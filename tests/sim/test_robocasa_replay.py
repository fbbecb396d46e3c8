"""Replay of a RoboCasa demonstration: the same states, images and instruction as when it was recorded.

In: RoboCasa v0.2 in an interpreter of its own, with placeholder art. Out: a data set of one episode.
Read next: `test_replay.py`, the same for robosuite and for what cannot be reproduced.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from envs.mujoco.views import choose_gl
from envs.robocasa.bench import PYTHON_VARIABLE
from evalkit.dataset.axes import ROBOCASA_AXES
from evalkit.dataset.layout import read_track
from evalkit.dataset.videos import read_frames
from evalkit.replay.jobs import plan_replay, replay_job
from tests.doubles.configured import bench_of
from tests.doubles.known import known
from tests.doubles.simulators import needs_robocasa

pytestmark = needs_robocasa()
ROOT = Path(__file__).resolve().parents[2]

SETTINGS = {"art": "placeholder", "image_px": 64, "antialias_samples": 0}
RECORD = """
import json, sys
import h5py, numpy as np
from envs.robocasa.env import GRIP_SITE, RobocasaEnv

env = RobocasaEnv(task="OpenDrawer", protocol="standard", art="placeholder", image_hw_px=[64, 64], antialias_samples=0)
env.begin(seed=3, max_steps=10)
rng = np.random.default_rng(0)
seen, states, actions, positions = [], [], [], []
for _ in range(4):
    seen.append(env.observe(render=True))
    states.append(env._sim.sim.get_state().flatten())
    positions.append(np.array(env._data.site(GRIP_SITE).xpos))
    actions.append(env._simulator_action(np.append(rng.uniform(-1, 1, 7), np.zeros(7))))
    env.advance(np.append(actions[-1][:6] , [-actions[-1][6]] + [0.0] * 7))
with h5py.File(sys.argv[1], "w") as file:
    file.create_group("data").attrs["env_args"] = json.dumps({"env_name": "OpenDrawer"})
    group = file.create_group("data/demo_1")
    group.attrs["model_file"] = env._sim.sim.model.get_xml()
    group.attrs["ep_meta"] = json.dumps(env._sim.get_ep_meta(), default=lambda part: part.tolist())
    group["states"], group["actions"], group["obs/robot0_eef_pos"] = states, actions, positions
saved = {name: np.stack([part[name] for part in seen]) for name in ("rgb", "depth", "proprio")}
np.savez(sys.argv[2], actions=np.stack(actions), instruction=seen[0]["instruction"], **saved)
env.close()
"""


@pytest.mark.slow
def test_a_kitchen_is_seen_again(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("demo.hdf5", "seen.npz")]
    environ = {**os.environ, "MUJOCO_GL": choose_gl(), "PYTHONPATH": str(ROOT)}
    subprocess.run([os.environ[PYTHON_VARIABLE], "-c", RECORD, *files], cwd=ROOT, env=environ, check=True, timeout=280)
    (job,) = plan_replay(tmp_path / "data", [tmp_path / "demo.hdf5"], bench_of("robocasa", **SETTINGS)).jobs
    assert replay_job(job).reason is None
    seen, track = np.load(files[1]), read_track(tmp_path / "data", job.key)
    assert track.instructions == (str(seen["instruction"]),)
    np.testing.assert_allclose(ROBOCASA_AXES.sim_from_model(track.proprio, ("left",)), seen["proprio"], atol=1e-6)
    np.testing.assert_allclose(track.action[:, :6], seen["actions"][:, :6], atol=1e-6)
    np.testing.assert_allclose(track.action[:, 6], -seen["actions"][:, 6], atol=1e-6)
    for view_idx, camera in enumerate(track.cameras):
        rgb = read_frames(camera.rgb_path, range(4)).astype(int)
        assert np.abs(rgb - seen["rgb"][:, view_idx]).mean() < 0.1
        depth_m = read_frames(known(camera.depth_mm_path), range(4), "gray16le") / 1000
        assert (np.abs(depth_m - seen["depth"][:, view_idx]) > 6e-4).mean() < 1e-3
