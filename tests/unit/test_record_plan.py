"""The recorder: what is missing, who acts, what an episode says of itself, and what stops a recording."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from baselines.env_process import EnvProcessError
from baselines.replay import __main__ as replay
from baselines.scripted import record
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError
from evalkit.contracts.plugins import load_bench
from evalkit.dataset.layout import read_track
from evalkit.dataset.writer import episode_key, write_episode
from evalkit.record import plan, pool, workers
from evalkit.record.demonstrate import CALM, Disturbance, demonstrate
from tests.doubles.point import EPISODE, ChunkPolicy, PointEnv, PointExpert


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the recorder find a bench of one point, and return its env."""
    bench = SimpleNamespace(
        config_type=SimpleNamespace, plan_episodes=lambda *_, **__: [EPISODE], launch=lambda *_, **__: None
    )
    env = PointEnv()
    env.close = lambda: None
    monkeypatch.setattr(workers, "load_bench", lambda name: bench)
    monkeypatch.setattr(workers, "_env", lambda launch: env)
    monkeypatch.setattr(workers, "check", lambda *_: None)
    return env


def job_of(root: Any, numbers: Any, **changes: Any) -> Any:
    same = {"bench": "robosuite", "protocol": "point/v1", "task": "Go", "setting": "default", "settings": ()}
    return plan.Job(root=root, numbers=tuple(numbers), seeds=tuple(numbers), disturbance=CALM, **same, **changes)


@pytest.mark.parametrize("refused", [(), ("dance", "sing")])
def test_what_is_recorded_says_what_was_told_and_who_acted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Any, refused: Any
) -> None:
    monkeypatch.setattr(workers.ScriptedPlugin, "make", lambda self, _: PointExpert())
    job = job_of(tmp_path, range(20), refused=refused)
    kept = [number for number, done in enumerate(workers.record_block(job)) if done]
    assert len(kept) == 20 if not refused else kept
    for key in map(episode_key, kept):
        stored = json.loads((tmp_path / "data" / f"{key}.json").read_text())
        assert stored["instructions"] == list(refused or ("go",))
        assert stored["about"]["policy"] == ("hold" if refused else "scripted")
        assert np.abs(read_track(tmp_path, key).action[:, :3]).max() == (0.0 if refused else 1.0)


def test_what_another_policy_does_is_kept_even_where_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Any
) -> None:
    plugin = SimpleNamespace(config_type=plan.HoldPlugin.config_type, make=lambda _: ChunkPolicy(stage, speed=0.0))
    monkeypatch.setattr(plan, "load_policy", lambda name: plugin)
    monkeypatch.setattr("evalkit.record.demonstrate.check_actions", lambda *_: None)
    job = job_of(tmp_path, [3], actor=plan.Actor(policy="chunks", max_steps=4))
    assert list(workers.record_block(job)) == [True]
    stored = json.loads((tmp_path / "data" / f"{episode_key(3)}.json").read_text())
    assert stored["about"]["policy"] == "chunks"
    assert stored["about"]["success"] is False
    assert read_track(tmp_path, episode_key(3)).num_frames == 4


def test_what_an_expert_does_after_another_says_after_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Any
) -> None:
    plugin = SimpleNamespace(config_type=plan.HoldPlugin.config_type, make=lambda _: ChunkPolicy(stage, speed=-0.3))
    monkeypatch.setattr(plan, "load_policy", lambda name: plugin)
    monkeypatch.setattr(workers.ScriptedPlugin, "make", lambda self, _: PointExpert())
    monkeypatch.setattr("evalkit.record.demonstrate.check_actions", lambda *_: None)
    job = job_of(tmp_path, [3], actor=plan.Actor(policy="chunks", take_over=5))
    assert list(workers.record_block(job)) == [True]
    about = json.loads((tmp_path / "data" / f"{episode_key(3)}.json").read_text())["about"]
    assert (about["policy"], about["takes_over_from"], about["after_up_to"]) == ("scripted", "chunks", 5)
    assert (about["protocol"], about["env"]) == ("point/v1", {"simulator": "none"})
    assert np.abs(read_track(tmp_path, episode_key(3)).action[:, :3]).max() == 1.0


