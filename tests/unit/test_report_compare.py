"""A against B: two models on the same clips, by the command and by the function.

In: scored folders. Out: a verdict.
Read next: `evalkit/report/compare.py`.
"""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from evalkit.cli.main import app
from evalkit.contracts.errors import BadConfig, EvalkitError, RunFolderError
from evalkit.report.compare import Comparison, NotComparable, compare_scores
from evalkit.report.stats import mean_interval
from evalkit.report.write import write_report
from evalkit.score.chunk import ScoreOptions
from evalkit.score.folders import score_folders
from evalkit.score.results.table import read_how_scored, read_scores
from tests.doubles.known import known
from tests.doubles.scene import scene_chunk, scene_spec, write_scene_folders

SIZE = (24, 32)
OPTIONS = ScoreOptions(lpips_nets=())
CLIPS = ("c0", "c1", "c2", "c3")


def _write(folder: Path, *, depth_error: float, seed: int = 0, clips: tuple[str, ...] = CLIPS) -> None:
    """Write the predictions of a model in `pred`, and the ground truth, the same for every model, in `true`."""
    for number, clip in enumerate(clips):
        chunk = scene_chunk(
            seed=seed + number, chunk_idx=number, num_frames=3, image_hw_px=SIZE, depth_error_frac=depth_error
        )
        write_scene_folders(folder / "pred" / clip, folder / "true" / clip, chunk)


