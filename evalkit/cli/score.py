"""The verbs `score run`, `score folders` and `score dataset`: predictions against ground truth.

In: run folders, folders of frames, or a data set and a policy. Out: `scores.parquet`, and tables on the screen.
Read next: `evalkit/score/run.py`, `evalkit/score/folders.py`, `evalkit/score/dataset.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich.text import Text
from typer.core import TyperGroup

from evalkit.cli.options import counted, split_names
from evalkit.cli.score_options import (
    Branches,
    CameraConvention,
    ControlNames,
    DepthEstimator,
    DepthScale,
    Device,
    DryRun,
    DryRunDataset,
    Extras,
    Fps,
    LpipsNets,
    LpipsWeights,
    Offset,
    References,
    Resize,
    ScoresFolder,
    Strict,
    TrueOffset,
    Workers,
)
from evalkit.console import out
from evalkit.contracts.errors import BadConfig

if TYPE_CHECKING:
    from evalkit.contracts.spec import PolicySpec
    from evalkit.score.chunk import ScoreOptions
    from evalkit.score.dataset import Mode
    from evalkit.score.references import CodecChoice
    from evalkit.store.plan import Plan

Name = TypeVar("Name", bound=str)


FOUND = 3
"""Exit code with `--strict` where a check found something or a clip could not be scored."""


class ScoreForms(TyperGroup):
    """The three forms of `score`; names the right form where the user wrote none."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Return the remaining arguments.

        Raises:
            BadConfig: If the first argument is not a form.
        """
        if args and args[0] not in (*self.commands, "--help"):
            raise BadConfig(f"`evalkit score` takes run, folders or dataset; write `{_new_form(args)}`.")
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=ScoreForms,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Score predictions against ground truth: RGB, depth, point clouds, poses.\n\n"
    "`evalkit score run` scores what a policy predicted during a run, `evalkit score folders` anyone's predictions. "
    "`evalkit score dataset` lets a policy predict from recorded frames. docs/scoring.md defines every metric.\n\n"
    "All forms score references next to the predictions: `repeat_last_frame` (floor), `codec_round_trip` (ceiling), "
    "`ground_truth` (a copy of the ground truth) and `depth_8bit`. `evalkit score dataset --controls` adds predictions "
    "for what was not done: `other_branch`, `mirrored_action` and `wrong_instruction`.",
)


@app.command("run")
def score_run(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|KEY=VALUE",
            help="Run folders; then overrides of the policy's settings, to load its codec for the ceiling: for example "
            "`policy.xwam.checkpoint=PATH` if the weights have moved.",
            show_default=False,
        ),
    ],
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="NAME",
            help="Policy plugin whose codec gives the ceiling. [default: the policy that ran]",
            show_default=False,
        ),
    ] = None,
    workers: Workers = 0,
    device: Device = "cpu",
    lpips: LpipsNets = "alex",
    lpips_weights: LpipsWeights = None,
    references: References = True,
    depth_estimator: DepthEstimator = None,
    extra: Extras = "none",
    strict: Strict = False,
) -> None:
    """Score what a policy predicted during a run.

    Read the run's clips. Write `scores.parquet` into the run folder. No simulator is needed, so a run can be scored
    again at any time. A run of a policy that predicts no frames has no scores: that is said, and is no error.

    Examples:

    - `evalkit score run results/runs/mine`
    - `evalkit score run results/runs/mine results/runs/theirs --lpips none`
    - `evalkit score run results/runs/mine --device cuda`
    - `evalkit score run results/runs/mine --extra wrist,flow`
    - `evalkit score run results/runs/mine policy.xwam.checkpoint=nano`
    """
    from evalkit.score.results.coverage import predicts_nothing
    from evalkit.store.run_folder import open_run

    options = _options(workers, device, lpips, lpips_weights, references, depth_estimator, extra)
    overrides = [text for text in runs if "=" in text and not Path(text).exists()]
    paths = [Path(text) for text in runs if text not in overrides]
    if not paths:
        raise BadConfig("`evalkit score run` needs at least one run folder before the overrides.")
    nothing = {path: _score_run(path, workers, options, policy, overrides) for path in paths}
    reasons = {path: reason for path, reason in nothing.items() if reason is not None}
    expected = [path for path in reasons if predicts_nothing(open_run(path).plan)]
    if len(reasons) == len(paths) > len(expected):
        raise BadConfig(next(reason for path, reason in reasons.items() if path not in expected))
    for reason in reasons.values():
        out.print(Text(reason, style="yellow"))
    if strict:
        _exit_if_found([open_run(path).scores_path for path, reason in nothing.items() if reason is None])


@app.command("folders")
def score_folders(
    pred_dir: Annotated[
        Path, typer.Argument(metavar="PRED_DIR", help="Folder of predictions, or one file.", show_default=False)
    ],
    gt_dir: Annotated[
        Path, typer.Argument(metavar="GT_DIR", help="Folder of ground truth, or one file.", show_default=False)
    ],
    to: ScoresFolder = Path("scores"),
    dry_run: DryRun = False,
    depth_scale: DepthScale = None,
    camera_convention: CameraConvention = None,
    fps: Fps = None,
    offset: Offset = None,
    gt_offset: TrueOffset = None,
    resize: Resize = None,
    workers: Workers = 0,
    device: Device = "cpu",
    lpips: LpipsNets = "alex",
    lpips_weights: LpipsWeights = None,
    references: References = True,
    depth_estimator: DepthEstimator = None,
    extra: Extras = "none",
    strict: Strict = False,
) -> None:
    """Score anyone's predictions: a folder of predictions against a folder of ground truth.

    No policy and no run is needed. Write `scores.parquet`, `report.md` and `scores.csv`.

    Clips are paired by name. A clip is a video, an array (npy, npz) or a folder of numbered images, in folders of any
    depth; `rgb/VIEW` and `depth/VIEW` hold several views. `cameras.json` in the ground truth gives point clouds.
    docs/scoring.md lists layouts and checks. Use `--dry-run` first.

    Examples:

    - `evalkit score folders predictions ground_truth --out scores`
    - `evalkit score folders predictions ground_truth --dry-run`
    - `evalkit score folders predictions ground_truth --depth-scale 5000 --camera-convention opengl`
    """
    from evalkit.report.sheets import SHEETS, ContactSheets
    from evalkit.score.folders import score_folders as score
    from evalkit.score.sources.folder_options import FolderOptions

    files = FolderOptions.parse(
        depth_scale=depth_scale,
        camera_convention=camera_convention,
        fps=fps,
        offset=offset,
        gt_offset=gt_offset,
        resize=resize,
    )
    if dry_run:
        from evalkit.cli.folder_table import print_folders

        print_folders(pred_dir, gt_dir, files)
        return
    _check_apart(to, (pred_dir, gt_dir))
    options = _on_all_cores(
        _options(workers, device, lpips, lpips_weights, references, depth_estimator, extra), workers
    )
    result = to / "scores.parquet"
    with counted("score clips") as on_progress, ContactSheets(to / SHEETS) as sheets:
        score(pred_dir, gt_dir, result, on_progress=on_progress, options=options, files=files, on_chunk=sheets)
    _write_report(result, strict=strict, problem=sheets.problem)


@app.command("dataset")
def score_dataset(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A run folder, or a data set in X-WAM's layout.", show_default=False),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Hydra overrides of the policy's settings, for example `policy.xwam.num_video_steps=25`.",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[str, typer.Option("--policy", metavar="NAME", help="The policy to evaluate.")] = "xwam",
    actions: Annotated[
        Literal["own", "recorded", "both"] | None,
        typer.Option(
            "--actions",
            help="Actions that the prediction is conditioned on: the policy's own, the recorded ones (the model as a "
            "world simulator), or both. [default: both if the policy takes actions, else own]",
            show_default=False,
        ),
    ] = None,
    controls: ControlNames = "none",
    branches: Branches = None,
    to: ScoresFolder = Path("scores"),
    dry_run: DryRunDataset = False,
    workers: Workers = 0,
    device: Device = "cpu",
    lpips: LpipsNets = "alex",
    lpips_weights: LpipsWeights = None,
    references: References = True,
    depth_estimator: DepthEstimator = None,
    extra: Extras = "none",
    strict: Strict = False,
) -> None:
    """Let a policy predict from recorded frames, and score the predictions against the recording.

    Every chunk starts from a recorded frame; no simulator is needed. Write `scores.parquet`, `report.md` and
    `scores.csv`. A policy that predicts no frames has no scores: that is said, and is no error.

    Examples:

    - `evalkit score dataset data/lift --policy xwam`
    - `evalkit score dataset results/runs/mine --actions both policy.xwam.num_video_steps=25`
    - `evalkit score dataset results/runs/mine --controls other_branch,mirrored_action --branches results/branches`
    """
    from evalkit.cli.dataset_table import print_dataset
    from evalkit.config import bind_policy
    from evalkit.report.sheets import SHEETS, ContactSheets
    from evalkit.score.controls.branches import branch_sentences, execute_missing
    from evalkit.score.dataset import score_dataset as score
    from evalkit.score.results.coverage import no_frames_sentence
    from evalkit.score.results.names import CONTROLS
    from evalkit.score.sources.recorded import open_source

    options = _on_all_cores(
        _options(workers, device, lpips, lpips_weights, references, depth_estimator, extra), workers
    )
    chosen_controls = _names("--controls", controls, CONTROLS)
    source = open_source(folder)  # refuses a folder that cannot be read, before the policy is loaded
    bound = bind_policy(policy, overrides or [])
    spec = bound.spec()
    if not spec.predicts:
        out.print(Text(no_frames_sentence(spec.policy_id), style="yellow"))
        return
    modes = _modes(spec, actions, chosen_controls, branches)
    if dry_run:
        print_dataset(source, spec, modes, chosen_controls, branches)
        return
    if branches is not None:
        with counted("execute other actions") as on_progress:
            failed = execute_missing(source, spec, chosen_controls, branches, on_progress=on_progress)
        for sentence in branch_sentences(failed):
            out.print(Text(sentence, style="yellow"), soft_wrap=True)
    loaded, result = bound.load(), to / "scores.parquet"
    with counted(f"score {policy} on {folder.name}") as on_progress, ContactSheets(to / SHEETS) as sheets:
        score(
            folder,
            loaded,
            result,
            modes=modes,
            controls=chosen_controls,
            branches=branches,
            execute_branches=False,  # that has just been done
            on_progress=on_progress,
            options=options,
            on_chunk=sheets,
        )
    _write_report(result, strict=strict, problem=sheets.problem)


def _modes(spec: PolicySpec, actions: str | None, controls: Sequence[str], branches: Path | None) -> tuple[Mode, ...]:
    """Return which actions predictions are conditioned on; say so where the user did not choose.

    Raises:
        BadConfig: If the policy does not predict so, or controls and modes do not fit.
    """
    from evalkit.score.dataset import MODES, check_controls

    if controls and not spec.takes_actions:
        raise BadConfig(
            f"--controls needs a policy that predicts the outcome of given actions; '{spec.policy_id}' does not "
            "(takes_actions is false in its spec)."
        )
    if actions is None:
        actions = "both" if spec.takes_actions else "own"
        out.print(Text(f"Policy '{spec.policy_id}' predicts {PREDICTED_WITH[actions]} (--actions {actions})."))
    check_controls(controls, MODES[actions], branches)
    return MODES[actions]


def _check_apart(to: Path, sides: Sequence[Path]) -> None:
    """Raise BadConfig if results would lie among the frames, and be taken for frames by the next command."""
    is_new = not to.exists() or (to / "scores.parquet").exists()
    for side in sides:
        inside = to.resolve().is_relative_to(side.resolve())
        if to.resolve() == side.resolve() or (inside and not is_new):
            raise BadConfig(f"--out {to} lies among the frames of {side}; give a folder of its own.")


PREDICTED_WITH = {
    "own": "with its own actions; it cannot be conditioned on the recorded ones",
    "both": "with its own actions, and with the recorded ones",
}


def _new_form(args: Sequence[str]) -> str:
    """Return the command in the form that the arguments most likely mean.

    Example:
        >>> _new_form(["results/runs/mine"]), _new_form(["--dataset", "data/lift", "--policy", "xwam"])
        ('evalkit score run results/runs/mine', 'evalkit score dataset data/lift --policy xwam')
    """
    folders = [Path(text) for text in args if not text.startswith("-") and "=" not in text]
    if "--dataset" in args:
        return " ".join(["evalkit score dataset", *(text for text in args if text != "--dataset")])
    is_pair = len(folders) == 2 and not any((folder / "plan.json").exists() for folder in folders)
    return " ".join([f"evalkit score {'folders' if is_pair else 'run'}", *args])


def _options(
    workers: int,
    device: str,
    lpips: str,
    lpips_weights: Path | None,
    references: bool,
    depth_estimator: str | None,
    extra: str,
) -> ScoreOptions:
    """Return what is scored; refuse a device that does not exist before a policy is loaded."""
    from evalkit.score.chunk import ScoreOptions
    from evalkit.score.extra import EXTRAS
    from evalkit.score.metrics.device import describe
    from evalkit.score.metrics.lpips import NETS, check_folder
    from evalkit.score.run import check_workers
    from evalkit.score.sources.depth_estimator import parse_choice

    check_workers(workers)
    describe(device)
    nets, extras = _names("--lpips", lpips, NETS), _names("--extra", extra, EXTRAS)
    if lpips_weights is not None:
        check_folder(lpips_weights, nets)
    return ScoreOptions(
        references=references,
        lpips_nets=nets,
        extras=extras,
        lpips_weights=lpips_weights,
        depth_estimator=parse_choice(depth_estimator) if depth_estimator else None,
        device=device,
    )


def _names(option: str, text: str, known: Sequence[Name]) -> tuple[Name, ...]:
    """Return the names that an option lists, in the order of the known ones; `none` lists none."""
    given = set() if text == "none" else set(split_names(option, text))
    if unknown := given.difference(known):
        raise BadConfig(f"{option} takes {', '.join(known)} or none, got {', '.join(sorted(unknown))}.")
    return tuple(name for name in known if name in given)


def _on_all_cores(options: ScoreOptions, workers: int) -> ScoreOptions:
    """Return options that spread the frames of a chunk over cores."""
    from evalkit.score.run import num_cores

    return replace(options, threads=workers or num_cores())


def _score_run(path: Path, workers: int, options: ScoreOptions, policy: str | None, overrides: list[str]) -> str | None:
    """Score a run; return why no prediction has a score, or None. Nothing is written where there is no clip."""
    from evalkit.score.results.checks import check_sentences
    from evalkit.score.results.coverage import (
        kept_sentence,
        lost_clips,
        lost_sentence,
        nothing_to_score,
        unscored_sentence,
    )
    from evalkit.score.results.table import read_coverage, read_scores
    from evalkit.score.run import score_run
    from evalkit.store.run_folder import open_run

    run = open_run(path)
    if nothing := nothing_to_score(run.plan, run.records()):
        return nothing
    codec = _codec(run.plan, policy, overrides) if options.references else None
    if gone := _lost_subjects(run.scores_path, options, codec):
        sentence = f"{run.scores_path} has scores of {', '.join(gone)}; the new file will have none."
        out.print(Text(sentence, style="yellow"))
    with counted(f"score {path.name}") as on_progress:
        written = score_run(path, workers=workers, on_progress=on_progress, options=options, codec=codec)
    scores = read_scores(written)
    made_of, lost = read_coverage(written), lost_clips(scores)
    for sentence in check_sentences(scores):
        out.print(Text(sentence, style="yellow"))
    if kept := kept_sentence(run.read_about(), run.records()):
        out.print(Text(kept, style="yellow"))
    if made_of is not None and lost:
        out.print(Text(lost_sentence(lost, len(made_of.clips)), style="yellow"))
    out.print(f"scores: {written}\nnext: evalkit report {path}", soft_wrap=True)
    return unscored_sentence(scores)


def _codec(plan: Plan, policy: str | None, overrides: list[str]) -> CodecChoice | str | None:
    """Return the codec of the policy that ran, or why it is unavailable.

    Raises:
        BadConfig: If the user names a policy or its settings, and the codec is unavailable.
    """
    from evalkit.score.references import find_codec

    changes = _policy_changes(plan, policy, overrides) if overrides else {}
    codec = find_codec(plan, policy=policy, changes=changes)
    if isinstance(codec, str):
        sentence = f"The codec round trip (the ceiling) is unavailable, because {codec}"
        if policy or overrides:
            given = " ".join([*([f"--policy {policy}"] if policy else []), *overrides])
            raise BadConfig(f"{sentence} Correct or leave out {given}.")
        out.print(Text(sentence, style="yellow"))
    return codec


def _lost_subjects(scores_path: Path, options: ScoreOptions, codec: CodecChoice | str | None) -> list[str]:
    """Return the subjects that have values in the present scores, and will have none."""
    from evalkit.contracts.errors import RunFolderError
    from evalkit.score.results.names import SUBJECTS
    from evalkit.score.results.table import scored_subjects

    try:
        present = scored_subjects(scores_path)
    except RunFolderError:  # none yet, or broken
        return []
    scored = {"policy", *(SUBJECTS if options.references else ())}
    if codec is None or isinstance(codec, str):
        scored.discard("codec_round_trip")
    if options.depth_estimator is not None:
        scored |= {f"{side}+{options.depth_estimator.label}" for side in ("policy", "truth")}
    return sorted(present - scored)


def _policy_changes(plan: Plan, policy: str | None, overrides: list[str]) -> dict[str, Any]:
    """Return the settings of the policy that the overrides change, by field."""
    from evalkit.config import bind_policy

    name = policy or plan.policy.name
    prefix = f"policy.{bind_policy(name).name}."
    if stray := [override for override in overrides if not override.startswith(prefix)]:
        raise BadConfig(f"'{stray[0]}' does not affect the codec; an override here starts with {prefix}")
    return bind_policy(name, overrides).given_settings


def _write_report(result: Path, *, strict: bool, problem: str) -> None:
    """Write and print the report of a result file, and a problem of its figures; raise if no prediction has a score."""
    from evalkit.report.render_console import render_console
    from evalkit.report.write import write_scores_report
    from evalkit.score.results.coverage import unscored_sentence
    from evalkit.score.results.table import read_scores

    report = write_scores_report(result, result.parent, name=result.parent.name)
    out.print(render_console(report.document))
    out.print(f"scores and report: {result.parent}", soft_wrap=True)
    if problem:
        out.print(Text(problem, style="yellow"), soft_wrap=True)
    if nothing := unscored_sentence(read_scores(result)):
        raise BadConfig(nothing)
    if strict:
        _exit_if_found([result])


def _exit_if_found(results: Sequence[Path]) -> None:
    from evalkit.score.results.checks import has_findings
    from evalkit.score.results.coverage import lost_clips
    from evalkit.score.results.table import read_scores

    for scores in map(read_scores, results):
        if has_findings(scores) or lost_clips(scores):
            raise typer.Exit(FOUND)
