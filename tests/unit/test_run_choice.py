"""Shards, the order of episodes, the share of clips: rules over planned episodes, without a simulator."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.types import Episode
from evalkit.run.choice import WHOLE, Shard, kept_clips, longest_first
from evalkit.store.records import EpisodeRecord


def episodes(num_tasks: int, per_task: int, max_steps: int = 100) -> list[Episode]:
    one = Episode(bench="b", setting="s", protocol="p", task="", index=0, seed=0, instruction=None, max_steps=max_steps)
    return [
        replace(one, task=f"T{task}", index=index, seed=1000 * task + index)
        for task in range(num_tasks)
        for index in range(per_task)
    ]


@pytest.mark.parametrize(("num_tasks", "per_task", "count"), [(24, 5, 7), (1, 10, 3), (3, 1, 4), (50, 2, 8)])
def test_shards_split_a_plan_and_each_task_evenly(num_tasks: int, per_task: int, count: int) -> None:
    plan = episodes(num_tasks, per_task)
    shards = [Shard(number=number, count=count).of(plan) for number in range(1, count + 1)]
    assert sorted(episode.key for shard in shards for episode in shard) == sorted(episode.key for episode in plan)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    for task in range(num_tasks):
        counts = [Counter(episode.task for episode in shard)[f"T{task}"] for shard in shards]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/", "a/b", "-1/2", "1/0", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadConfig, match="--shard takes i/n"):
        Shard.parse(text)
    assert Shard.parse("1/1") == WHOLE


def record(task: str, seconds: float, steps: int, outcome: str = "success") -> EpisodeRecord:
    return EpisodeRecord(
        outcome=outcome,  # type: ignore[arg-type]
        task=task,
        index=0,
        seed=0,
        instruction=None,
        steps=steps,
        timings_s={"wall": seconds},
    )


def test_the_longest_expected_episode_begins_first() -> None:
    plan = [*episodes(1, 2, max_steps=100), *(replace(e, task="Long") for e in episodes(1, 2, max_steps=300))]
    assert [e.task for e in longest_first(plan, [])] == ["Long", "Long", "T0", "T0"]
    assert longest_first(plan[:2], []) == plan[:2], "equal ones keep their order"
    slow = [record("T0", 90.0, 10), record("T0", 110.0, 10), record("Other", 1.0, 1000)]
    ranked = longest_first(plan, slow)  # 100 s are measured for T0; 300 steps at 201 s / 1020 steps are 59 s
    assert [e.task for e in ranked] == ["T0", "T0", "Long", "Long"]
    assert longest_first(plan, [record("T0", 900.0, 1, "error")])[0].task == "Long"


@pytest.mark.parametrize(
    ("num_tasks", "per_task", "share", "expected"),
    [(24, 5, 0.1, 12), (24, 5, 0.5, 60), (2, 100, 0.1, 20), (3, 1, 0.01, 1)],
)
def test_kept_clips_are_a_share_spread_over_tasks(num_tasks: int, per_task: int, share: float, expected: int) -> None:
    plan = episodes(num_tasks, per_task)
    kept = kept_clips(plan, share)
    assert len(kept) == expected
    counts = Counter(key.partition("/")[0] for key in kept)
    assert max(counts.values()) - min(counts[f"T{task}"] for task in range(num_tasks)) <= 1
    assert kept == kept_clips(plan[::-1], share), "the order changes nothing"
    assert kept <= kept_clips(plan, min(1.0, 2 * share)), "a larger share keeps the same clips and more"


def test_all_clips_or_none() -> None:
    plan = episodes(3, 4)
    assert kept_clips(plan, 1.0) == {episode.key for episode in plan}
    assert kept_clips(plan, 0.0) == frozenset()
    assert len(kept_clips(plan, 1e-8)) == 1
    assert len(kept_clips(episodes(10, 10), 0.07)) == 7, "0.07 * 100 is above 7 in floating point"
