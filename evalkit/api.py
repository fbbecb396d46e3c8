"""evalkit from Python: the verbs of the command line as functions.

In: names of a bench and a policy, settings. Out: a run folder, scores, a report.
Read next: `evalkit/__init__.py` for an example; `evalkit/cli/` for the same on the command line.

`vet_seeds`, `run_plan`, `score_run` and `write_report` are not named after their verbs, because `evalkit.vet`,
`evalkit.run`, `evalkit.score` and `evalkit.report` are packages.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.config import build_config
from evalkit.contracts import plugins
from evalkit.contracts.bound import BoundBench, BoundPolicy
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.limits import check_choice
from evalkit.contracts.types import OnProgress
from evalkit.run import runner
from evalkit.run.choice import Shard
from evalkit.run.executors.choice import executing
from evalkit.run.lane import Job
from evalkit.run.settings import RunSettings
from evalkit.store.plan import Plan, make_plan
from evalkit.store.records import EpisodeRecord, Outcome
from evalkit.store.run_folder import HeldRun, open_run
from evalkit.vet.lanes import Experts
from evalkit.vet.run import TaskOutcome, make_vet, run_vet, vettable

if TYPE_CHECKING:  # scoring and reports import much that a run does not need
    from evalkit.report.write import Report
    from evalkit.score.chunk import ScoreOptions

__all__ = ["load_bench", "load_policy", "make_plan", "run_plan", "score_run", "vet_seeds", "write_report"]


def load_bench(name: str, **settings: Any) -> BoundBench:
    """Return a bench with its settings.

    Args:
        name: Name of a bench, or `module:attribute` of a plugin.
        settings: Fields of its `config_type`; `evalkit list --bench NAME` lists them.

    Raises:
        UnknownName: If there is no such bench or setting.
        BadConfig: For a value that does not fit its setting.
    """
    plugin = plugins.load_bench(name)
    config = build_config(plugin.config_type, settings, see=f"evalkit list --bench {name}")
    return BoundBench(plugin=plugin, config=config, given=tuple(settings), loaded_as=name)


def load_policy(name: str, **settings: Any) -> BoundPolicy:
    """Return a policy with its settings; its weights are loaded by `run_plan`.

    Args:
        name: Name of a policy, or `module:attribute` of a plugin.
        settings: Fields of its `config_type`; `evalkit list --policy NAME` lists them.

    Raises:
        UnknownName: If there is no such policy or setting.
        BadConfig: For a value that does not fit its setting.
    """
    plugin = plugins.load_policy(name)
    config = build_config(plugin.config_type, settings, see=f"evalkit list --policy {name}")
    return BoundPolicy(plugin=plugin, config=config, given=tuple(settings), loaded_as=name)


def vet_seeds(
    bench: BoundBench,
    out: str | Path | None = None,
    *,
    setting: str | None = None,
    tasks: Sequence[str] = (),
    episodes: int | None = None,
    max_tries: int | None = None,
    workers: int = 1,
    on_change: Callable[[TaskOutcome], None] = lambda outcome: None,
) -> list[TaskOutcome]:
    """Find the seeds that the bench's expert solves, write them into a manifest, and return how each task ended.

    Args:
        bench: The bench.
        out: Manifest, new or to be extended; None for the one that plans of this bench read.
        setting: One of the bench's settings; None for the first.
        tasks: Names of the tasks; none for all.
        episodes: Accepted seeds per task; None for as many as the protocol has, or else 100.
        max_tries: Seeds of a task that are tried at most; None for 25 for each episode.
        workers: Simulators in parallel.
        on_change: Called whenever the state of a task changes, one call at a time.

    Raises:
        UnknownName: For a task or setting that does not exist.
        EvalkitError: If the bench has no seeds to vet, or the manifest cannot be written or is of another protocol.
    """
    path = Path(out) if out is not None else vettable(bench).manifest_path(bench.config)
    experts = Experts(bench=bench, setting=setting or bench.settings[0], workers=workers)
    return run_vet(make_vet(experts, tasks=tasks, episodes=episodes, max_tries=max_tries, out=path), on_change)


def run_plan(
    plan: Plan,
    bench: BoundBench,
    policy: BoundPolicy,
    out: str | Path,
    *,
    on_record: Callable[[EpisodeRecord], None] = lambda record: None,
    retry: Collection[Outcome] = (),
    shard: str = "1/1",
    execution: str = "local",
    **settings: Any,
) -> Path:
    """Run the episodes of a plan that have no record yet, and return the run folder.

    Args:
        plan: Made of this bench and this policy.
        bench: The bench.
        policy: The policy.
        out: Run folder; a folder with records of this plan is continued.
        on_record: Called with each new record, once it is on the disk.
        retry: Outcomes, `error` or `skipped`, whose episodes run again.
        shard: Which part of the plan to run, for example `1/4`; `evalkit.store.merge.merge` joins the parts.
        execution: `local`, or `ray` for actors of a Ray cluster.
        settings: Fields of `RunSettings`, for example `workers=2`.

    Raises:
        UnknownName: If there is no such setting.
        BadConfig: If the plan was made of another bench or policy, or a value does not fit its setting.
        EvalkitError: If the run cannot continue; records are kept.

    Warns:
        UserWarning: If `rollouts` holds fewer episodes than the plan.
    """
    given = ((bench.name, bench.planned_config, plan.bench), (policy.name, asdict(policy.config), plan.policy))
    for name, config, planned in given:
        if name != planned.name or _sorted(config) != _sorted(planned.config):
            raise BadConfig(f"The plan was made of '{planned.name}' with other settings than '{name}' has here.")
    run_settings = build_config(RunSettings, settings, see=f"evalkit list --bench {bench.address}")
    part = Shard.parse(shard)
    for outcome in retry:
        check_choice("retry", outcome, ("error", "skipped"))
    with HeldRun(Path(out), plan) as folder:
        folder.retry(retry)
        if runner.missing_episodes(folder, part):
            with executing(execution, policy, folder, run_settings) as chosen:
                job = Job(folder=folder, bench=bench, policy=chosen.policy, settings=run_settings, shard=part)
                runner.run_session(job, on_record, chosen.make_executor, **chosen.facts)
        rollouts = runner.write_rollouts(folder, run_settings)
        if rollouts is not None and rollouts.gaps:
            warnings.warn(rollouts.sentence, stacklevel=2)
    return Path(out)


def score_run(
    run: str | Path,
    *,
    workers: int = 1,
    options: ScoreOptions | None = None,
    on_progress: OnProgress | None = None,
) -> Path:
    """Score the predictions of a run against the ground truth, and return the path of `scores.parquet`.

    Args:
        run: Run folder.
        workers: Processes; 0 for every core. A script that asks for more than one must do so under
            `if __name__ == "__main__":`, because each process imports the script.
        options: What is scored; None for the defaults of `evalkit score run`.
        on_progress: Called with (clips done, clips in all).

    Raises:
        EvalkitError: If there is no such run, or the result cannot be written.
    """
    from evalkit.score import run as scoring
    from evalkit.score.chunk import ScoreOptions
    from evalkit.score.references import find_codec

    options = options or ScoreOptions()
    codec = find_codec(open_run(Path(run)).plan) if options.references else None
    return scoring.score_run(Path(run), workers=workers, options=options, codec=codec, on_progress=on_progress)


def write_report(
    runs: Sequence[str | Path], out: str | Path | None = None, *, across_protocols: bool = False
) -> Report:
    """Write the report of one or several runs, and return it.

    Args:
        runs: Run folders.
        out: Folder of the report; None for `report/` in the first run folder.
        across_protocols: Whether runs of different protocols may be compared.

    Raises:
        EvalkitError: If a run cannot be read, the report cannot be written, or the protocols differ.
    """
    from evalkit.report.write import write_report

    folders = [Path(run) for run in runs]
    target = folders[0] / "report" if out is None else Path(out)
    return write_report(folders, target, across_protocols=across_protocols)


def _sorted(config: Any) -> str:
    return json.dumps(config, sort_keys=True)