def test_views_keep_the_envs_order(tmp_path: Path) -> None:
    recording = workers.recording_of(PointEnv.spec)
    assert [view.name for view in recording.views] == ["0_z_front", "1_hand"]
    steps = demonstrate(PointEnv(), PointExpert(), EPISODE, CALM)
    write_episode(tmp_path, 0, steps, recording, instructions=["go"])
    track = read_track(tmp_path, episode_key(0))
    np.testing.assert_array_equal(track.action, steps.action)
    assert [camera.kind for camera in track.cameras] == ["static", "dynamic"]


# ---- which episodes


def jobs(root: Any, **changes: Any) -> Any:
    arguments = {"wanted": {"Lift": 45, "Door": 21}, "setting": "default", "disturbance": CALM} | changes
    return plan.jobs(root, "robosuite", arguments.pop("wanted"), **arguments)


def test_tasks_take_turns_and_numbers_do_not_meet(tmp_path: Path) -> None:
    todo = jobs(tmp_path)
    assert [job.task for job in todo] == ["Lift", "Door", "Lift", "Door", "Lift"]
    numbers = [number for job in todo for number in job.numbers]
    assert len(set(numbers)) == 66
    assert [seed for job in todo if job.task == "Door" for seed in job.seeds] == list(range(21))


def test_refusals_are_told_what_the_scene_does_not_allow(tmp_path: Path) -> None:
    words = {
        task: load_bench("robosuite")
        .plan_episodes(load_bench("robosuite").config_type(), task=task, setting="default", num_episodes=1, seed=0)[0]
        .instruction
        for task in ("Lift", "Stack", "Door", "PickPlaceCan", "NutAssemblySquare", "TwoArmLift", "TwoArmHandover")
    }
    told = {job.task: set(job.refused) for job in jobs(tmp_path, wanted={"Lift": 1, "Stack": 1}, refuse="anything")}
    assert told["Lift"] == {words[task] for task in ("Stack", "Door", "PickPlaceCan", "NutAssemblySquare")}
    assert told["Stack"] == told["Lift"] - {words["Stack"]}  # there is a cube to be lifted, too


def test_refusals_reuse_scenes_under_new_episode_numbers(tmp_path: Path) -> None:
    of_way = {way: jobs(tmp_path, wanted={"Lift": 5}, refuse=way)[0] for way in (None, "anything", "Stack", "Door")}
    assert all(job.seeds == of_way[None].seeds for job in of_way.values())
    assert not of_way[None].refused
    assert len({number for job in of_way.values() for number in job.numbers}) == 4 * 5
    for way, most in ((None, 50_000), ("anything", 5_000), ("Stack", 5_000)):
        with pytest.raises(BadConfig, match=f"Lift: 1 to {most} episodes"):
            jobs(tmp_path, wanted={"Lift": most + 1}, refuse=way)


def test_one_task_alone_is_refused_where_it_cannot_be_done(tmp_path: Path) -> None:
    (job,) = jobs(tmp_path, wanted={"Lift": 1}, refuse="Stack")
    assert job.refused == ("Stack the small red cube on top of the green cube.",)
    with pytest.raises(BadConfig, match=r"--refuse Lift: in the scene of Stack only these can be refused: Door, "):
        jobs(tmp_path, wanted={"Stack": 1}, refuse="Lift")
    with pytest.raises(BadConfig, match="leave shuffle_instructions out"):
        jobs(tmp_path, wanted={"Lift": 1}, refuse="Stack", settings={"shuffle_instructions": True})


def test_other_settings_add_episodes_under_new_numbers(tmp_path: Path) -> None:
    (first,), (second,) = (jobs(tmp_path, wanted={"Lift": 3}, first_number=number) for number in (0, 3))
    assert second.numbers == tuple(number + 3 for number in first.numbers)
    with pytest.raises(BadConfig, match="Lift: 1 to 10 episodes"):
        jobs(tmp_path, wanted={"Lift": 11}, first_number=49_990)


