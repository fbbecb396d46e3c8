"""A demonstration of RoboCasa: recorded from the other interpreter, read back, and what it says of itself.

In: RoboCasa v0.2 in an interpreter of its own, with placeholder art. Out: a data set of one episode.
Read next: `evalkit/record/workers.py`; `test_robocasa_replay.py`, demonstrations that others recorded.
"""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.robocasa.bench import RobocasaBench, RobocasaConfig
from evalkit.contracts.types import Episode
from evalkit.contracts.worker.client import EnvWorker
from evalkit.dataset.axes import ROBOCASA_AXES
from evalkit.dataset.layout import read_track, scan
from evalkit.dataset.videos import read_frames
from evalkit.dataset.writer import episode_key, write_metadata
from evalkit.record import plan, workers
from evalkit.record.demonstrate import NO_DISTURBANCE
from tests.doubles.configured import bench_of
from tests.doubles.known import known
from tests.doubles.simulators import ROBOCASA_TIMEOUTS, needs_robocasa

pytestmark = needs_robocasa()
BENCH = RobocasaBench()

SETTINGS: dict[str, Any] = {"art": "placeholder", "image_px": 64, "antialias_samples": 0}
LOOK_AT = 12
"""Steps after which the episode is compared with an evaluation's env."""


@pytest.mark.timeout(600)
def test_a_recorded_episode_is_what_the_harness_sees(tmp_path: Path) -> None:
    (job,) = plan.jobs(
        tmp_path,
        bench_of("robocasa", **SETTINGS),
        {"CoffeePressButton": 1},
        setting="default",
        first_seed=123_456,
        disturbance=NO_DISTURBANCE,
    )
    assert list(workers.record_episodes(job, {})) == [True]
    write_metadata(tmp_path)
    assert not scan(tmp_path).broken
    track = read_track(tmp_path, episode_key(job.numbers[0]))
    assert track.executed is not None
    config = RobocasaConfig(**SETTINGS)
    (planned,) = BENCH.plan_episodes(config, task="CoffeePressButton", setting="default", num_episodes=1, seed=0)
    episode = Episode(**{**vars(planned), "seed": 123_456})
    launch = BENCH.launch(config, task=episode.task, setting="default")
    spec = BENCH.env_spec(config, task=episode.task, setting="default")
    with closing(EnvWorker(launch, spec, timeouts=ROBOCASA_TIMEOUTS, log_path=tmp_path / "log").build()) as worker:
        first = worker.begin(episode, render=True).observation
        actions = track.executed[:LOOK_AT].astype(np.float32)
        worker.send_actions(actions, render_at=[LOOK_AT], render_last=True, render_success=True)
        then = worker.receive_outcome().last
    assert track.instructions == (first.instruction,)
    for step_idx, seen in ((0, first), (LOOK_AT, then)):
        proprio = ROBOCASA_AXES.sim_from_model(track.proprio[step_idx][None], ("left",))[0]
        np.testing.assert_allclose(proprio, seen.proprio, atol=1e-6)
        for view_idx, camera in enumerate(track.cameras):
            np.testing.assert_array_equal(read_frames(camera.rgb_path, [step_idx])[0], seen.rgb[view_idx])
            depth_m = read_frames(known(camera.depth_mm_path), [step_idx], "gray16le")[0] / 1000
            assert np.abs(depth_m - seen.depth[view_idx]).max() <= 0.5e-3 + 1e-6
