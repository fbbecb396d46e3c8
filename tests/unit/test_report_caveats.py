"""What a report says before the numbers: oracles, departures, sessions, stale scores, runs that do not compare.

In: plans, records, run folders. Out: a verdict.
Read next: `evalkit/report/caveats.py`.
"""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from evalkit.cli.main import app
from evalkit.contracts.spec import ROBOT_STATE
from evalkit.report.caveats import (
    MixedProtocols,
    between_caveats,
    between_worker_caveats,
    plan_caveats,
    session_caveats,
    worker_caveats,
)
from evalkit.report.read import read_run
from evalkit.report.render_console import render_console
from evalkit.report.write import write_report
from evalkit.score.run import score_run
from evalkit.store.plan import Plan
from evalkit.store.run_folder import HeldRun, open_run
from tests.doubles.scene import write_scene_run

SIZE = (24, 32)
SESSION = {"commit": "a" * 40, "versions": {"torch": "2.4"}, "machine": {"cores": 2, "processor": "X"}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_scene_run(tmp_path / "run", outcomes=["success", "failure"], image_hw_px=SIZE)
    score_run(tmp_path / "run", workers=1)
    return tmp_path / "run"


@pytest.fixture
def plan(run: Path) -> Plan:
    return open_run(run).plan


def _caveats(run: Path, tmp_path: Path) -> Any:
    """Return the caveats of a run, after making sure that Markdown and console show them."""
    report = write_report([run], tmp_path / "out")
    console = Console(record=True, width=500, file=io.StringIO())
    console.print(render_console(report.document))
    shown, text = console.export_text(), (tmp_path / "out/report.md").read_text()
    caveats = read_run(run).caveats
    for sentence in caveats:
        assert f"> - **{sentence}**" in text
        assert sentence in shown
    return caveats


def _copy(run: Path, to: Path, **changes: Any) -> Any:
    with HeldRun(to, replace(open_run(run).plan, **changes)) as folder:
        for record in open_run(run).records():
            folder.append(record)
    return to


def test_a_run_that_is_whole_has_none(run: Path, plan: Plan, tmp_path: Path) -> None:
    assert _caveats(run, tmp_path) == ()
    assert list(plan_caveats(plan, num_missing=0)) == []
    assert list(session_caveats({"sessions": [SESSION, SESSION]})) == []


def test_warnings_of_records_are_counted_by_kind(run: Path, tmp_path: Path) -> None:
    first, second = open_run(run).records()
    lost = "No video: Cannot write {}.mp4."
    no_hash = "The record has no hash of the first frame, because the env does not give it."
    with HeldRun(tmp_path / "b", open_run(run).plan) as folder:
        folder.append(replace(first, warnings=[lost.format("/tmp/a/0000"), no_hash]))
        folder.append(replace(second, warnings=[lost.format("/tmp/b/0001")]))
    assert _caveats(tmp_path / "b", tmp_path) == (
        f"2 episodes of 2 with a warning, for example {first.key}: {lost.format('/tmp/a/0000')}",
        f"1 episode of 2 with a warning, for example {first.key}: {no_hash}",
    )


def test_a_policy_that_is_never_asked_to_predict_is_said(plan: Plan) -> None:
    (spec,) = plan.policy.specs.values()

    def said(*, max_steps: int = 20, **changes: Any) -> list[str]:
        policy = replace(plan.policy, specs={"p": {**spec, "predicts": ["rgb"], "frame_stride": 4, **changes}})
        episodes = tuple(replace(episode, max_steps=max_steps) for episode in plan.episodes)
        return list(plan_caveats(replace(plan, policy=policy, episodes=episodes), num_missing=0))

    name = plan.policy.name
    reason = f"{name}: 2 executed steps reach no predicted frame (one every 4 steps): nothing is predicted."
    assert said(execute_steps=2) == said(execute_steps=8, max_steps=2) == [reason]
    assert said(execute_steps=4) == said(execute_steps=2, predicts=[]) == []


def test_oracles_random_weights_and_unfinished_runs_are_said(plan: Plan) -> None:
    policy = replace(plan.policy, provenance={"weights": "random"}, specs={"p": {"privileged_keys": ["cube_pos"]}})
    sentences = list(plan_caveats(replace(plan, policy=policy), num_missing=2))
    assert sentences[0] == "The run is not finished: 2 planned episodes have no record yet."
    assert sentences[1] == "p is an oracle, not a learned policy: it reads simulator state (cube_pos)."
    assert sentences[2] == "noise: weights: random."
    (one,) = plan_caveats(plan, num_missing=1)
    assert one == "The run is not finished: 1 planned episode has no record yet."


def test_an_oracle_of_everything_says_everything(plan: Plan) -> None:
    policy = replace(plan.policy, specs={"p": {"privileged_keys": ["*"]}})
    (sentence,) = plan_caveats(replace(plan, policy=policy), num_missing=0)
    assert sentence.endswith("it reads simulator state (everything) and the planned episode (task, seed).")


def test_an_oracle_of_the_episode_says_so(plan: Plan) -> None:
    policy = replace(plan.policy, specs={"p": {"privileged_keys": ["episode"]}})
    (sentence,) = plan_caveats(replace(plan, policy=policy), num_missing=0)
    assert sentence == "p is an oracle, not a learned policy: it reads the planned episode (task, seed)."


def test_a_policy_that_reads_the_robot_is_no_oracle(plan: Plan) -> None:
    policy = replace(plan.policy, specs={"p": {"privileged_keys": list(ROBOT_STATE)}})
    assert list(plan_caveats(replace(plan, policy=policy), num_missing=0)) == []


def test_every_departure_is_listed(run: Path, plan: Plan, tmp_path: Path) -> None:
    (one,) = plan_caveats(replace(plan, departures=("Short.",)), num_missing=0)
    assert one == "Not a benchmark score, 1 departure from scene/closed-form: Short."
    other = _copy(run, tmp_path / "other", departures=("Short.", "Placeholder art."))
    assert "Not a benchmark score, 2 departures from scene/closed-form: (1) Short. (2) Placeholder art." in _caveats(
        other, tmp_path
    )


def test_records_added_after_scoring_make_the_scores_stale(run: Path, tmp_path: Path) -> None:
    records = (run / "episodes.jsonl").read_text()
    (run / "episodes.jsonl").write_text(records.splitlines(keepends=True)[0])
    score_run(run, workers=1)
    (run / "episodes.jsonl").write_text(records)
    sentence = "The scores cover 1 of 2 episodes with predictions; run `evalkit score run` again."
    assert _caveats(run, tmp_path) == (sentence,)


def test_emptied_records_make_the_scores_stale(run: Path, tmp_path: Path) -> None:
    (run / "episodes.jsonl").write_text("")
    unfinished, stale = _caveats(run, tmp_path)
    assert "not finished" in unfinished
    assert stale == "The scores include 2 episodes without a record; run `evalkit score run` again."


def test_an_episode_run_again_makes_the_scores_stale(run: Path, tmp_path: Path) -> None:
    records = (run / "episodes.jsonl").read_text()
    (run / "episodes.jsonl").write_text(records.replace('"actions_sha256": null', '"actions_sha256": "f00"', 1))
    assert _caveats(run, tmp_path)[0].startswith("The scores cover 1 of 2 episodes")


def test_scores_of_another_plan_are_said(run: Path, tmp_path: Path) -> None:
    other = _copy(run, tmp_path / "other", seed=7)
    (run / "scores.parquet").rename(other / "scores.parquet")
    (sentence,) = _caveats(other, tmp_path)
    assert sentence.startswith(f"The scores belong to another plan ({open_run(run).plan.sha256[:12]}, not ")


def test_scores_that_do_not_say_of_what_they_are_made_are_said(run: Path, tmp_path: Path) -> None:
    table = pq.read_table(run / "scores.parquet")
    pq.write_table(table.replace_schema_metadata({}), run / "scores.parquet")
    assert _caveats(run, tmp_path)[0].startswith("The scores do not name the records that they were made from")


def test_lost_clips_are_said_on_top(run: Path, tmp_path: Path) -> None:
    (run / "clips/ball/0001.h5").unlink()
    score_run(run, workers=1)
    assert _caveats(run, tmp_path) == ("1 of 2 clips could not be scored: ball/0001 (missing_clip).",)


def test_sessions_that_differ_are_said() -> None:
    other = {"commit": "b" * 40 + "+changes", "versions": {"torch": "2.5"}, "machine": {"cores": 8, "processor": "X"}}
    assert list(session_caveats({"sessions": [SESSION, other, SESSION]})) == [
        "The run's 3 sessions differ: commit aaaaaaaaaaaa, then bbbbbbbbbbbb+changes; torch 2.4, then 2.5; "
        "machine's cores 2, then 8."
    ]
    (sentence,) = session_caveats({"sessions": [SESSION, {"commit": None}]})
    assert "commit aaaaaaaaaaaa, then unknown" in sentence
    for broken in ({}, {"sessions": None}, {"sessions": [1, "x"]}, {"sessions": {"a": 1}}):
        assert list(session_caveats(broken)) == []


def test_sessions_of_a_run_reach_its_report(run: Path, tmp_path: Path) -> None:
    open_run(run).write_about({"sessions": [SESSION, {**SESSION, "commit": "b" * 40}]})
    assert "The run's 2 sessions differ: commit" in _caveats(run, tmp_path)[0]


def test_comparing_different_protocols_is_refused(run: Path, tmp_path: Path) -> None:
    other = _copy(run, tmp_path / "other", protocol="scene/open-form")
    with pytest.raises(
        MixedProtocols, match=r"'scene/closed-form' \(run\) and 'scene/open-form' \(other\).* --across-protocols\.$"
    ):
        write_report([run, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    arguments = ["report", str(run), str(other), "--out", str(tmp_path / "out")]
    assert isinstance(CliRunner().invoke(app, arguments).exception, MixedProtocols)
    assert CliRunner().invoke(app, [*arguments, "--across-protocols"]).exit_code == 0
    text = (tmp_path / "out/report.md").read_text()
    assert text.startswith("# Report\n\n> - **The runs follow different protocols, 'scene/closed-form' (run) and ")


def test_settings_of_one_protocol_that_differ_are_said(plan: Plan) -> None:
    plans = {"a": plan, "b": replace(plan, setting="random"), "c": plan}
    assert list(between_caveats(plans, across_protocols=False)) == [
        "The runs of scene/closed-form have different settings, 'default' (a, c) and 'random' (b): "
        "their numbers do not compare."
    ]
    assert list(between_caveats({"a": plan, "b": plan}, across_protocols=False)) == []


def test_gpus_that_differ_within_a_run_are_named(run: Path, tmp_path: Path) -> None:
    """The same policy differs by up to 5 points between GPUs on RoboTwin."""
    first, second = {"vulkan_device": "H100", "sapien": "3.0.3"}, {"vulkan_device": "A100", "sapien": "3.0.3"}
    with HeldRun(run, open_run(run).plan) as folder:
        for told in (first, first, second, second, first):
            folder.note_worker("fake/Near", told)
        folder.note_worker("fake/Far", first)
        about = folder.read_about()
    assert about["workers"] == {"fake/Near": first, "fake/Far": first}
    assert about["other_workers"] == {"fake/Near": [second]}
    sentence = "The run's env processes differ: vulkan_device H100 and A100."
    assert list(worker_caveats(about)) == [sentence]
    assert sentence in _caveats(run, tmp_path)
    assert list(worker_caveats({"workers": {"a": first, "b": first}})) == list(worker_caveats({})) == []


def test_gpus_that_differ_between_runs_are_named() -> None:
    abouts = {name: {"workers": {"t": {"vulkan_device": gpu}}} for name, gpu in (("a", "H100"), ("b", "A100"))}
    assert list(between_worker_caveats(abouts)) == [
        "The runs' env processes have different values of vulkan_device: 'H100' (a) and 'A100' (b)."
    ]
    assert list(between_worker_caveats({"a": abouts["a"], "c": abouts["a"], "old": {}})) == []