def test_nobody_refuses_in_a_kitchen(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="'robocasa' do not allow"):
        plan.jobs(
            tmp_path,
            "robocasa",
            {"CloseDrawer": 1},
            setting="default",
            settings={"art": "placeholder"},
            disturbance=CALM,
            refuse="anything",
        )


def test_what_is_there_or_failed_is_not_recorded_again(tmp_path: Path) -> None:
    first = jobs(tmp_path)[0]
    say_recorded(first, 3)
    failed = tmp_path / plan.FAILED / episode_key(first.numbers[5])
    failed.parent.mkdir(parents=True)
    failed.touch()
    left = {number for job in jobs(tmp_path) for number in job.numbers}
    assert set(first.numbers) - left == {first.numbers[3], first.numbers[5]}


def say_recorded(job: Any, place: Any, **changes: Any) -> None:
    """Write what an episode of a job says of itself."""
    path = job.root / "data" / f"{episode_key(job.numbers[place])}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = plan.about_of(job, job.seeds[place]).to_json() | {"env": {}, "success": True} | changes
    path.write_text(json.dumps({"num_frames": 1, "about": about}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"setting": "wide"}, "setting was 'default', and is 'wide' now"),
        ({"first_seed": 7}, "seed was 3, and is 10 now"),
        ({"disturbance": Disturbance()}, "disturbance was"),
        ({"actor": plan.Actor(policy="hold")}, "disturbance was"),
        ({"actor": plan.Actor(policy="hold", take_over=9)}, "after_up_to was None, and is 9 now"),
    ],
)
def test_episodes_of_other_settings_are_not_reused(tmp_path: Path, changes: Any, said: str) -> None:
    say_recorded(jobs(tmp_path)[0], 3)
    with pytest.raises(BadConfig, match=said):
        jobs(tmp_path, **changes)
    jobs(tmp_path, first_number=1000, **changes)


def test_scenes_of_another_protocol_do_not_mix(tmp_path: Path) -> None:
    say_recorded(jobs(tmp_path)[0], 3, protocol="robosuite-7/standard-v0")
    with pytest.raises(BadConfig, match=r"standard-v0', and is .* Record into another folder"):
        jobs(tmp_path)


# ---- what goes wrong on the way


class Threads(ThreadPoolExecutor):
    """A pool in this process, where a double of the work can be reached."""

    def __init__(self, workers: Any, **_: Any) -> None:
        super().__init__(workers)


def test_a_fault_stops_recording_and_lists_finished_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = []

    def count_block(job: Any) -> Any:
        begun.append(job)
        if len(begun) == 2:
            raise EpisodeFault("policy", "actions are not finite")
        say_recorded(job, 0)
        time.sleep(0.02)
        return 1, 20

    monkeypatch.setattr(pool, "ProcessPoolExecutor", Threads)
    monkeypatch.setattr(workers, "_count_block", count_block)
    assert record.main([str(tmp_path), "Lift=1000"]) == 2
    assert "actions are not finite" in capsys.readouterr().err
    assert len(begun) < 10
    assert len(json.loads((tmp_path / "metadata.json").read_text())) == len(begun) - 1


def test_a_failed_job_ends_recording_and_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.enumerate()
    with pytest.raises(EvalkitError, match="Unknown bench 'nobody'"):
        workers.record([replace(job_of(tmp_path, [number]), bench="nobody") for number in range(2)], workers=1)
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    assert not left, "a thread of the pool goes on, and would print a traceback"


