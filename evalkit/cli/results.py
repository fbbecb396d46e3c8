"""The verbs that read what a run left: score, report, view.

In: run folders, clips, folders of frames. Out: `scores.parquet`, tables, pictures.
Read next: `evalkit/score/run.py`, `evalkit/report/write.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from evalkit.console import out, progress_bar
from evalkit.contracts import plugins
from evalkit.contracts.errors import BadConfig

RunFolders = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")]
What = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN...]|[PRED_DIR GT_DIR] [KEY=VALUE...]",
        help="Run folders; or a folder of predictions and one of truths (docs/scoring.md). Settings of the policy.",
        show_default=False,
    ),
]
Workers = Annotated[int, typer.Option("--workers", help="Processes; 0 takes every core, or on a GPU one process.")]
Device = Annotated[
    str, typer.Option("--device", help="Where SSIM, clouds and LPIPS are computed: cpu, cuda, cuda:1; the same values.")
]
Dataset = Annotated[
    Path | None,
    typer.Option("--dataset", help="Ask --policy again, on the frames of this run, or data set in X-WAM's layout."),
]
ScoredPolicy = Annotated[
    str | None,
    typer.Option(
        "--policy", help="With --dataset: who imagines, xwam if not given. With RUN: where the policy that ran is."
    ),
]
Actions = Annotated[
    str | None,
    typer.Option(
        "--actions",
        help="With --dataset: imagine the policy's own actions (own), the recorded ones (recorded: the model as a "
        "world simulator), or both; both where the policy can, if not given.",
    ),
]
LpipsNets = Annotated[
    str, typer.Option("--lpips", help="Networks of LPIPS, commas between: alex, squeeze, vgg; or none.")
]
LpipsWeights = Annotated[
    Path | None, typer.Option("--lpips-weights", help="Folder of their weights; else the torch hub cache.")
]
References = Annotated[
    bool, typer.Option(help="Also score what says what a number is worth: last frame repeated, codec, truth itself.")
]
DepthEstimator = Annotated[
    str | None,
    typer.Option("--depth-estimator", help="Give predicted RGB a depth: name/alignment, for example plane/median."),
]
ScoresFolder = Annotated[
    Path | None, typer.Option("--out", help="Result folder of --dataset or PRED_DIR GT_DIR; `scores` if not given.")
]
"""What `score` takes, in the order of its help."""

OnProgress = Callable[[int, int], None]


def score(
    what: What = None,
    workers: Workers = 0,
    device: Device = "cpu",
    dataset: Dataset = None,
    policy: ScoredPolicy = None,
    actions: Actions = None,
    lpips: LpipsNets = "alex",
    lpips_weights: LpipsWeights = None,
    references: References = True,
    depth_estimator: DepthEstimator = None,
    to: ScoresFolder = None,
) -> None:
    """Score what was imagined against what really happened.

    Examples: `evalkit score results/runs/mine` · `evalkit score predictions truths --out scores` ·
    `evalkit score --dataset results/runs/mine --policy xwam --actions both policy.xwam.num_video_steps=25` ·
    `evalkit score results/runs/mine policy.xwam.checkpoint=/where/the/weights/are/now` ·
    `evalkit score results/runs/mine --device cuda`
    """
    from evalkit.score.metrics.device import describe
    from evalkit.score.run import check_workers

    check_workers(workers)
    describe(device)  # refuses one that is not there, before a policy is loaded
    options = _options(lpips, lpips_weights, references, depth_estimator, device)
    result = (to or Path("scores")) / "scores.parquet"
    overrides = [text for text in what or [] if "=" in text and not Path(text).exists()]
    paths = [Path(text) for text in what or [] if text not in overrides]
    if actions is not None and dataset is None:
        raise BadConfig("--actions says whose actions are imagined anew; it needs --dataset.")
    if dataset is not None:
        if paths:
            raise BadConfig(f"--dataset scores one folder; {paths[0]} is one too many (settings are key=value).")
        _score_dataset(dataset, policy or "xwam", overrides, result, _on_all_cores(options, workers), actions)
    elif len(paths) == 2 and not (paths[0] / "plan.json").exists() and paths[0].is_dir():
        if overrides or policy:
            raise BadConfig("PRED_DIR GT_DIR are scored without a policy; leave --policy and its settings out.")
        _score_folders(paths[0], paths[1], result, _on_all_cores(options, workers))
    elif not paths:
        raise BadConfig("Nothing to score: name run folders, or PRED_DIR GT_DIR, or --dataset DIR --policy NAME.")
    else:
        for path in paths:
            _score_run(path, workers, options, policy, overrides)


def report(
    runs: RunFolders,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder of the report; the first run's report/ if not given.")
    ] = None,
    across_protocols: Annotated[
        bool, typer.Option("--across-protocols", help="Also show runs of different protocols beside each other.")
    ] = False,
    published: Annotated[
        Path | None,
        typer.Option("--published", help="Show published rows beside the runs: a CSV file or a folder of them."),
    ] = None,
) -> None:
    """Print and write the tables of one run, or of several beside each other, as Markdown and CSV.

    Examples: `evalkit report results/runs/mine results/runs/theirs --out results/report` ·
    `evalkit report results/runs/mine --published results/published`
    """
    from evalkit.report.published import read_published
    from evalkit.report.write import write_report

    folder = to or runs[0] / "report"
    rows = [] if published is None else read_published(published)
    write_report(runs, folder, across_protocols=across_protocols, published=rows).render(out)
    out.print(f"report: {folder / 'report.md'}")


def view(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A clip of a run: clips/TASK/INDEX.h5.")],
    sheet: Annotated[Path | None, typer.Option("--sheet", help="The contact sheet; beside the clip.")] = None,
    chunk: Annotated[int, typer.Option("--chunk", help="Which chunk the contact sheet shows.")] = 0,
    rrd: Annotated[Path | None, typer.Option("--rrd", help="Also write a rerun recording (extra `viz`).")] = None,
    show: Annotated[bool, typer.Option("--show", help="Also open the rerun viewer.")] = False,
) -> None:
    """Look at a clip: a contact sheet of true and imagined frames, and the clouds over time in rerun.

    Example: `evalkit view results/runs/mine/clips/Lift/0000.h5 --chunk 3 --rrd lift.rrd`
    """
    from evalkit.report.contact_sheet import write_sheet
    from evalkit.report.rerun_export import write_recording

    out.print(f"contact sheet: {write_sheet(clip, sheet or clip.with_suffix('.png'), chunk_idx=chunk)}")
    if rrd is not None or show:
        out.print(f"recording: {write_recording(clip, rrd or clip.with_suffix('.rrd'), show=show)}")


def _options(lpips: str, lpips_weights: Path | None, references: bool, depth_estimator: str | None, device: str) -> Any:
    from evalkit.score.chunk import ScoreOptions
    from evalkit.score.metrics.lpips import NETS
    from evalkit.score.sources.depth_estimator import parse_choice

    names = set() if lpips == "none" else {name.strip() for name in lpips.split(",")}
    if unknown := names - set(NETS):
        raise BadConfig(f"--lpips takes {', '.join(NETS)} or none, got {', '.join(sorted(unknown))}.")
    return ScoreOptions(
        references=references,
        lpips_nets=tuple(net for net in NETS if net in names),
        lpips_weights=lpips_weights,
        depth_estimator=parse_choice(depth_estimator) if depth_estimator else None,
        device=device,
    )


def _on_all_cores(options: Any, workers: int) -> Any:
    """Return options under which the frames of a chunk are spread over cores."""
    from evalkit.score.run import num_cores

    return replace(options, threads=workers or num_cores())


def _policy_settings(plan: Any, policy: str | None, overrides: list[str]) -> dict[str, Any]:
    """Return the settings of the policy that are given anew, by name."""
    from evalkit.config import load_config

    plugin = plugins.load_policy(policy or plan.policy.name)
    if stray := [override for override in overrides if not override.startswith(f"policy.{plugin.name}.")]:
        raise BadConfig(
            f"'{stray[0]}' changes nothing about the codec; a setting here starts with policy.{plugin.name}."
        )
    given = load_config(plugins.load_bench(plan.bench.name), plugin, overrides).policy
    names = [override.partition("=")[0].rpartition(".")[2] for override in overrides]
    return {name: getattr(given, name) for name in names}


def _score_run(path: Path, workers: int, options: Any, policy: str | None, overrides: list[str]) -> None:
    from evalkit.score.references import find_codec
    from evalkit.score.results.coverage import lost_clips, lost_sentence, nothing_to_score
    from evalkit.score.results.table import read_coverage, read_scores
    from evalkit.score.run import score_run
    from evalkit.store.run_folder import open_run

    run = open_run(path)
    nothing = nothing_to_score(run.plan, run.records())
    changes = _policy_settings(run.plan, policy, overrides) if overrides else {}
    codec = None
    if options.references and not nothing:
        codec = find_codec(run.plan, policy=policy, changes=changes)
    if isinstance(codec, str):
        out.print(Text(f"The codec round trip (the ceiling) is unavailable, because {codec}", style="yellow"))
    with nullcontext() if nothing else _bar(f"score {path.name}") as on_progress:
        written = score_run(path, workers=workers, on_progress=on_progress, options=options, codec=codec)
    if nothing:
        out.print(Text(nothing))
    made_of, lost = read_coverage(written), lost_clips(read_scores(written, ("task", "index", "metric", "status")))
    if made_of is not None and lost:
        out.print(Text(lost_sentence(lost, len(made_of.clips)), style="yellow"))
    out.print(f"scores: {written}")


def _score_folders(pred: Path, true: Path, result: Path, options: Any) -> None:
    from evalkit.score.folders import score_folders

    with _bar("score") as on_progress:
        score_folders(pred, true, result, on_progress=on_progress, options=options)
    _report_scores(result)


def _score_dataset(
    folder: Path, name: str, overrides: list[str], result: Path, options: Any, actions: str | None
) -> None:
    from evalkit.config import load_config
    from evalkit.score.dataset import Mode, score_dataset
    from evalkit.score.sources.recorded import open_source

    choices: dict[str, tuple[Mode, ...]] = {"own": ("own",), "recorded": ("recorded",), "both": ("own", "recorded")}
    if actions is not None and actions not in choices:
        raise BadConfig(f"--actions takes {', '.join(choices)}, got {actions}.")
    bench, plugin = plugins.load_bench(open_source(folder).bench), plugins.load_policy(name)
    policy = plugins.make_policy(plugin, load_config(bench, plugin, overrides).policy)
    if actions is None:
        actions = "both" if policy.spec.takes_actions else "own"
        out.print(
            Text(
                f"{policy.spec.policy_id} imagines its own actions"
                + (", and the recorded ones." if actions == "both" else "; it cannot be given the recorded ones.")
            )
        )
    with _bar(f"score {name} on {folder.name}") as on_progress:
        score_dataset(folder, policy, result, modes=choices[actions], on_progress=on_progress, options=options)
    _report_scores(result)


def _report_scores(result: Path) -> None:
    from evalkit.report.write import write_scores_report

    write_scores_report(result, result.parent, name=result.parent.name).render(out)
    out.print(f"scores and report: {result.parent}")


@contextmanager
def _bar(label: str) -> Iterator[OnProgress]:
    with progress_bar() as progress:
        bar = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
