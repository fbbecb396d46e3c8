"""The closed loop next to vla-eval 0.8.0, and two workers next to one: CPU seconds of whole runs.

In: `EVALKIT_VLA_EVAL_PYTHON`, an interpreter of this Python version that has vla-eval. Out: the figures below.
Read next: `loop_peers/`, the two sides; `figure.py`, how they are compared.

    python3 -m venv vla_eval && vla_eval/bin/pip install vla-eval==0.8.0
    export EVALKIT_VLA_EVAL_PYTHON=$PWD/vla_eval/bin/python

Both sides run the same env class (robosuite's Lift, three views of 128 px with depth), 5 episodes of 200 steps, chunks
of 8 actions of a policy that costs nothing, and write a video. The CPU time is that of every process, starts included.
vla-eval renders and sends every step, although 7 of 8 answers come from the chunk that its server has, and writes one
view. evalkit renders every fourth step and writes three views with depth; in `closed_loop_vs_vla_eval_every_step` it
renders every step too, and writes one view.
"""

from __future__ import annotations

import os
import resource
import site
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import evalkit
from envs.robosuite.bench import RobosuiteBench, RobosuiteConfig
from evalkit.contracts.types import ACTION_DIM
from tests.bench.figure import Figure, NotMeasurable, compare
from tests.bench.loop_peers.ours import ITSELF

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "EVALKIT_VLA_EVAL_PYTHON"
EPISODES, STEPS, CHUNK = 5, 200, 8
ROUNDS = 3
WORKER_EPISODES = 8


def children_cpu_s() -> float:
    """Return the CPU seconds of the processes that have been started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _call(command: list[str]) -> None:
    """Run one side; raise RuntimeError if it did not execute every step."""
    launch = RobosuiteBench().launch(RobosuiteConfig(), task="Lift", setting="default")
    environ = {**os.environ, **launch.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    if f"steps {EPISODES * STEPS}" not in done.stdout:
        raise RuntimeError(f"{' '.join(command[:4])} did not run {EPISODES * STEPS} steps: {done.stderr[-1000:]}")


def _numbers() -> list[str]:
    return [str(number) for number in (EPISODES, STEPS, CHUNK)]


def ours(way: str) -> None:
    """Run evalkit's side."""
    with tempfile.TemporaryDirectory() as folder:
        _call([sys.executable, "-m", "tests.bench.loop_peers.ours", f"{folder}/run", way, *_numbers()])


def theirs(image_format: str) -> None:
    """Run vla-eval's side."""
    script = str(Path(__file__).parent / "loop_peers" / "vla_eval.py")
    packages = ":".join([*site.getsitepackages(), *(path for path in sys.path if path.endswith("site-packages"))])
    with tempfile.TemporaryDirectory() as folder:
        command = [os.environ[PYTHON], script, folder, image_format, str(ROOT), packages]
        _call([*command, *_numbers(), str(ACTION_DIM)])


def _against(name: str, way: str, image_format: str, goal: str) -> Figure:
    if PYTHON not in os.environ:
        raise NotMeasurable(f"it takes {PYTHON}, an interpreter with vla-eval 0.8.0; tests/bench/closed_loop_peers.py")
    return compare(
        name,
        (f"evalkit {way}", partial(ours, way)),
        (f"vla-eval {image_format}", partial(theirs, image_format)),
        goal=goal,
        rounds=ROUNDS,
        clock=children_cpu_s,
        warm_up=False,
    )


def _run_with(workers: int) -> None:
    """Run episodes of Lift with some workers."""
    bench, policy = evalkit.load_bench("robosuite"), evalkit.load_policy(ITSELF)
    plan = evalkit.make_plan(bench, policy, tasks=["Lift"], num_episodes=WORKER_EPISODES, max_steps=STEPS)
    with tempfile.TemporaryDirectory() as folder:
        evalkit.run_plan(plan, bench, policy, Path(folder) / "run", workers=workers, settle_steps=0)


def all_cpu_s() -> float:
    """Return the CPU seconds of this process and of those that it has started."""
    return time.process_time() + children_cpu_s()


def two_workers_cpu() -> Figure:
    """Compare the CPU time of two workers with that of one, for the same episodes."""
    two, one = ("two workers", partial(_run_with, 2)), ("one worker", partial(_run_with, 1))
    return compare("two_workers_cpu", two, one, goal="<= 1.1", rounds=ROUNDS, clock=all_cpu_s)


def two_workers_speedup() -> Figure:
    """Compare the wall time of one worker with that of two; only on a machine that has nothing else to do."""
    cores = len(os.sched_getaffinity(0))
    if cores < 2 or os.getloadavg()[0] > 0.3:
        raise NotMeasurable(f"it takes two idle cores; {cores} are here, with a load of {os.getloadavg()[0]:.1f}")
    one, two = ("one worker", partial(_run_with, 1)), ("two workers", partial(_run_with, 2))
    return compare("two_workers_speedup", one, two, goal=">= 1.8", rounds=ROUNDS)


FIGURES = {
    "closed_loop_vs_vla_eval": partial(_against, "closed_loop_vs_vla_eval", "remote", "png", "<= 0.4"),
    "closed_loop_vs_vla_eval_raw": partial(_against, "closed_loop_vs_vla_eval_raw", "remote", "raw", "<= 0.55"),
    "closed_loop_vs_vla_eval_every_step": partial(
        _against, "closed_loop_vs_vla_eval_every_step", "every_step", "raw", "<= 0.9"
    ),
    "closed_loop_vs_vla_eval_in_process": partial(
        _against, "closed_loop_vs_vla_eval_in_process", "in_process", "png", "<= 0.4"
    ),
    "two_workers_cpu": two_workers_cpu,
    "two_workers_speedup": two_workers_speedup,
}
