"""A run on a Ray cluster of three nodes gives what a run on one machine gives, also when a node is lost."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.config import load_config
from evalkit.contracts.errors import BadConfig, EnvRaised, EpisodeFault, EvalkitError, WorkerNotStarted
from evalkit.run.lane import Job
from evalkit.run.runner import missing_episodes, run_session
from evalkit.store.plan import make_plan
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import HeldRun
from tests.doubles.bench import FakeBench
from tests.doubles.policy import FakePolicyPlugin
from tests.doubles.runs import run_fake

ray = pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
from ray.cluster_utils import Cluster  # noqa: E402

from evalkit.run.executors.choice import executing  # noqa: E402
from evalkit.run.executors.ray_policy import Failed, PolicyActor  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield made
    finally:
        if ray.is_initialized():
            ray.shutdown()
        made.shutdown()


def run_on(
    cluster: Cluster, path: Path, *overrides: str, episodes: int = 6, on_record: Any = None
) -> list[EpisodeRecord]:
    """Run what is missing on the cluster and return what was recorded by this call."""
    address = f"run.ray_address={cluster.address}"
    config = load_config(FakeBench(), FakePolicyPlugin(), [address, "run.workers=3", *overrides])
    plan = make_plan(config.bench, config.policy, tasks=(), num_episodes=episodes)
    recorded: list[EpisodeRecord] = []

    def note(record: EpisodeRecord) -> None:
        recorded.append(record)
        if on_record is not None:
            on_record(record)

    with HeldRun(path, plan) as folder, executing("ray", config.policy, folder, config.run) as execution:
        job = Job(folder=folder, bench=config.bench, policy=execution.policy, settings=config.run)
        run_session(job, note, execution.make_executor, **execution.facts)
        assert missing_episodes(folder) == []
    return recorded


@pytest.mark.parametrize(
    "fault",
    [
        EpisodeFault("policy", "It hangs.", retriable=True, counts=False),
        EnvRaised("fake/Near", kind="MissingAssets", text="textures/7.png is missing."),
        WorkerNotStarted("It ended.", advice="Run the doctor."),
    ],
)
def test_a_fault_is_the_same_in_another_process(fault: EpisodeFault) -> None:
    copied = pickle.loads(pickle.dumps(fault))
    assert (type(copied), str(copied), vars(copied)) == (type(fault), str(fault), vars(fault))


def test_an_actor_that_began_again_costs_no_attempt() -> None:
    config = load_config(FakeBench(), FakePolicyPlugin(), [])
    failed = PolicyActor(config.policy, config.bench.name, 4).infer("an earlier life", [])
    assert isinstance(failed, Failed)
    with pytest.raises(EpisodeFault, match="started again") as fault:
        pickle.loads(pickle.dumps(failed)).raise_again()
    assert (fault.value.retriable, fault.value.counts) == (True, False)


def essence(records: list[EpisodeRecord]) -> dict[str, tuple[Any, ...]]:
    """Return what must not depend on where an episode ran."""
    return {
        record.key: (
            record.outcome,
            record.steps,
            record.actions_sha256,
            record.first_state_sha256,
            record.clip,
            record.video,
            record.instruction,
        )
        for record in records
    }


def test_three_nodes_give_the_records_and_clips_of_one_machine(cluster: Cluster, tmp_path: Path) -> None:
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    here = run_fake(tmp_path / "local", "run.video=false", episodes=6)
    there = run_on(cluster, tmp_path / "ray", "run.video=false", "run.servers=2")
    assert essence(there) == essence(here)
    clips = sorted(path.relative_to(tmp_path / "local") for path in (tmp_path / "local" / "clips").rglob("*.h5"))
    assert clips
    for clip in clips:
        assert (tmp_path / "ray" / clip).read_bytes() == (tmp_path / "local" / clip).read_bytes()


def test_an_episode_of_a_lost_node_runs_on_another(cluster: Cluster, tmp_path: Path) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    here = run_fake(tmp_path / "local", "run.clips=false", "run.video=false", episodes=6)
    lost = threading.Event()

    def lose_a_node(_: EpisodeRecord) -> None:
        if not lost.is_set():
            lost.set()
            cluster.remove_node(nodes[0], allow_graceful=False)

    slow = ("run.clips=false", "run.video=false", "bench.fake.step_s=0.05")
    there = run_on(cluster, tmp_path / "ray", *slow, on_record=lose_a_node)
    assert lost.is_set()
    assert len(there) == len({record.key for record in there})
    assert essence(there) == essence(here)


def test_an_env_that_dies_on_a_node_costs_an_attempt(cluster: Cluster, tmp_path: Path) -> None:
    there = run_on(cluster, tmp_path / "ray", "run.workers=1", "bench.fake.fault=die", "run.max_attempts=2", episodes=2)
    outcomes = {record.key.partition("/")[2]: (record.outcome, record.blame, record.attempts) for record in there}
    assert outcomes["0001"] == ("error", "env", 2)
    assert outcomes["0000"][0] != "error"


def test_a_policy_that_cannot_be_loaded_ends_the_run(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(EvalkitError, match="size mismatch for blocks"):
        run_on(cluster, tmp_path / "ray", "policy.fake.fault=make")


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = load_config(FakeBench(), FakePolicyPlugin(), ["run.ray_address=127.0.0.1:1"])
    plan = make_plan(config.bench, config.policy, tasks=(), num_episodes=1)
    started = time.monotonic()
    with (
        HeldRun(tmp_path / "run", plan) as folder,
        pytest.raises(BadConfig, match="No Ray cluster at"),
        executing("ray", config.policy, folder, config.run),
    ):
        pass
    assert time.monotonic() - started < 120


def test_a_policy_that_hangs_costs_its_episode_alone(cluster: Cluster, tmp_path: Path) -> None:
    hang = ("policy.fake.fault=hang", "run.policy_timeout_s=3", "run.workers=1", "run.max_attempts=2")
    there = run_on(cluster, tmp_path / "ray", "run.clips=false", "run.video=false", *hang, episodes=2)
    faulty = {record.seed: (record.blame, record.attempts) for record in there if record.outcome == "error"}
    assert faulty == {1: ("policy", 2)}
    assert len(there) > 1
