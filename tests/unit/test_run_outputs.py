"""Step rows and rollouts of a run, read back with other tools, from real worker processes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import evalkit
from evalkit.cli.main import app
from evalkit.contracts.errors import EvalkitError
from evalkit.dataset.layout import read_track, scan
from evalkit.dataset.lerobot_import import import_episodes
from evalkit.dataset.lerobot_read import open_lerobot
from evalkit.store.run_folder import open_run
from tests.doubles.bench import FakeEnv

POLICY = "tests.doubles.policy:FakePolicyPlugin"


def run(path: Path, bench: str = "FakeBench", tasks: Sequence[str] = (), **settings: Any) -> Path:
    bound, policy = evalkit.load_bench(f"tests.doubles.bench:{bench}"), evalkit.load_policy(POLICY)
    plan = evalkit.make_plan(bound, policy, tasks=tasks, num_episodes=2)
    return evalkit.run_plan(plan, bound, policy, path, **settings)


def test_step_rows_are_those_of_the_env(tmp_path: Path) -> None:
    run(tmp_path / "run", steps=True, video=False, clips=False)
    for record in open_run(tmp_path / "run").records():
        table = pd.read_parquet(tmp_path / "run" / "steps" / record.task / f"{record.index:04d}.parquet")
        assert list(table["step"]) == list(range(1, record.steps + 1))
        assert list(table["chunk"]) == [step // 8 for step in range(record.steps)]
        assert list(table["success"]) == [False] * (record.steps - 1) + [True]
        assert set(table["episode"]) == {record.key}
        env = FakeEnv(task=record.task, fault="none", fault_seed=0, step_s=0)
        env.begin(seed=record.seed, max_steps=20)
        rewards = []
        for step in range(record.steps):
            rng = np.random.default_rng([record.seed, step // 8])
            env.advance(np.array([rng.uniform(0.5, 1.0, 8).astype(np.float32)[step % 8]]))
            rewards.append(env.reward())
        np.testing.assert_allclose(table["reward"], rewards, rtol=1e-6)


def test_rollouts_are_a_lerobot_data_set(tmp_path: Path) -> None:
    run(tmp_path / "run", "RecordableFakeBench", rollouts=str(tmp_path / "set"), workers=2)
    plain = run(tmp_path / "plain", "RecordableFakeBench")
    records = {record.key: record for record in open_run(tmp_path / "run").records()}
    for record in open_run(plain).records():
        assert record.actions_sha256 == records[record.key].actions_sha256, "rendering every step changes no action"
    episodes = open_run(tmp_path / "run").plan.episodes
    assert (tmp_path / "set" / "meta" / "info.json").exists()
    import_episodes(open_lerobot(tmp_path / "set"), tmp_path / "back")
    lengths = scan(tmp_path / "back").lengths
    assert list(lengths.values()) == [records[episode.key].steps for episode in episodes]
    for (key, count), episode in zip(lengths.items(), episodes, strict=True):
        track = read_track(tmp_path / "back", key)
        assert len(track.instructions) == 1
        success = records[episode.key].outcome == "success"
        assert (track.about.task, track.about.seed, track.about.success) == (episode.task, episode.seed, success)
        assert count == len(track.proprio)
        moved = np.cumsum(track.action[:, 0])[:-1]  # the env adds them up
        np.testing.assert_allclose(track.proprio[1:, 0], moved, rtol=1e-5)


def test_a_bench_without_recordings_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(EvalkitError, match="cannot be recorded"):
        run(tmp_path / "run", rollouts=str(tmp_path / "set"))
    assert open_run(tmp_path / "run").records() == []


def test_missing_rollouts_are_counted(tmp_path: Path) -> None:
    def sentences(**settings: Any) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(tmp_path / "run", "RecordableFakeBench", **settings)
        return [str(each.message) for each in caught if each.category is UserWarning]

    total = len(open_run(run(tmp_path / "all", "RecordableFakeBench", shard="1/2")).plan.episodes)
    assert sentences(shard="1/2") == []
    half = (total + 1) // 2
    (said,) = sentences(rollouts=str(tmp_path / "set"))
    assert said == (
        f"run.rollouts holds {total - half} of {total} episodes: {half} recorded without run.rollouts, or broken."
    )
    assert len(open_lerobot(tmp_path / "set").episodes) == total - half
    (said,) = sentences(rollouts=str(tmp_path / "set"))
    assert said.startswith(f"run.rollouts holds {total - half} of {total}"), "the same call again says it again"


def test_rollouts_of_a_shard_are_counted(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"holds 1 of 2 episodes: 1 without a record in this run folder\."):
        run(tmp_path / "run", "RecordableFakeBench", tasks=["Near"], shard="1/2", rollouts=str(tmp_path / "set"))


def test_the_last_line_names_all_outputs(tmp_path: Path) -> None:
    arguments = ["run", "--policy", POLICY, "--bench", "tests.doubles.bench:RecordableFakeBench", "--tasks", "Near"]
    outputs = ["--out", str(tmp_path / "run"), "run.steps=true", f"run.rollouts={tmp_path / 'set'}"]
    done = CliRunner().invoke(app, [*arguments, "--episodes", "2", *outputs])
    assert done.exit_code == 0, done.output
    counted, last = done.stdout.strip().splitlines()[-2:]
    assert counted == "run.rollouts holds 2 of 2 episodes."
    assert last.startswith("records, ")
    assert last.endswith(f"steps and rollouts: {tmp_path / 'run'}; LeRobot data set: {tmp_path / 'set'}")