def test_a_full_disk_is_one_sentence_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record, "record", full)
    assert record.main([str(tmp_path / "new"), "Lift=1"]) == 2
    assert not (tmp_path / "new").exists()
    say_recorded(jobs(tmp_path)[0], 0)
    monkeypatch.setattr(record, "write_metadata", full)
    assert record.main([str(tmp_path), "Lift=2", "--calm"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all("No space left on device. Whole episodes are kept; mend this, and the same" in line for line in said)


def test_a_broken_json_is_named_and_recorded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = jobs(tmp_path, wanted={"Lift": 3})[0]
    say_recorded(job, 0)
    say_recorded(job, 1)
    broken = tmp_path / "data" / f"{episode_key(job.numbers[1])}.json"
    broken.write_text("")
    (left,) = jobs(tmp_path, wanted={"Lift": 3})
    assert left.numbers == job.numbers[1:]
    monkeypatch.setattr(record, "record", lambda todo, **_: workers.Recorded(0, len(todo), []))
    assert record.main([str(tmp_path), "Lift=1", "--calm"]) == 0
    assert f"{broken} is broken; its episode is left out. Record it again" in capsys.readouterr().out
    assert list(json.loads((tmp_path / "metadata.json").read_text())) == [episode_key(job.numbers[0])]


def test_a_simulator_that_dies_costs_its_block_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def count_block(job: Any) -> Any:
        if job.seeds[0] == 20:
            raise EnvProcessError("the env's process died")
        return 20, 20

    monkeypatch.setattr(pool, "ProcessPoolExecutor", Threads)
    monkeypatch.setattr(workers, "_count_block", count_block)
    assert record.main([str(tmp_path), "Lift=60"]) == 1
    said = capsys.readouterr().out
    assert "Lift, from seed 20 on: the env's process died. It will be tried again." in said
    assert "40 of 40 recorded now" in said


def test_seeds_stay_away_from_every_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = load_bench("robosuite")
    planned = bench.plan_episodes(bench.config_type(), task="Lift", setting="default", num_episodes=1, seed=0)
    assert planned[0].seed not in plan.DEMONSTRATION_SEEDS
    with pytest.raises(BadConfig, match="leave those of demonstrations"):
        jobs(tmp_path, first_seed=999_990)
    with pytest.raises(BadConfig, match="from seed 1000000 cannot"):
        jobs(tmp_path, first_seed=1_000_000)
    monkeypatch.setattr(plan, "DEMONSTRATION_SEEDS", range(2_000_000))
    with pytest.raises(BadConfig, match="evaluates on seed 1000000"):
        jobs(tmp_path)


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert record.main([str(tmp_path), "Lift"]) == 2
    assert "for example Lift=200" in capsys.readouterr().err
    for wrong, said in (
        (["--policy", "nobody"], "nobody"),
        (["--policy", "xwam", "--policy-set", "speed=3"], "Policy 'xwam' has no setting 'speed'; it has checkpoint, "),
        (["--policy", "xwam", "--refuse", "anything"], "leave out --refuse, or --policy xwam"),
        (["--first-number", "-1"], "must be 0 or more"),
        (["--refuse", "Nope"], "--refuse Nope: in the scene of Lift only these can be refused: "),
        (["--max-steps", "0"], "--max-steps 0 must be 1 or more"),
        (["--take-over", "9"], "--policy say from whom"),
        (["--policy", "xwam", "--take-over", "0"], "must be 1 or more"),
        (["--policy", "hold", "--take-over", "9", "--refuse", "anything"], "leave out --refuse"),
    ):
        assert record.main([str(tmp_path), "Lift=1", *wrong]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        record.main([str(tmp_path), "Lift=1", "--workers", "0"])
    assert "--workers: must be a whole number, 1 or more, got '0'" in capsys.readouterr().err


@pytest.mark.parametrize("command", [record, replay])
def test_every_argument_says_what_it_is(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parsers = []

    def parse(parser: Any, _: Any) -> None:
        parsers.append(parser)
        raise SystemExit

    monkeypatch.setattr("argparse.ArgumentParser.parse_args", parse)
    with pytest.raises(SystemExit):
        command.main([])
    assert [action.dest for action in parsers[0]._actions if not action.help] == []
