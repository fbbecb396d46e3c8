"""Figure `closed_loop_overhead`: the harness's loop against a bare loop over the same simulator with the same images.

In: robosuite Lift, a policy that costs nothing and looks at every chunk. Out: one figure.
Read next: `evalkit/run/episode.py`, the loop that is measured, with its video recorder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from baselines.floors import HoldConfig, HoldPlugin
from envs.robosuite.bench import RobosuiteBench, RobosuiteConfig
from evalkit.contracts.plugins import resolve
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import ACTION_DIM, PolicyReply, PolicyRequest
from evalkit.contracts.worker.client import EnvWorker
from evalkit.run.episode import Tally, run_episode
from evalkit.run.recorder import VideoRecorder
from evalkit.run.settings import RunSettings
from tests.bench.figure import Figure, compare

STEPS = 200


class FreePolicy:
    """Looks, and answers at once with no motion."""

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec
        self.actions = np.zeros((spec.chunk_len, ACTION_DIM), np.float32)

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        pass

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        return [PolicyReply(actions=self.actions) for _ in requests]


def overhead_figure() -> Figure:
    """Time whole episodes, reset included, in turn."""
    bench, config = RobosuiteBench(), RobosuiteConfig()
    task, setting = "Lift", "default"
    (episode,) = bench.plan_episodes(config, task=task, setting=setting, num_episodes=1, seed=0)
    episode = replace(episode, max_steps=STEPS)
    policy = FreePolicy(replace(HoldPlugin().spec(HoldConfig()), needs_images=True))
    spec, launch = bench.env_spec(config, task=task, setting=setting), bench.launch(config, task=task, setting=setting)
    bare_env = resolve(launch.target)(**launch.kwargs)
    stride = policy.spec.frame_stride

    def bare() -> None:
        bare_env.begin(seed=episode.seed, max_steps=STEPS)
        bare_env.observe(render=True)
        for step in range(1, STEPS + 1):
            bare_env.advance(policy.actions[0])
            if step % stride == 0:
                bare_env.observe(render=True)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        worker = EnvWorker(launch, spec, timeouts=RunSettings().timeouts, log_path=path / "log").build()

        def closed() -> None:
            video = VideoRecorder(path / "video.mp4", episode, spec, policy.spec)
            success = run_episode(episode, worker, policy, [video], Tally(), render=True, predict=False)
            video.on_end("success" if success else "failure")

        try:
            return compare(
                "closed_loop_overhead", ("closed loop", closed), ("bare loop", bare), goal="<= 1.10", rounds=7
            )
        finally:
            worker.close()
            bare_env.close()


FIGURES = {"closed_loop_overhead": overhead_figure}
