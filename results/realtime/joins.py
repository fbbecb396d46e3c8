"""How well guided chunks join the old chunk, by the number of denoising steps of the actions.

In: nano, robosuite scenes. Out: a table on the screen: free and guided chunks after the same old chunk.
Run: python results/realtime/joins.py [EPISODES]

Each pair is an observation, 8 executed actions of the chunk that nano gives there, and the observation after them. The
next chunk is denoised there twice from the same noise: free, and guided towards what is left of the old chunk.
Numbers are those of actions in units of the env (1 is 5 cm, 0.5 rad), without the gripper's: their root mean square
over the six numbers, averaged over pairs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.plugins import load_bench
from evalkit.contracts.types import CommittedActions
from evalkit.contracts.worker.client import EnvWorker
from xwam.flow.realtime_chunking import soft_mask
from xwam.flow.sampler import Schedule
from xwam.policy import XwamPlugin, XwamPolicyConfig
from xwam.serving.engine import Engine
from xwam.serving.seen import Seen

TASKS, EXECUTED, STEPS, DELAYS = ("Lift", "PickPlaceCan"), 8, (2, 3, 4, 5, 6, 8, 10, 16), (2, 4)
NUM_CHUNKS = 5


def pairs(num_episodes: int) -> Iterator[tuple[Seen, Seen]]:
    """Yield observations 8 executed actions apart, from episodes of nano at its own step counts."""
    engine = XwamPlugin("robosuite").make(XwamPolicyConfig()).engine
    plugin = load_bench("robosuite")
    bench = BoundBench(plugin=plugin, config=plugin.config_type())
    for task in TASKS:
        env_spec = bench.env_spec(task=task, setting="wide")
        worker = EnvWorker(bench.launch(task=task, setting="wide"), env_spec).build()
        for episode in bench.plan_episodes(task=task, setting="wide", num_episodes=num_episodes, seed=7):
            seen = Seen.of(worker.begin(episode, render=True).observation)
            for chunk_idx in range(NUM_CHUNKS):
                actions, _ = engine.act(engine.begin(seen, seed=chunk_idx))
                worker.send_actions(actions[:EXECUTED], render_at=[], render_last=True, render_success=False)
                after = Seen.of(worker.receive_outcome().last)
                yield seen, after
                seen = after
        worker.close()


def joins(engine: Engine, now: Seen, after: Seen, delay: int) -> dict[str, list[float]]:
    """Return jump at the switch, distance over the soft zone and over the delay, of a free and a guided chunk."""
    old, _ = engine.act(engine.begin(now, seed=1))
    left = old[EXECUTED:]
    committed = CommittedActions(actions=left, delay=delay, last=old[EXECUTED - 1], strategy="guided")
    free, _ = engine.act(engine.begin(after, seed=2))
    guided, _ = engine.act(engine.begin(after, seed=2, committed=committed))
    weights = soft_mask(len(old), executed=EXECUTED, delay=delay)[delay : len(left)].numpy()
    found = {}
    for name, new in (("free", free), ("guided", guided)):
        apart = np.sqrt(((new[: len(left), :6] - left[:, :6]) ** 2).mean(axis=1))
        jump = np.sqrt(((new[delay, :6] - left[delay - 1, :6]) ** 2).mean())
        found[name] = [jump, (apart[delay:] * weights).sum() / weights.sum(), apart[:delay].mean()]
    return found


def main(num_episodes: int) -> None:
    """Print the table."""
    seen = list(pairs(num_episodes))
    bundle = XwamPlugin("robosuite").make(XwamPolicyConfig()).engine.bundle
    print(f"{len(seen)} pairs; each cell: free / guided")
    print("| action steps | delay | jump at the switch | distance, soft zone | distance, delay zone |")
    print("|---|---|---|---|---|")
    for steps in STEPS:
        engine = Engine(bundle, Schedule(num_video_steps=max(steps, 3), num_action_steps=steps))
        for delay in DELAYS:
            each = [joins(engine, now, after, delay) for now, after in seen]
            means = {name: np.mean([found[name] for found in each], axis=0) for name in ("free", "guided")}
            cells = [f"{a:.3f} / {b:.3f}" for a, b in zip(means["free"], means["guided"], strict=True)]
            print(f"| {steps} | {delay} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
