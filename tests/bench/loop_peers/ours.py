"""evalkit's side of the closed loop: a whole run of a policy that looks at every chunk and holds the robot.

In: a folder for the run; `in_process`, `remote` or `every_step`. Out: `steps N` on stdout.
Read next: `../closed_loop_peers.py`, which measures it; `vla_eval.py`, the other side.

`in_process` and `remote` render one frame every four steps, three views with depth, all of them in the video; `remote`
asks a server of evalkit's over a websocket. `every_step` renders every step and writes the video of one view.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import evalkit
from baselines.floors import HoldConfig, HoldPlugin
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import ACTION_DIM, Observation, PolicyReply, PolicyRequest, Prediction
from evalkit.run import lane
from evalkit.run.recorder import VideoRecorder
from evalkit.serve.greeting import Greeting
from evalkit.serve.local import PolicyHost
from evalkit.serve.server import Listen, serving
from evalkit.store.run_folder import open_run

ITSELF = "tests.bench.loop_peers.ours:LookingPlugin"


@dataclass(frozen=True, kw_only=True)
class LookingConfig:
    """`frame_stride`: control steps between rendered frames."""

    frame_stride: int = 4
    execute_steps: int = 8


class LookingPlugin:
    """The plugin."""

    name = "looking"
    summary = "looks at the images of every chunk and holds the robot"
    config_type = LookingConfig

    def spec(self, config: LookingConfig) -> PolicySpec:
        spec = replace(HoldPlugin().spec(HoldConfig()), policy_id="looking", needs_images=True)
        steps = config.execute_steps
        return replace(spec, chunk_len=steps, execute_steps=steps, frame_stride=config.frame_stride)

    def provenance(self, config: LookingConfig) -> dict[str, str]:
        return {"weights": "none"}

    def make(self, config: LookingConfig) -> Looking:
        return Looking(self.spec(config))


class Looking:
    """Answers at once."""

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec
        self._actions = np.zeros((spec.chunk_len, ACTION_DIM), np.float32)

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        pass

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        return [PolicyReply(actions=self._actions) for _ in requests]


class OneView(VideoRecorder):
    """Writes the first view alone."""

    def _add(self, observed: Observation, step_idx: int, predicted: Prediction | None, frame_idx: int) -> None:
        self._last = np.ascontiguousarray(observed.rgb[0])
        self._writer.add(self._last)


def run(folder: Path, way: str, episodes: int, steps: int, chunk: int) -> None:
    """Run whole episodes of robosuite's Lift."""
    bench = evalkit.load_bench("robosuite")
    config: dict[str, Any] = {"frame_stride": 1 if way == "every_step" else 4, "execute_steps": chunk}
    policy = evalkit.load_policy(ITSELF, **config)
    if way == "every_step":
        lane.VideoRecorder = OneView  # type: ignore[attr-defined,misc]
    with ExitStack() as stack:
        if way == "remote":
            loaded = policy.load()
            host = stack.enter_context(PolicyHost(loaded))
            server = stack.enter_context(serving(host, Greeting(spec=loaded.spec), Listen(port=0)))
            policy = evalkit.load_policy("remote", url=server.url)
        plan = evalkit.make_plan(bench, policy, tasks=["Lift"], num_episodes=episodes, max_steps=steps)
        evalkit.run_plan(plan, bench, policy, folder, settle_steps=0, policy_process=False)
    print(f"steps {sum(record.steps for record in open_run(folder).records())}", flush=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]))
