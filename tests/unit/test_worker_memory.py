"""Memory of env processes: a process that grows is replaced, which changes no result, and the growth is shown."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import evalkit
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.worker.memory import GIB, MIB, MemoryWatch, growth_mib, machine_bytes, resident_bytes
from evalkit.run.settings import RunSettings
from evalkit.store.run_folder import RunFolder, open_run
from tests.doubles.bench import LEAK_BYTES

BENCH, POLICY = "tests.doubles.bench:FakeBench", "tests.doubles.policy:FakePolicyPlugin"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the size of a process is read from /proc")


def run(path: Path, *, fault: str, limit_gib: float | None) -> RunFolder:
    bench, policy = evalkit.load_bench(BENCH, fault=fault, fault_seed=-1), evalkit.load_policy(POLICY)
    plan = evalkit.make_plan(bench, policy, tasks=["Near"], num_episodes=8)
    evalkit.run_plan(plan, bench, policy, path, worker_memory_gib=limit_gib, clips=False, video=False)
    return open_run(path)


def test_a_process_that_grows_is_replaced(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", fault="leak", limit_gib=None)
    (session,) = plain.read_about()["sessions"]
    memory = session["worker_memory"]
    assert memory["replaced"] == 0
    assert memory["growth_mib_per_episode"] == pytest.approx(LEAK_BYTES / MIB, abs=3)
    base_gib = memory["peak_gib"] - 8 * LEAK_BYTES / GIB
    limited = run(tmp_path / "limited", fault="leak", limit_gib=base_gib + 2.5 * LEAK_BYTES / GIB)
    (session,) = limited.read_about()["sessions"]
    assert session["worker_memory"]["replaced"] == 2
    assert [r.actions_sha256 for r in limited.records()] == [r.actions_sha256 for r in plain.records()]
    assert {r.attempts for r in limited.records()} == {1}


def test_children_count_with_their_process() -> None:
    hold = f"import subprocess, sys; kept = b'x' * {LEAK_BYTES}; print('ready', flush=True); "
    child = hold + "sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    size = resident_bytes(process.pid)
    alone = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert size is not None
    assert size > alone + LEAK_BYTES
    process.stdin.close()
    process.wait(30)
    deadline = time.monotonic() + 10
    while resident_bytes(process.pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([100, 300, 310, 320, 330, 340], 10.0),  # what the first episode loads is not growth
        ([100, 300, 310, 320, 330], None),
        ([100, 300, 310, 300, 310, 300], None),
        ([100, 300, 290, 310, 320, 330, 340], 10.0),
        ([300] * 9, None),
    ],
)
def test_only_steady_growth_counts(sizes: Sequence[int], expected: float | None) -> None:
    assert growth_mib([size * MIB for size in sizes]) == expected


def test_a_process_that_needs_more_than_the_limit_is_kept() -> None:
    watch = MemoryWatch()
    assert [watch.note([3 * GIB, 4 * GIB][: number + 1], 2 * GIB) for number in range(2)] == [False, False]
    assert watch.describe(2 * GIB) == [
        "Env processes need up to 4.0 GiB, above 2.0 GiB (run.worker_memory_gib) after their first episode: they were "
        "kept. Use fewer workers, or raise the limit."
    ]


def test_users_are_warned_of_large_growth_alone() -> None:
    sentence = "Env processes grow by 17 MiB per episode; run.episodes_per_worker limits this too."
    for step_mib, warnings in ((17, [sentence]), (2, [])):
        watch = MemoryWatch()
        watch.end([GIB + step_mib * MIB * episode for episode in range(12)])
        assert watch.describe(4 * GIB) == warnings
        assert watch.to_json(4 * GIB)["growth_mib_per_episode"] == step_mib


def test_the_limit_is_a_share_of_the_machine() -> None:
    assert RunSettings(workers=4).worker_memory_bytes == pytest.approx(0.2 * machine_bytes(), abs=1)
    assert RunSettings(workers=4, worker_memory_gib=1.5).worker_memory_bytes == 1.5 * GIB
    with pytest.raises(BadConfig, match=r"run\.worker_memory_gib must be from 0\.01"):
        RunSettings(worker_memory_gib=0)
