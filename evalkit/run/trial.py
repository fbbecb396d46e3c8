"""One task tried in passing: what `evalkit check` does beyond comparing specs.

In: a planned episode. Out: seconds, or an `EpisodeFault`.
Read next: `episode.py`, the same loop run in earnest.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.contracts.env import Bench
from evalkit.contracts.policy import Policy
from evalkit.contracts.types import Episode
from evalkit.run.episode import Tally, run_episode
from evalkit.run.settings import RunSettings
from evalkit.run.worker import EnvWorker
from evalkit.store.plan import Plan


def try_task(
    bench: Bench, bench_config: Any, plan: Plan, episode: Episode, policy: Policy, settings: RunSettings
) -> float:
    """Return how many seconds it took to start a task's env, reset it and execute one chunk of the policy's actions.

    Raises:
        EpisodeFault: If the env or the policy does not do what its spec promises.
        EvalkitError: If the env cannot be built.
    """
    started = time.perf_counter()
    launch = bench.launch(bench_config, task=episode.task, setting=episode.setting)
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "worker.log"
        worker = EnvWorker(launch, plan.env_spec(episode.task), timeouts=settings.timeouts, log_path=log_path)
        try:
            worker.build()
            one_chunk = replace(episode, max_steps=policy.spec.execute_steps)
            run_episode(one_chunk, worker, policy, [], Tally(), render=True, imagine=bool(policy.spec.predicts))
        finally:
            worker.close()
    return time.perf_counter() - started