def _score(folder: Path, true: Path | None = None) -> Path:
    return score_folders(folder / "pred", true or folder / "true", folder / "scores.parquet", options=OPTIONS)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of model a, and of model b, whose depth is twice as wrong."""
    folder = tmp_path_factory.mktemp("models")
    for name, depth_error, seed in (("a", 0.02, 0), ("b", 0.04, 50)):
        _write(folder / name, depth_error=depth_error, seed=seed)
        _score(folder / name, folder / "a" / "true")
    return folder


def _compare(folder: Path, left: str = "a", right: str = "b") -> Comparison:
    return compare_scores((folder / left / "scores.parquet", folder / right / "scores.parquet"), (left, right))


def _changed(models: Path, tmp_path: Path, **metadata: str) -> Path:
    """Return a copy of both models whose second file has other metadata."""
    copy = tmp_path / "copy"
    shutil.copytree(models, copy)
    path = copy / "b" / "scores.parquet"
    table = pq.read_table(path)
    stated = {**pq.read_metadata(path).metadata, **{key.encode(): value.encode() for key, value in metadata.items()}}
    stated = {key: value for key, value in stated.items() if value and key != b"ARROW:schema"}
    pq.write_table(table.replace_schema_metadata(stated), path)
    return copy


def test_differences_are_paired_over_clips(models: Path) -> None:
    comparison = _compare(models)
    assert comparison.caveats == ()
    rows = {(row.metric, row.split, row.group): row for row in comparison.pairs["policy"].rows}
    row = rows["absrel/gt_mask_10m", "all", "all"]
    means = []
    for name in ("a", "b"):
        scores = read_scores(models / name / "scores.parquet")
        own = scores[(scores["subject"] == "policy") & (scores["metric"] == "absrel/gt_mask_10m")]
        means.append(own.groupby(["task", "index"], observed=True)["value"].agg(["sum", "size"]))
    assert row.left == pytest.approx(means[0]["sum"].sum() / means[0]["size"].sum())
    assert row.right == pytest.approx(means[1]["sum"].sum() / means[1]["size"].sum())
    sums, counts = (means[0]["sum"] - means[1]["sum"]).to_numpy(), means[0]["size"].to_numpy()
    assert row.interval == pytest.approx(known(mean_interval(sums, counts)))
    assert known(row.interval).high < 0
    assert (row.num_dropped, row.num_episodes) == (0, 4)
    assert {group for metric, split, group in rows if split == "horizon" and "clip" not in metric} >= {
        *("frame 1", "frame 2", "frame 3"),
    }


def test_a_model_against_itself_shows_no_difference(models: Path) -> None:
    for row in _compare(models, "a", "a").pairs["policy"].rows:
        assert row.difference in (0.0, None)
        assert row.interval is None


def test_report_of_two_folders(models: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(models / "a"), str(models / "b"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "out/report.md").read_text()
    assert "## a and b" in text
    assert "Difference by horizon" in text
    assert text.index("## a and b") < text.index("## a\n") < text.index("## b\n")
    (line,) = [line for line in text.split("## a\n")[0].splitlines() if line.startswith("| absrel/gt_mask_10m |")]
    assert "| a |" in line
    rows = list(csv.DictReader((tmp_path / "out/compared.csv").open()))
    assert {row["split"] for row in rows} == {"all", "task", "horizon"}


def test_report_of_one_folder(models: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(models / "a"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out/report.md").read_text().startswith("# a\n")


def test_runs_and_scored_folders_do_not_mix(models: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/plan.json").touch()
    for folder, said in ((tmp_path / "run", "separately"), (tmp_path / "nowhere", "does not exist")):
        error = CliRunner().invoke(app, ["report", str(models / "a"), str(folder)]).exception
        assert isinstance(error, BadConfig)
        assert said in str(error)
    with pytest.raises(RunFolderError):
        write_report([models / "a"], tmp_path / "out")


def test_clips_of_one_side_are_named(models: Path, tmp_path: Path) -> None:
    _write(tmp_path / "c", depth_error=0.02, clips=("c0", "c1", "c2"))
    shutil.copytree(models / "a", tmp_path / "a")
    _score(tmp_path / "c")
    comparison = _compare(tmp_path, "a", "c")
    assert comparison.caveats == ("Only a has policy scores of 1 clip: c3/0000.",)
    rows = [row for row in comparison.pairs["policy"].rows if row.split == "all"]
    assert {row.num_episodes for row in rows if row.metric in ("ssim/gauss11", "absrel/gt_mask_10m")} == {3}


def test_other_ground_truth_is_refused(models: Path, tmp_path: Path) -> None:
    _write(tmp_path / "c", depth_error=0.02)
    cameras = tmp_path / "c/true/c1/cameras.json"
    cameras.write_text(cameras.read_text().replace("0.9", "0.91", 1))
    shutil.copytree(models / "a", tmp_path / "a")
    _score(tmp_path / "c")
    with pytest.raises(NotComparable, match=r"different ground truth in 1 of 4 shared clips, first in c1/0000"):
        _compare(tmp_path, "a", "c")


def test_one_pixel_of_ground_truth_is_noticed() -> None:
    from evalkit.score.results.truth import ScoredChunk, TruthHashes

    chunk = scene_chunk(num_frames=3, image_hw_px=SIZE)
    rgb = chunk.true.rgb_fvhwc_u8.copy()
    rgb[1, 0, 5, 5, 0] ^= 1
    hashes = []
    for true in (chunk.true, replace(chunk.true, rgb_fvhwc_u8=rgb)):
        truth = TruthHashes()
        truth.add(ScoredChunk(task="a", index=0, env=scene_spec(SIZE), chunk=replace(chunk, true=true)))
        hashes.append(truth.clips["a/0000"])
    differ = [frame for frame in hashes[0] if hashes[0][frame] != hashes[1][frame]]
    assert differ == ["0/1"]


def test_no_shared_clip_is_refused(models: Path, tmp_path: Path) -> None:
    _write(tmp_path / "c", depth_error=0.02, clips=("x", "y"))
    shutil.copytree(models / "a", tmp_path / "a")
    _score(tmp_path / "c")
    with pytest.raises(NotComparable, match=r"a has scores of c0/0000, .*, c of x/0000, y/0000"):
        _compare(tmp_path, "a", "c")


def test_other_options_versions_and_definitions_are_named(models: Path, tmp_path: Path) -> None:
    metrics = '{"ssim/gauss11": {"definition": "another window"}}'
    options = '{"offset": "first 2 predicted frames skipped"}'
    copy = _changed(models, tmp_path, versions='{"evalkit": "0.0.1"}', options=options, metrics=metrics)
    comparison = _compare(copy)
    assert [caveat.split(":")[0] for caveat in comparison.caveats] == [
        "The scores come from different versions",
        "Left out, because the two sides define them otherwise",
        "--offset differs",
    ]
    assert "ssim/gauss11" not in {row.metric for row in comparison.pairs["policy"].rows}


def test_states_start_masks_and_hand_eye_are_ground_truth() -> None:
    from evalkit.score.results.truth import ScoredChunk, TruthHashes

    chunk, env = scene_chunk(num_frames=2, image_hw_px=SIZE), scene_spec(SIZE)
    states, start = chunk.true.proprio_fd.copy(), chunk.start.rgb_fvhwc_u8.copy()
    states[1, 8] += 0.001
    start[0, 0, 0, 0] += 1
    moved = (*env.cameras[:2], replace(env.cameras[2], T_ee_cam=((1.0, 0.0, 0.0, 0.0),) * 4))
    masks = np.zeros(chunk.true.rgb_fvhwc_u8.shape[:4], bool)
    given = ScoredChunk(task="a", index=0, env=env, chunk=chunk, robot_fvhw=masks)
    changed = [
        given,
        replace(given, chunk=replace(chunk, true=replace(chunk.true, proprio_fd=states))),
        replace(given, chunk=replace(chunk, start=replace(chunk.start, rgb_fvhwc_u8=start))),
        replace(given, env=replace(env, cameras=moved)),
        replace(given, robot_fvhw=~masks),
    ]
    hashes = []
    for scored in changed:
        truth = TruthHashes()
        truth.add(scored)
        hashes.append(truth.clips["a/0000"]["0/1"])
    assert len(set(hashes)) == len(changed)


def test_unknown_ground_truth_is_named(models: Path, tmp_path: Path) -> None:
    (caveat,) = _compare(_changed(models, tmp_path, truth="")).caveats
    assert caveat.startswith("b does not state the ground truth")


def test_other_numbers_of_frames_compare_on_shared_frames(models: Path, tmp_path: Path) -> None:
    """One side stops a frame earlier: values pooled over its clips are not those of the other's frames."""
    how = read_how_scored(models / "b/scores.parquet")
    clips = {clip: dict(list(frames.items())[:-1]) for clip, frames in known(how.truth).clips.items()}
    copy = _changed(models, tmp_path, truth=replace(known(how.truth), clips=clips).to_text())
    comparison = _compare(copy)
    assert "4 clips the sides have different frames" in comparison.caveats[0]
    pooled = [row for row in comparison.pairs["policy"].rows if row.metric == "psnr_db/clip_pooled"]
    assert pooled == []


