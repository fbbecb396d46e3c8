"""Demonstrations of the real experts: recorded, read back, replayed.

In: the real simulator, rendered. Out: a small data set.
Read next: `evalkit/record/workers.py`.
"""

from contextlib import closing
from pathlib import Path

import numpy as np

from envs.robosuite.env import RobosuiteEnv
from evalkit.dataset.layout import read_track, scan
from evalkit.dataset.videos import read_frames
from evalkit.dataset.writer import episode_key, write_metadata
from evalkit.record import plan, workers
from evalkit.record.demonstrate import NO_DISTURBANCE
from tests.doubles.configured import bench_of
from tests.doubles.simulators import needs_robosuite

pytestmark = needs_robosuite()


def test_a_recorded_episode_replays_to_the_same_frames(tmp_path: Path) -> None:
    (job,) = plan.jobs(
        tmp_path, bench_of("robosuite"), {"Lift": 1}, setting="default", first_seed=5, disturbance=NO_DISTURBANCE
    )
    assert list(workers.record_episodes(job, {})) == [True]
    write_metadata(tmp_path)
    assert not scan(tmp_path).broken
    track = read_track(tmp_path, episode_key(job.numbers[0]))
    assert track.executed is not None
    with closing(RobosuiteEnv(task="Lift")) as env:
        env.begin(seed=5, max_steps=200)
        for action in track.executed[:12]:
            env.advance(action)
        seen = env.observe(render=True)
    for view_idx, camera in enumerate(track.cameras):
        np.testing.assert_array_equal(read_frames(camera.rgb_path, [12])[0], seen["rgb"][view_idx])
        assert camera.depth_mm_path is not None
        depth_m = read_frames(camera.depth_mm_path, [12], "gray16le")[0] / 1000
        assert np.abs(depth_m - seen["depth"][view_idx]).max() <= 0.5e-3 + 1e-6
    np.testing.assert_allclose(track.proprio[12], seen["proprio"], atol=1e-6)
