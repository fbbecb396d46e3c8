"""vla-eval's side of the closed loop: its orchestrator, connection and server over evalkit's robosuite env.

In: a folder for its output, the image format of its wire, where evalkit and its packages are. Out: `steps N` on stdout.
Read next: `../closed_loop_peers.py`, which measures it. Runs in an interpreter that has vla-eval 0.8.0.

As in its own benchmarks, every step is rendered, sent, and written to the video of one view; the server answers seven
of eight observations from the chunk that it has.
"""

import asyncio
import functools
import sys
from typing import Any

sys.path.append(sys.path.pop(0))  # this file has the package's name
sys.path.extend([sys.argv[3], *sys.argv[4].split(":")])  # evalkit and its simulator, last

import anyio
import numpy as np
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.model_servers.serve import serve_async
from vla_eval.orchestrator import Orchestrator
from vla_eval.protocol.numpy_codec import set_image_format
from vla_eval.specs import DimSpec

FOLDER, IMAGE_FORMAT = sys.argv[1:3]
EPISODES, STEPS, CHUNK, COLUMNS = map(int, sys.argv[5:9])


class Hold(PredictModelServer):
    """Holds the robot."""

    def __init__(self) -> None:
        super().__init__(chunk_size=CHUNK)
        self.actions = np.zeros((CHUNK, COLUMNS), np.float32)

    def predict(self, obs: Any, ctx: Any) -> Any:
        return {"actions": self.actions}

    def get_action_spec(self) -> dict[str, DimSpec]:
        return {}

    def get_observation_spec(self) -> dict[str, DimSpec]:
        return {}


class Lift(StepBenchmark):
    """evalkit's env of the task Lift, as one of vla-eval's benchmarks."""

    render_backends = frozenset({"gpu", "cpu"})

    def __init__(self) -> None:
        super().__init__()
        from envs.robosuite.bench import RobosuiteBench, RobosuiteConfig
        from evalkit.contracts.plugins import resolve

        bench, config = RobosuiteBench(), RobosuiteConfig()
        launch = bench.launch(config, task="Lift", setting="default")
        planned = bench.plan_episodes(config, task="Lift", setting="default", num_episodes=EPISODES, seed=0)
        self._seeds = [episode.seed for episode in planned]
        self._env = resolve(launch.target)(**launch.kwargs)
        self.steps = 0

    def get_tasks(self) -> list[dict[str, Any]]:
        return [{"name": "Lift"}]

    def get_metadata(self) -> dict[str, Any]:
        return {"max_steps": STEPS}

    def get_action_spec(self) -> dict[str, DimSpec]:
        return {}

    def get_observation_spec(self) -> dict[str, DimSpec]:
        return {}

    def reset(self, task: dict[str, Any]) -> Any:
        self._env.begin(seed=self._seeds[task.get("episode_idx", 0)], max_steps=STEPS)
        return self._observed()

    def step(self, action: dict[str, Any]) -> StepResult:
        done = bool(self._env.advance(np.asarray(action["actions"], np.float32)))
        self.steps += 1
        return StepResult(obs=self._observed(), reward=float(done), done=done, info={})

    def make_obs(self, raw_obs: Any, task: dict[str, Any]) -> dict[str, Any]:
        images = {f"camera{number}": view for number, view in enumerate(raw_obs["rgb"])}
        return {"images": images, "state": raw_obs["proprio"], "task_description": raw_obs["instruction"]}

    def get_step_result(self, step_result: StepResult) -> dict[str, Any]:
        return {"success": step_result.done}

    def _observed(self) -> dict[str, Any]:
        seen: dict[str, Any] = self._env.observe(render=True)
        self._recorder.record_video(seen["rgb"][0])
        return seen


async def run() -> None:
    set_image_format(IMAGE_FORMAT)
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(functools.partial(serve_async, Hold(), "127.0.0.1", 0))
        config = {
            "server": {"url": f"ws://127.0.0.1:{port}"},
            "output_dir": FOLDER,
            "benchmarks": [
                {
                    "benchmark": f"{__name__}:Lift",
                    "episodes_per_task": EPISODES,
                    "max_steps": STEPS,
                    "recording": {"record_video": True, "output_dir": FOLDER},
                }
            ],
        }
        results = await Orchestrator(config).run()
        tasks.cancel_scope.cancel()
    episodes = [episode for task in results[0]["tasks"] for episode in task["episodes"]]
    print(f"steps {sum(episode['steps'] for episode in episodes)}", flush=True)


if __name__ == "__main__":
    asyncio.run(run())
