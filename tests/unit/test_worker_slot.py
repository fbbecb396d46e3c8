"""The env process of a thread: when it is kept, and when it is replaced."""

from __future__ import annotations

from typing import Any

import evalkit
from evalkit.contracts.worker.client import EnvWorker
from evalkit.contracts.worker.memory import GIB, MemoryWatch, ProcessMemory
from evalkit.contracts.worker.slot import WorkerSlot

BENCH = evalkit.load_bench("tests.doubles.bench:FakeBench")


def launch() -> EnvWorker:
    """Return an env process that is not built."""
    return EnvWorker(BENCH.launch(task="Near", setting="default"), BENCH.env_spec(task="Near", setting="default"))


def slot_of(limit_bytes: int = 64 * GIB, max_uses: int = 2) -> WorkerSlot[str]:
    return WorkerSlot(ProcessMemory(MemoryWatch(), limit_bytes), max_uses=max_uses)


def test_a_process_serves_its_task_for_a_number_of_uses() -> None:
    slot, made = slot_of(), list[Any]()
    try:
        for task in ("a", "a", "a", "b"):
            worker, is_new = slot.take(task, launch)
            made.append((worker, is_new, slot.task))
            slot.used()
        assert [is_new for _, is_new, _ in made] == [True, False, True, True]
        assert [task for *_, task in made] == ["a", "a", "a", "b"]
        assert len({id(worker) for worker, *_ in made}) == 3
    finally:
        slot.drop()
    assert slot.task is None
    slot.drop()
    slot.kill()


def test_a_process_that_has_grown_is_ended(monkeypatch: Any) -> None:
    sizes = iter([1 * GIB, 3 * GIB])
    monkeypatch.setattr("evalkit.contracts.worker.memory.resident_bytes", lambda pid: next(sizes))
    slot = slot_of(limit_bytes=2 * GIB, max_uses=9)
    try:
        slot.take("a", launch)
        slot.used()
        assert slot.task == "a"
        slot.used()
        assert slot.task is None
        assert slot.take("a", launch)[1]
    finally:
        slot.drop()