def test_a_broken_file_gets_one_sentence(tmp_path: Path) -> None:
    for content in (b"", b"PAR1"):
        (tmp_path / "scores.parquet").write_bytes(content)
        with pytest.raises(EvalkitError, match="Cannot read the scores"):
            compare_scores((tmp_path / "scores.parquet", tmp_path / "scores.parquet"), ("a", "b"))


def test_checks_of_both_sides_come_first(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "a", tmp_path / "a")
    shutil.copytree(models / "b", tmp_path / "b")
    (tmp_path / "b/pred/c1/rgb/front/0001.png").unlink()
    _score(tmp_path / "b", tmp_path / "a/true")
    first, *_ = _compare(tmp_path).caveats
    assert first.startswith("b: check/frame_count: warning in 1 of 4 clips")


def test_metrics_of_one_side_are_named(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "a", tmp_path / "a")
    shutil.copytree(models / "b", tmp_path / "b")
    for clip in CLIPS:
        shutil.rmtree(tmp_path / f"b/pred/{clip}/depth")
    _score(tmp_path / "b", tmp_path / "a/true")
    [said] = [caveat for caveat in _compare(tmp_path).caveats if caveat.startswith("Only a has values of ")]
    assert "absrel/gt_mask_10m" in said
    assert "psnr_db/frame_mean" not in said


def test_a_path_without_scores_is_named(models: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/scores.parquet").write_bytes(b"x")
    cases = {
        tmp_path / "absent": "does not exist",
        tmp_path / "images": "holds no scores and no run",
        models / "a/scores.parquet": "is a file; name its folder",
        tmp_path / "broken": "Score again.",
    }
    for path, said in cases.items():
        error = CliRunner().invoke(app, ["report", str(path)]).exception
        assert isinstance(error, EvalkitError)
        assert said in str(error)
        assert ".." not in str(error)
