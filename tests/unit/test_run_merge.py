"""Shards of a run and their merge, with real worker processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import evalkit
from evalkit.cli.main import app
from evalkit.contracts.errors import RunFolderError
from evalkit.report.read import read_run
from evalkit.store.clips import ClipReader
from evalkit.store.merge import merge
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import open_run

BENCH, POLICY = "tests.doubles.bench:FakeBench", "tests.doubles.policy:FakePolicyPlugin"


def run(path: Path, shard: str = "1/1", *, seed: int = 0, **settings: Any) -> Path:
    bench, policy = evalkit.load_bench(BENCH), evalkit.load_policy(POLICY)
    plan = evalkit.make_plan(bench, policy, num_episodes=3, seed=seed)
    return evalkit.run_plan(plan, bench, policy, path, shard=shard, **settings)


def results(path: Path) -> dict[str, tuple[str, int, str | None]]:
    return {r.key: (r.outcome, r.steps, r.actions_sha256) for r in open_run(path).records()}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    return [run(folder / f"part{number}", f"{number}/2") for number in (1, 2)]


def test_merged_shards_equal_the_whole_run(tmp_path: Path, shards: list[Path]) -> None:
    whole = run(tmp_path / "whole")
    merged = merge(tmp_path / "all", shards)
    assert (merged.num_added, merged.num_equal, merged.missing) == (6, 0, [])
    assert results(tmp_path / "all") == results(whole)
    for record in open_run(tmp_path / "all").records():
        assert record.clip is not None
        assert record.video is not None
        assert (tmp_path / "all" / record.video).stat().st_size > 0
        with ClipReader(tmp_path / "all" / record.clip) as clip:
            assert clip.header.episode.key == record.key
    about = json.loads((tmp_path / "all" / "run.json").read_text())
    assert [session["shard"] for session in about["sessions"]] == ["1/2", "2/2"]
    assert set(about["workers"]) == {"fake/Near", "fake/Far"}
    assert about["plan_sha256"] == open_run(whole).plan.sha256
    again = merge(tmp_path / "all", shards)
    assert (again.num_added, again.num_equal) == (0, 6)
    assert json.loads((tmp_path / "all" / "run.json").read_text()) == about


def test_an_incomplete_merge_says_what_is_missing(tmp_path: Path, shards: list[Path]) -> None:
    merged = merge(tmp_path / "half", shards[:1])
    assert [episode.key for episode in merged.missing] == ["Near/0001", "Far/0000", "Far/0002"]
    done = CliRunner().invoke(app, ["merge", str(tmp_path / "half"), str(shards[0])])
    assert done.exit_code != 0
    assert "3 planned episodes without a record (Near 1, Far 2; the first is Near/0001)" in str(done.exception)
    run(tmp_path / "half")  # continues it
    assert len(results(tmp_path / "half")) == 6


def test_different_plans_are_refused(tmp_path: Path, shards: list[Path]) -> None:
    other = run(tmp_path / "other", seed=7)
    with pytest.raises(RunFolderError, match=r"carry out different plans .*different seed, episodes"):
        merge(tmp_path / "all", [shards[0], other])
    with pytest.raises(RunFolderError, match="needs different folders"):
        merge(shards[0], [shards[0], shards[1]])
    assert not (tmp_path / "all").exists()


def test_different_results_of_one_episode_are_refused(tmp_path: Path, shards: list[Path]) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "plan.json").write_bytes((shards[0] / "plan.json").read_bytes())
    first, *rest = (json.loads(line) for line in (shards[0] / "episodes.jsonl").read_text().splitlines())
    first["steps"] += 1
    (copy / "episodes.jsonl").write_text("".join(json.dumps(each) + "\n" for each in [first, *rest]))
    with pytest.raises(RunFolderError, match=r"Near/0000 is recorded with different results: steps is \d+ in"):
        merge(tmp_path / "all", [shards[0], copy])
    assert not (tmp_path / "all").exists()


def test_a_lost_clip_stops_the_merge_by_name(tmp_path: Path) -> None:
    part = run(tmp_path / "part", "1/2")
    record = open_run(part).records()[1]
    assert record.clip is not None
    (part / record.clip).unlink()
    with pytest.raises(RunFolderError, match=f"is missing, which the record of {record.key} names"):
        merge(tmp_path / "all", [part])
    assert list(results(tmp_path / "all")) == ["Near/0000"]


def kept(records: list[EpisodeRecord]) -> list[str]:
    return [record.key for record in records if record.clip is not None]


def test_clips_of_a_share_are_kept_and_the_report_says_so(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one", clips=0.3), run(tmp_path / "two", clips=0.3, workers=2, video=False)
    assert len(kept(open_run(one).records())) == 2
    assert sorted(kept(open_run(one).records())) == sorted(kept(open_run(two).records()))
    assert results(one) == results(two)
    (sentence,) = [each for each in read_run(one).caveats if "Clips" in each]
    assert sentence.startswith("Clips were kept of 2 of 6 episodes with a result (run.clips=0.3)")
    assert not [each for each in read_run(run(tmp_path / "all", clips=True)).caveats if "Clips" in each]
