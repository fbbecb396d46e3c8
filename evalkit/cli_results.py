"""The verbs that read what a run left: score, report, view.

In: run folders, clips, folders of frames. Out: `scores.parquet`, tables, pictures.
Read next: `evalkit/score/score.py`, `evalkit/report/write.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from evalkit.console import out, progress_bar
from evalkit.contracts import plugins
from evalkit.contracts.errors import BadConfig

RunFolders = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")]
OnProgress = Callable[[int, int], None]


def score(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN...]|[PRED_DIR GT_DIR]",
            help="Run folders; or a folder of predictions and one of truths (docs/scoring.md).",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes; 0 takes every core.")] = 0,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="Ask --policy again, on the frames recorded in this run.")
    ] = None,
    policy: Annotated[str, typer.Option("--policy", help="With --dataset: who imagines.")] = "xwam",
    lpips: Annotated[
        str, typer.Option("--lpips", help="Networks of LPIPS, commas between: alex, squeeze, vgg; or none.")
    ] = "alex",
    lpips_weights: Annotated[
        Path | None, typer.Option("--lpips-weights", help="Folder of their weights; else the torch hub cache.")
    ] = None,
    references: Annotated[
        bool, typer.Option(help="Also score what says what a number is worth: last frame repeated, truth itself.")
    ] = True,
    depth_estimator: Annotated[
        str | None,
        typer.Option("--depth-estimator", help="Give predicted RGB a depth: name/alignment, for example plane/median."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Result folder of --dataset or PRED_DIR GT_DIR; `scores` if not given.")
    ] = None,
) -> None:
    """Score what was imagined against what really happened.

    Examples: `evalkit score results/runs/mine` · `evalkit score predictions truths --out scores` ·
    `evalkit score --dataset results/runs/mine --policy xwam policy.xwam.num_video_steps=25`
    """
    from evalkit.score.score import check_workers

    check_workers(workers)
    options = _options(lpips, lpips_weights, references, depth_estimator)
    arguments, result = what or [], (to or Path("scores")) / "scores.parquet"
    if dataset is not None:
        _score_dataset(dataset, policy, arguments, result, options)
    elif len(arguments) == 2 and not (Path(arguments[0]) / "plan.json").exists() and Path(arguments[0]).is_dir():
        from evalkit.score.folders import score_folders

        with _bar("score") as on_progress:
            score_folders(Path(arguments[0]), Path(arguments[1]), result, on_progress=on_progress, options=options)
        _report_scores(result)
    elif not arguments:
        raise BadConfig("Nothing to score: name run folders, or PRED_DIR GT_DIR, or --dataset RUN --policy NAME.")
    else:
        for path in map(Path, arguments):
            _score_run(path, workers, options)


def report(
    runs: RunFolders,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder of the report; the first run's report/ if not given.")
    ] = None,
    across_protocols: Annotated[
        bool, typer.Option("--across-protocols", help="Also show runs of different protocols beside each other.")
    ] = False,
) -> None:
    """Print and write the tables of one run, or of several beside each other, as Markdown and CSV.

    Example: `evalkit report results/runs/mine results/runs/theirs --out results/report`
    """
    from evalkit.report.write import write_report

    folder = to or runs[0] / "report"
    write_report(runs, folder, across_protocols=across_protocols).render(out)
    out.print(f"report: {folder / 'report.md'}")


def view(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A clip of a run: clips/<task>/<index>.h5.")],
    sheet: Annotated[Path | None, typer.Option("--sheet", help="The contact sheet; beside the clip.")] = None,
    chunk: Annotated[int, typer.Option("--chunk", help="Which chunk the contact sheet shows.")] = 0,
    rrd: Annotated[Path | None, typer.Option("--rrd", help="Also write a rerun recording (extra `viz`).")] = None,
    show: Annotated[bool, typer.Option("--show", help="Also open the rerun viewer.")] = False,
) -> None:
    """Look at a clip: a contact sheet of true and imagined frames, and the clouds over time in rerun.

    Example: `evalkit view results/runs/mine/clips/Lift/0000.h5 --chunk 3 --rrd lift.rrd`
    """
    from evalkit.report.sheet import write_sheet
    from evalkit.report.view import write_recording

    out.print(f"contact sheet: {write_sheet(clip, sheet or clip.with_suffix('.png'), chunk_idx=chunk)}")
    if rrd is not None or show:
        out.print(f"recording: {write_recording(clip, rrd or clip.with_suffix('.rrd'), show=show)}")


def _options(lpips: str, lpips_weights: Path | None, references: bool, depth_estimator: str | None) -> Any:
    from evalkit.score.chunk import ScoreOptions
    from evalkit.score.depth_estimator import parse_choice
    from evalkit.score.lpips import NETS

    names = set() if lpips == "none" else {name.strip() for name in lpips.split(",")}
    if unknown := names - set(NETS):
        raise BadConfig(f"--lpips takes {', '.join(NETS)} or none, got {', '.join(sorted(unknown))}.")
    return ScoreOptions(
        references=references,
        lpips_nets=tuple(net for net in NETS if net in names),
        lpips_weights=lpips_weights,
        depth_estimator=parse_choice(depth_estimator) if depth_estimator else None,
    )


def _score_run(path: Path, workers: int, options: Any) -> None:
    from evalkit.score.coverage import lost_clips, lost_sentence, nothing_to_score
    from evalkit.score.score import score_run
    from evalkit.score.table import read_coverage, read_scores
    from evalkit.store.run_folder import open_run

    run = open_run(path)
    nothing = nothing_to_score(run.plan, run.records())
    with nullcontext() if nothing else _bar(f"score {path.name}") as on_progress:
        written = score_run(path, workers=workers, on_progress=on_progress, options=options)
    if nothing:
        out.print(Text(nothing))
    made_of, lost = read_coverage(written), lost_clips(read_scores(written, ("task", "index", "metric", "status")))
    if made_of is not None and lost:
        out.print(Text(lost_sentence(lost, len(made_of.clips)), style="yellow"))
    out.print(f"scores: {written}")


def _score_dataset(run: Path, name: str, overrides: list[str], result: Path, options: Any) -> None:
    from evalkit.config import load_config
    from evalkit.score.dataset import score_dataset
    from evalkit.store.run_folder import open_run

    bench, plugin = plugins.load_bench(open_run(run).plan.bench.name), plugins.load_policy(name)
    policy = plugins.make_policy(plugin, load_config(bench, plugin, overrides).policy)
    with _bar(f"score {name} on {run.name}") as on_progress:
        score_dataset(run, policy, result, on_progress=on_progress, options=options)
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
