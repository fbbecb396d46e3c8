"""A policy in processes of its own: equal results, and faults that cost one episode; with real processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evalkit
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError
from evalkit.contracts.requests import EpisodeRequests
from evalkit.contracts.types import Observation
from evalkit.run.equal_errors import StoppedEarly
from evalkit.run.policies import has_own_process
from evalkit.run.settings import RunSettings
from evalkit.serve.hosted import PolicyHangs
from evalkit.serve.pool import PolicyPool
from evalkit.serve.process import PolicyLaunch, PolicyProcess, ProcessLimits
from evalkit.store.clips import ClipReader
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import open_run
from tests.doubles.bench import FakeEnv, fake_spec
from tests.doubles.policy import FakePolicy, FakePolicyConfig, FakePolicyPlugin

BENCH, POLICY = "tests.doubles.bench:FakeBench", "tests.doubles.policy:FakePolicyPlugin"


def run(
    path: Path, *, fault: str = "none", fault_seed: int = 1, episodes: int = 3, **settings: Any
) -> list[EpisodeRecord]:
    bench, policy = evalkit.load_bench(BENCH), evalkit.load_policy(POLICY, fault=fault, fault_seed=fault_seed)
    plan = evalkit.make_plan(bench, policy, tasks=["Far"], num_episodes=3)
    evalkit.run_plan(plan, bench, policy, path, **{"video": False, **settings})
    return open_run(path).records()


def results(records: list[EpisodeRecord]) -> dict[str, tuple[str, str | None]]:
    return {record.key: (record.outcome, record.actions_sha256) for record in records}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain")
    run(path)
    return path


@pytest.mark.parametrize("settings", [{"policy_process": True}, {"servers": 2, "workers": 3}])
def test_a_process_or_several_change_no_bit(tmp_path: Path, plain: Path, settings: dict[str, Any]) -> None:
    records = run(tmp_path, **settings)
    assert results(records) == results(open_run(plain).records())
    for record in records:
        assert record.clip is not None
        with ClipReader(tmp_path / record.clip) as ours, ClipReader(plain / record.clip) as theirs:
            for one, other in zip(ours, theirs, strict=True):
                assert one.predicted is not None
                assert other.predicted is not None
                np.testing.assert_array_equal(one.predicted.rgb, other.predicted.rgb)
                np.testing.assert_array_equal(one.predicted.depth, other.predicted.depth)  # type: ignore[arg-type]
    logs = sorted(path.name for path in (tmp_path / "logs").glob("policy-*"))
    assert logs == [f"policy-{number}.log" for number in range(settings.get("servers", 1))]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (
            "hang",
            "Policy 'FakePolicyPlugin' did not answer within 2 s (run.policy_timeout_s), and its process was killed",
        ),
        ("die", "The process of policy 'FakePolicyPlugin' ended with exit code 7"),
        ("raise", "ValueError: CUDA out of memory"),
        ("nan", "actions hold values that are not finite"),
        ("wrong_shape", "actions must have shape (8, 14)"),
    ],
)
def test_a_fault_in_a_process_costs_one_episode(tmp_path: Path, plain: Path, fault: str, reason: str) -> None:
    records = run(tmp_path, fault=fault, policy_process=True, policy_timeout_s=2.0, max_attempts=2)
    by_key = {record.key: record for record in records}
    assert (by_key["Far/0001"].outcome, by_key["Far/0001"].blame) == ("error", "policy")
    assert reason in (by_key["Far/0001"].reason or "")
    assert by_key["Far/0001"].attempts == (2 if fault in ("hang", "die") else 1)
    clean = results(open_run(plain).records())
    assert {key: value for key, value in results(records).items() if key != "Far/0001"} == {
        key: value for key, value in clean.items() if key != "Far/0001"
    }


@pytest.mark.parametrize("fault", ["hang_once", "die_once"])
def test_a_process_that_is_lost_once_costs_an_attempt(tmp_path: Path, plain: Path, fault: str) -> None:
    records = run(tmp_path, fault=fault, policy_process=True, policy_timeout_s=2.0)
    assert results(records) == results(open_run(plain).records())
    assert {record.key: record.attempts for record in records} == {"Far/0000": 1, "Far/0001": 2, "Far/0002": 1}


def test_episodes_that_lose_their_process_are_not_blamed(tmp_path: Path, plain: Path) -> None:
    """Three lanes share a process that one episode makes hang until its attempts are used up."""
    run(tmp_path, fault="hang", policy_process=True, workers=3, policy_timeout_s=2.0, max_attempts=2)
    records = {record.key: record for record in open_run(tmp_path).records()}
    assert records["Far/0001"].outcome == "error"
    clean = results(open_run(plain).records())
    for key in ("Far/0000", "Far/0002"):
        assert (records[key].outcome, records[key].actions_sha256) == clean[key]


@pytest.mark.parametrize("fault", ["hang", "die"])
def test_processes_that_are_always_lost_stop_the_run(tmp_path: Path, fault: str) -> None:
    with pytest.raises(StoppedEarly, match=r"2 episodes in a row ended in the same error \(policy\)"):
        run(
            tmp_path,
            fault=fault,
            fault_seed=-1,
            policy_process=True,
            policy_timeout_s=1.0,
            max_attempts=1,
            stop_after_equal_errors=2,
        )
    assert [record.outcome for record in open_run(tmp_path).records()] == ["error"] * 2


def test_a_hang_in_the_runs_process_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(PolicyHangs, match=r"did not answer within 1 s .*run\.policy_process=true"):
        run(tmp_path, fault="hang", policy_timeout_s=1.0)
    assert [record.key for record in open_run(tmp_path).records()] == ["Far/0000"]


def test_a_policy_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvalkitError, match=r"size mismatch for blocks\.0\.weight .*policy-0\.log"):
        run(tmp_path, fault="make", policy_process=True)
    assert "Traceback" in (tmp_path / "logs" / "policy-0.log").read_text()
    with pytest.raises(EvalkitError, match="Cannot start the interpreter /nowhere/python"):
        run(tmp_path / "other", policy_python="/nowhere/python")


def test_another_interpreter_runs_the_policy(tmp_path: Path, plain: Path) -> None:
    python = tmp_path / "other-python"
    python.write_text(f'#!/bin/sh\necho other interpreter\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert results(run(tmp_path / "run", policy_python=str(python))) == results(open_run(plain).records())
    assert "other interpreter" in (tmp_path / "run" / "logs" / "policy-0.log").read_text()


def requests_of(policy: PolicyProcess | FakePolicy, seed: int) -> tuple[EpisodeRequests, Observation]:
    bench = evalkit.load_bench(BENCH)
    (*_, episode) = bench.plan_episodes(task="Far", setting="default", num_episodes=seed + 1, seed=0)
    env = FakeEnv(task="Far", fault="none", fault_seed=0, step_s=0)
    env.begin(seed=seed, max_steps=20)
    requests = EpisodeRequests(episode, policy.spec)
    requests.reset(policy, fake_spec("Far"))
    return requests, Observation(**env.observe(render=True))


def test_a_lost_process_is_told_and_started_again(tmp_path: Path) -> None:
    launch = PolicyLaunch.of(evalkit.load_policy(POLICY), log_path=tmp_path / "policy.log")
    policy = PolicyProcess(launch, ProcessLimits(reply_s=20.0))
    here = FakePolicy(FakePolicyConfig(), FakePolicyPlugin().spec(FakePolicyConfig()))
    try:
        requests, seen = requests_of(policy, 0)
        first = policy.infer([requests.request(seen, chunk_idx=0, step_idx=0)])[0].actions
        expected = here.infer([requests.request(seen, chunk_idx=0, step_idx=0)])[0].actions
        np.testing.assert_array_equal(first, expected)
        pid = policy.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EpisodeFault, match="was killed by SIGKILL") as lost:
            policy.infer([requests.request(seen, chunk_idx=1, step_idx=8)])
        assert (lost.value.blame, lost.value.retriable, lost.value.counts) == ("policy", True, True)
        with pytest.raises(EpisodeFault) as again:
            policy.infer([requests.request(seen, chunk_idx=1, step_idx=8)])
        assert not again.value.counts, "the loss was told once"
        requests, seen = requests_of(policy, 0)
        assert policy.pid != pid
        np.testing.assert_array_equal(policy.infer([requests.request(seen, chunk_idx=0, step_idx=0)])[0].actions, first)
    finally:
        policy.end()
    assert policy.pid is None
    with pytest.raises(EpisodeFault, match="was ended"):
        requests_of(policy, 0)


def test_many_other_episodes_take_none_away() -> None:
    policy = PolicyProcess(PolicyLaunch.of(evalkit.load_policy(POLICY), max_requests=8))
    try:
        requests, seen = requests_of(policy, 0)
        for _ in range(100):
            requests_of(policy, 1)
        assert policy.infer([requests.request(seen, chunk_idx=0, step_idx=0)])
    finally:
        policy.end()


def test_a_reset_on_a_lost_process_ends_soon(tmp_path: Path) -> None:
    """A lane may have got the process just before another lane lost it; it must not wait for it to come back."""
    policy = PolicyProcess(PolicyLaunch.of(evalkit.load_policy(POLICY)))
    try:
        server = policy._running()
        os.kill(server.pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(EpisodeFault) as lost:
            policy._asked(server, lambda: server.policy.reset("late", fake_spec("Far")), for_actions=True)
        assert lost.value.retriable
        assert time.monotonic() - started < 30
    finally:
        policy.end()


def test_an_end_frees_whoever_waits(tmp_path: Path) -> None:
    policy = PolicyProcess(PolicyLaunch.of(evalkit.load_policy(POLICY, infer_s=60.0)))
    requests, seen = requests_of(policy, 0)
    threading.Timer(0.5, policy.end).start()
    started = time.monotonic()
    with pytest.raises(EpisodeFault):
        policy.infer([requests.request(seen, chunk_idx=0, step_idx=0)])
    assert time.monotonic() - started < 10


def test_a_lease_is_of_the_process_with_the_fewest_episodes() -> None:
    launch = PolicyLaunch.of(evalkit.load_policy(POLICY))
    pool = PolicyPool([launch, launch])
    try:
        one, two = pool.processes
        with pool.lease() as first, pool.lease() as second:
            assert (first, second) == (one, two)
        with pool.lease() as first, pool.lease(), pool.lease() as third:
            assert (first, third) == (one, one)
    finally:
        pool.end()


def test_policies_with_a_device_have_a_process_by_default() -> None:
    network, floor = evalkit.load_policy("xwam"), evalkit.load_policy("hold")
    assert has_own_process(network, RunSettings())
    assert not has_own_process(floor, RunSettings())
    assert has_own_process(floor, RunSettings(servers=2))
    assert not has_own_process(network, RunSettings(policy_process=False))
    with pytest.raises(BadConfig, match=r"run\.policy_process=false cannot be used with run\.servers"):
        RunSettings(policy_process=False, servers=2)
    with pytest.raises(BadConfig, match=r"run\.policy_process must be"):
        RunSettings(policy_process="sometimes")


def test_devices_of_servers_are_checked(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"policy 'fake' has no setting 'device'"):
        run(tmp_path, servers=2, server_devices=("cuda:0", "cuda:1"))
    with pytest.raises(BadConfig, match=r"run\.server_devices=gpu cannot be used"):
        RunSettings(server_devices=("gpu",))
