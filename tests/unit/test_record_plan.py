"""The recorder: which episodes are missing, who acts, what an episode states, and what stops a recording."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evalkit.contracts.bound import BoundBench, BoundPolicy
from evalkit.contracts.errors import BadConfig, EnvRaised, EpisodeFault, EvalkitError
from evalkit.contracts.plugins import load_bench, load_expert, recordable
from evalkit.contracts.recording import DEMONSTRATION_SEEDS
from evalkit.contracts.types import Episode
from evalkit.dataset.axes import SAME_AXES
from evalkit.dataset.layout import read_track
from evalkit.dataset.writer import episode_key, recording_of, write_episode
from evalkit.record import plan, pool, workers
from evalkit.record.demonstrate import NO_DISTURBANCE, Disturbance, demonstrate
from evalkit.record.notes import write_note
from tests.doubles.bench import RecordableFakeBench
from tests.doubles.configured import bench_of, policy_of
from tests.doubles.point import EPISODE, ChunkPolicy, PointEnv, PointExpert


class PointBench(RecordableFakeBench):
    """A bench of one point."""

    name = "point"
    tasks = ("Go",)

    def plan_episodes(self, config: Any, **_: Any) -> list[Episode]:
        return [EPISODE]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> PointEnv:
    """Let the recorder find the env and the expert of one point, and return its env."""
    env = PointEnv()
    expert = SimpleNamespace(tasks=("Go",), start=lambda task: PointExpert())
    monkeypatch.setattr(workers, "load_expert", lambda name: expert)
    monkeypatch.setattr(workers, "_env", lambda *_: env)
    monkeypatch.setattr(workers, "check", lambda *_: None)
    monkeypatch.setattr("evalkit.record.demonstrate.check_actions", lambda *_: None)
    return env


POINT = BoundBench(plugin=PointBench(), config=None)


def job_of(root: Path, numbers: Iterable[int], **changes: Any) -> plan.RecordJob:
    same: dict[str, Any] = {"bench": POINT, "protocol": "point/v1", "task": "Go", "setting": "default"} | changes
    return plan.RecordJob(root=root, numbers=tuple(numbers), seeds=tuple(numbers), disturbance=NO_DISTURBANCE, **same)


def chunks(policy: ChunkPolicy) -> BoundPolicy:
    """Return what the recorder loads as this policy."""
    return BoundPolicy(plugin=SimpleNamespace(name="chunks", make=lambda config: policy), config=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("refused", [(), ("dance", "sing")])
def test_an_episode_states_its_instructions_and_its_policy(
    tmp_path: Path, stage: PointEnv, refused: tuple[str, ...]
) -> None:
    job = job_of(tmp_path, range(20), refused=refused)
    kept = [number for number, done in enumerate(workers.record_episodes(job, {})) if done]
    assert len(kept) == 20 if not refused else kept
    for key in map(episode_key, kept):
        stored = json.loads((tmp_path / "data" / f"{key}.json").read_text())
        assert stored["instructions"] == list(refused or ("go",))
        assert stored["about"]["policy"] == ("hold" if refused else "scripted")
        assert np.abs(read_track(tmp_path, key).action[:, :3]).max() == (0.0 if refused else 1.0)


def test_failures_of_a_policy_are_recorded(tmp_path: Path, stage: PointEnv) -> None:
    policy = chunks(ChunkPolicy(stage, speed=0.0))
    job = job_of(tmp_path, [3], actor=plan.Actor(policy=policy, max_steps=4))
    assert list(workers.record_episodes(job, {})) == [True]
    stored = json.loads((tmp_path / "data" / f"{episode_key(3)}.json").read_text())
    assert stored["about"]["policy"] == "chunks"
    assert stored["about"]["success"] is False
    assert read_track(tmp_path, episode_key(3)).num_frames == 4


def test_a_take_over_names_both_actors(tmp_path: Path, stage: PointEnv) -> None:
    policy = chunks(ChunkPolicy(stage, speed=-0.3))
    job = job_of(tmp_path, [3], actor=plan.Actor(policy=policy, take_over=5))
    assert list(workers.record_episodes(job, {})) == [True]
    about = json.loads((tmp_path / "data" / f"{episode_key(3)}.json").read_text())["about"]
    assert (about["policy"], about["takes_over_from"], about["after_up_to"]) == ("scripted", "chunks", 5)
    assert (about["protocol"], about["env"]) == ("point/v1", {"simulator": "none"})
    assert np.abs(read_track(tmp_path, episode_key(3)).action[:, :3]).max() == 1.0


def test_a_task_without_an_expert_is_named(tmp_path: Path, stage: PointEnv) -> None:
    with pytest.raises(EvalkitError, match="no expert for task 'Stop' of bench 'point'; it has experts for Go"):
        list(workers.record_episodes(job_of(tmp_path, [0], task="Stop"), {}))


def test_views_keep_the_envs_order(tmp_path: Path) -> None:
    recording = recording_of(PointEnv.spec, SAME_AXES)
    assert [view.name for view in recording.views] == ["0_z_front", "1_wrist"]
    steps = demonstrate(PointEnv(), PointExpert(), EPISODE, NO_DISTURBANCE)
    assert steps is not None
    write_episode(tmp_path, 0, steps, recording, instructions=["go"])
    track = read_track(tmp_path, episode_key(0))
    np.testing.assert_array_equal(track.action, steps.action)
    assert [camera.kind for camera in track.cameras] == ["static", "dynamic"]


# ---- which episodes


def jobs(root: Path, *, settings: Mapping[str, Any] | None = None, **changes: Any) -> list[plan.RecordJob]:
    arguments: dict[str, Any] = {
        "wanted": {"Lift": 45, "Door": 21},
        "setting": "default",
        "disturbance": NO_DISTURBANCE,
    } | changes
    return plan.jobs(root, bench_of("robosuite", **(settings or {})), arguments.pop("wanted"), **arguments)


def test_tasks_take_turns_and_numbers_do_not_meet(tmp_path: Path) -> None:
    todo = jobs(tmp_path)
    assert [job.task for job in todo] == ["Lift", "Door", "Lift", "Door", "Lift"]
    numbers = [number for job in todo for number in job.numbers]
    assert len(set(numbers)) == 66
    assert [seed for job in todo if job.task == "Door" for seed in job.seeds] == list(range(21))


def test_refusals_get_instructions_the_scene_does_not_allow(tmp_path: Path) -> None:
    words = {
        task: load_bench("robosuite")
        .plan_episodes(load_bench("robosuite").config_type(), task=task, setting="default", num_episodes=1, seed=0)[0]
        .instruction
        for task in ("Lift", "Stack", "Door", "PickPlaceCan", "NutAssemblySquare", "TwoArmLift", "TwoArmHandover")
    }
    refused = {job.task: set(job.refused) for job in jobs(tmp_path, wanted={"Lift": 1, "Stack": 1}, refuse="anything")}
    assert refused["Lift"] == {words[task] for task in ("Stack", "Door", "PickPlaceCan", "NutAssemblySquare")}
    assert refused["Stack"] == refused["Lift"] - {words["Stack"]}  # there is a cube to be lifted, too


def test_refusals_reuse_scenes_under_new_episode_numbers(tmp_path: Path) -> None:
    of_kind = {kind: jobs(tmp_path, wanted={"Lift": 5}, refuse=kind)[0] for kind in (None, "anything", "Stack", "Door")}
    assert all(job.seeds == of_kind[None].seeds for job in of_kind.values())
    assert not of_kind[None].refused
    assert len({number for job in of_kind.values() for number in job.numbers}) == 4 * 5
    for kind, most in ((None, 50_000), ("anything", 5_000), ("Stack", 5_000)):
        with pytest.raises(BadConfig, match=f"Lift: 1 to {most} episodes"):
            jobs(tmp_path, wanted={"Lift": most + 1}, refuse=kind)


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


def test_a_kitchen_has_no_refusals(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="'robocasa' does not say which tasks its scenes do not allow"):
        plan.jobs(
            tmp_path,
            bench_of("robocasa", art="placeholder"),
            {"CloseDrawer": 1},
            setting="default",
            disturbance=NO_DISTURBANCE,
            refuse="anything",
        )


def test_what_is_there_or_failed_is_not_recorded_again(tmp_path: Path) -> None:
    first = jobs(tmp_path)[0]
    say_recorded(first, 3)
    say_failed(first, 5)
    left = {number for job in jobs(tmp_path) for number in job.numbers}
    assert set(first.numbers) - left == {first.numbers[3], first.numbers[5]}


def test_a_note_of_another_recording_is_tried_again(tmp_path: Path) -> None:
    first = jobs(tmp_path)[0]
    say_failed(replace(first, seeds=tuple(seed + 1 for seed in first.seeds)), 4)
    say_failed(replace(first, disturbance=Disturbance(burst_prob=0.5)), 5)
    say_failed(first, 6)
    (tmp_path / plan.FAILED / episode_key(first.numbers[7])).touch()  # as older versions wrote it
    left = {number for job in jobs(tmp_path) for number in job.numbers}
    assert set(first.numbers) - left == {first.numbers[6]}


def say_failed(job: Any, place: int) -> None:
    write_note(tmp_note(job, place), plan.about_of(job, job.seeds[place]), "the expert failed")


def tmp_note(job: Any, place: int) -> Path:
    return Path(job.root / plan.FAILED / episode_key(job.numbers[place]))


def say_recorded(job: Any, place: Any, **changes: Any) -> None:
    """Write what an episode of a job says about it."""
    path = job.root / "data" / f"{episode_key(job.numbers[place])}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = plan.about_of(job, job.seeds[place]).to_json() | {"env": {}, "success": True} | changes
    path.write_text(json.dumps({"num_frames": 1, "about": about}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"setting": "wide"}, "'setting' was 'default', and is 'wide' now"),
        ({"first_seed": 7}, "'seed' was 3, and is 10 now"),
        ({"disturbance": Disturbance()}, "'disturbance' was"),
        ({"actor": plan.Actor(policy=policy_of("hold"))}, "'disturbance' was"),
        ({"actor": plan.Actor(policy=policy_of("hold"), take_over=9)}, "'after_up_to' was None, and is 9 now"),
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


def test_a_policy_of_other_weights_is_not_mixed_in(tmp_path: Path) -> None:
    """The seed of `random` stands for weights: it is part of what identifies the policy, not a setting given here."""
    actors = [plan.Actor(policy=replace(policy_of("random", seed=seed), given=())) for seed in (0, 1)]
    first = jobs(tmp_path, actor=actors[0])[0]
    say_recorded(first, 3)
    assert first.numbers[3] not in jobs(tmp_path, actor=actors[0])[0].numbers
    with pytest.raises(BadConfig, match=r"'policy_provenance' was \{'seed': '0', .*, and is \{'seed': '1', .* now"):
        jobs(tmp_path, actor=actors[1])
    say_recorded(first, 3, policy_provenance=None)
    with pytest.raises(BadConfig, match=r"cannot be compared: an older version wrote it, which stored no hashes"):
        jobs(tmp_path, actor=actors[0])


# ---- what stops a recording


class Threads(ThreadPoolExecutor):
    """A pool in this process, where a double of the work can be reached."""

    def __init__(self, workers: int, **_: Any) -> None:
        super().__init__(workers)


def working(monkeypatch: pytest.MonkeyPatch, record_job: Callable[[plan.RecordJob], workers.RecordJobResult]) -> None:
    """Let the recorder do its jobs with a double."""
    monkeypatch.setattr(pool, "ProcessPoolExecutor", Threads)
    monkeypatch.setattr(workers, "record_job", record_job)


def test_a_fault_stops_recording_and_lists_finished_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[plan.RecordJob] = []

    def record_job(job: plan.RecordJob) -> workers.RecordJobResult:
        begun.append(job)
        if len(begun) == 2:
            raise EvalkitError("actions are not finite")
        say_recorded(job, 0)
        time.sleep(0.02)
        return workers.RecordJobResult(kept=1, tried=20)

    working(monkeypatch, record_job)
    with pytest.raises(EvalkitError, match="actions are not finite"):
        workers.record(tmp_path, jobs(tmp_path, wanted={"Lift": 1000}))
    assert len(begun) < 10
    assert len(json.loads((tmp_path / "metadata.json").read_text())) == len(begun) - 1


def test_a_policys_fault_is_an_error_and_an_envs_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: PointEnv
) -> None:
    job = job_of(tmp_path, [3, 4], actor=plan.Actor(policy=chunks(ChunkPolicy(stage)), max_steps=4))
    faults = [EpisodeFault("policy", "actions are not finite"), EpisodeFault("env", "the worker died.", retriable=True)]

    def fail(env: PointEnv, policy: ChunkPolicy, episode: Episode) -> None:
        if episode.seed == 4:
            raise faults[-1]

    monkeypatch.setattr(workers, "rollout", fail)
    assert workers.record_job(job) == workers.RecordJobResult(kept=0, tried=1, interruption="the worker died.")
    faults.pop()
    with pytest.raises(EvalkitError, match="actions are not finite"):
        workers.record_job(job)


def test_what_an_env_raises_costs_its_seed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: PointEnv
) -> None:
    kind = "KeyError"

    def fail(env: PointEnv, expert: PointExpert, episode: Episode, *_: Any, **__: Any) -> Any:
        if episode.seed in (3, 4):
            raise EnvRaised("point/Go", kind=kind, text="'cube'")
        return demonstrate(env, PointExpert(), episode, NO_DISTURBANCE)

    monkeypatch.setattr(workers, "demonstrate", fail)
    result = workers.record_job(job_of(tmp_path, [2, 3, 4, 5]))
    assert result == workers.RecordJobResult(kept=2, tried=4, faults=("seed 3, 4: point/Go: KeyError: 'cube'.",))
    kind = "EvalkitError"
    with pytest.raises(EvalkitError, match=r"^point/Go: 'cube'$"):
        workers.record_job(job_of(tmp_path, [3]))


def test_a_failed_job_ends_recording_and_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.enumerate()
    bench = bench_of("robosuite")
    with pytest.raises(EvalkitError, match="no expert for task 'Go' of bench 'robosuite'"):
        workers.record(tmp_path, [job_of(tmp_path, [number], bench=bench) for number in range(2)])
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    assert not left, "a thread of the pool goes on, and would print a traceback"


def test_a_full_disk_is_one_sentence_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> workers.RecordJobResult:
        raise OSError(28, "No space left on device")

    sentence = "No space left on device. Whole episodes are kept; remove the cause and run the same command again"
    working(monkeypatch, full)
    with pytest.raises(EvalkitError, match=sentence):
        workers.record(tmp_path / "new", jobs(tmp_path / "new", wanted={"Lift": 1}))
    assert not (tmp_path / "new").exists()
    say_recorded(jobs(tmp_path)[0], 0)
    working(monkeypatch, lambda job: workers.RecordJobResult(kept=1, tried=1))
    monkeypatch.setattr(workers, "write_metadata", full)
    with pytest.raises(EvalkitError, match=sentence):
        workers.record(tmp_path, jobs(tmp_path, wanted={"Lift": 2}))


def test_a_broken_json_is_named_and_recorded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = jobs(tmp_path, wanted={"Lift": 3})[0]
    say_recorded(job, 0)
    say_recorded(job, 1)
    broken = tmp_path / "data" / f"{episode_key(job.numbers[1])}.json"
    broken.write_text("")
    (left,) = jobs(tmp_path, wanted={"Lift": 3})
    assert left.numbers == job.numbers[1:]
    recorded = workers.record(tmp_path, [])
    assert f"{broken} is broken; its episode is left out. Record it again" in capsys.readouterr().out
    assert list(recorded.lengths) == [episode_key(job.numbers[0])]
    assert json.loads((tmp_path / "metadata.json").read_text()) == recorded.lengths


def test_a_simulator_that_dies_costs_its_job_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def record_job(job: plan.RecordJob) -> workers.RecordJobResult:
        if job.seeds[0] == 20:
            return workers.RecordJobResult(kept=3, tried=4, interruption="the env's process died.")
        return workers.RecordJobResult(kept=20, tried=20)

    ended: list[plan.RecordJob] = []
    working(monkeypatch, record_job)
    todo = jobs(tmp_path, wanted={"Lift": 60})
    recorded = workers.record(tmp_path, todo, workers=2, on_job=lambda job, result: ended.append(job))
    assert recorded.interruptions == ("Lift, from seed 20 on: the env's process died.",)
    assert recorded.faults == ()
    assert (recorded.kept, recorded.tried) == (43, 44)
    assert sorted(ended, key=lambda job: job.seeds) == todo


def test_seeds_stay_away_from_every_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = load_bench("robosuite")
    planned = bench.plan_episodes(bench.config_type(), task="Lift", setting="default", num_episodes=1, seed=0)
    assert planned[0].seed not in DEMONSTRATION_SEEDS
    with pytest.raises(BadConfig, match="leave those of demonstrations"):
        jobs(tmp_path, first_seed=999_990)
    with pytest.raises(BadConfig, match="must lie in 0 to 999999, got 1000000"):
        jobs(tmp_path, first_seed=1_000_000)
    monkeypatch.setattr(plan, "DEMONSTRATION_SEEDS", range(2_000_000))
    with pytest.raises(BadConfig, match="evaluates on seed 1000000"):
        jobs(tmp_path)


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    xwam, hold = policy_of("xwam"), policy_of("hold")
    for changes, sentence in (
        ({"actor": plan.Actor(policy=xwam), "refuse": "anything"}, "leave out --refuse, or --policy xwam"),
        ({"first_number": -1}, "must be 0 or more"),
        ({"refuse": "Nope"}, "--refuse Nope: in the scene of Lift only these can be refused: "),
        ({"actor": plan.Actor(policy=hold, take_over=9), "refuse": "anything"}, "leave out --refuse"),
    ):
        with pytest.raises(BadConfig, match=sentence):
            jobs(tmp_path, wanted={"Lift": 1}, **changes)
    for wrong, sentence in (
        ({"max_steps": 0}, "--max-steps 0 must be 1 or more"),
        ({"take_over": 9}, "--policy must name the policy"),
        ({"policy": xwam, "take_over": 0}, "must be 1 or more"),
    ):
        with pytest.raises(BadConfig, match=sentence):
            plan.Actor(**wrong)


def test_a_bench_that_cannot_be_recorded_says_what_it_lacks() -> None:
    with pytest.raises(EvalkitError, match=r"'fake' cannot be recorded: its plugin has no episodes_per_process, "):
        recordable(load_bench("tests.doubles.bench:FakeBench"))
    with pytest.raises(EvalkitError, match=r"Bench 'fake' has no experts: .* the benches robocasa, robosuite"):
        load_expert("fake")
