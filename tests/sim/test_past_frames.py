"""The frames between two requests against frames rendered at every step, in simulators that move while they render.

In: robosuite, and RoboCasa under a published protocol, whose observations are those of the last physics substep.
Out: equality to the bit.
Read next: `tests/unit/test_past_frames.py`; `docs/decisions/0010-published-observations.md`.
"""

from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from envs.robocasa.bench import RobocasaConfig
from evalkit.contracts.errors import EpisodeFault
from evalkit.contracts.plugins import load_bench
from evalkit.contracts.spec import OSC_DELTA_BASE, PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest
from evalkit.contracts.worker.client import EnvWorker
from evalkit.run.episode import Tally, run_episode
from tests.doubles.known import known
from tests.doubles.simulators import ROBOCASA_TIMEOUTS, why_no_robocasa, why_no_robosuite

pytestmark = pytest.mark.sim

NUM_STEPS = 8
MOVES = np.zeros((NUM_STEPS, 14), np.float32)
MOVES[:, :6] = np.random.default_rng(3).uniform(-1, 1, (NUM_STEPS, 6))
CASES = {
    "robosuite": ("robosuite", "Lift", None, why_no_robosuite),
    "robocasa-xwam": (
        "robocasa",
        "CloseDrawer",
        RobocasaConfig(protocol="xwam", art="placeholder"),
        lambda: why_no_robocasa("xwam"),
    ),
}


class Mover:
    """Executes `MOVES`, four at a time, and keeps what it was shown."""

    spec = PolicySpec(
        policy_id="mover", action_layouts=(OSC_DELTA_BASE,), chunk_len=4, execute_steps=4, past_frame_stride=2
    )

    def __init__(self) -> None:
        self.requests: list[PolicyRequest] = []

    def reset(self, episode_id: str, env: Any) -> None:
        pass

    def infer(self, requests: Any) -> list[PolicyReply]:
        self.requests += requests
        return [PolicyReply(actions=np.resize(MOVES[r.step_idx : r.step_idx + 4], (4, 14))) for r in requests]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES)
def test_past_frames_are_the_observations(case: str) -> None:
    name, task, config, why_not = CASES[case]
    if reason := why_not():
        pytest.skip(reason)
    bench = load_bench(name)
    config = bench.config_type() if config is None else config
    setting = bench.settings[0]
    (episode,) = bench.plan_episodes(config, task=task, setting=setting, num_episodes=1, seed=0)
    spec = bench.env_spec(config, task=task, setting=setting)
    policy = Mover()
    with closing(
        EnvWorker(bench.launch(config, task=task, setting=setting), spec, timeouts=ROBOCASA_TIMEOUTS).build()
    ) as worker:
        try:
            run_episode(
                replace(episode, max_steps=NUM_STEPS + 4), worker, policy, [], Tally(), render=False, predict=False
            )
        except EpisodeFault as fault:
            pytest.fail(fault.reason)
        shown = [worker.begin(episode, render=True).observation.rgb]
        for step in range(NUM_STEPS):
            worker.send_actions(MOVES[step : step + 1], render_at=[], render_last=True, render_success=False)
            shown.append(worker.receive_outcome().last.rgb)
    pasts = [known(request.past_rgb) for request in policy.requests]
    assert len(pasts[0]) == 0
    np.testing.assert_array_equal(pasts[1], [shown[2], shown[4]])
    np.testing.assert_array_equal(pasts[2], [shown[6], shown[8]])
    assert not np.array_equal(shown[2], shown[4])
