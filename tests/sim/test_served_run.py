"""A run through a policy server is the run in process: actions, predictions, and nothing else crosses the wire.

In: robosuite and a renderer. Out: nothing; skips with a reason where either is missing.
Read next: `tests/unit/test_serve_client.py`, single requests.
"""

from pathlib import Path

import numpy as np

from evalkit import load_bench, load_policy, make_plan, run_plan
from evalkit.contracts.msgpack_arrays import pack
from evalkit.contracts.types import Episode
from evalkit.store.clips import ClipReader
from evalkit.store.run_folder import open_run
from tests.doubles.served import served, tapped
from tests.doubles.simulators import needs_robosuite

pytestmark = needs_robosuite()

TASK = "NutAssemblySquare"


def run(folder: Path, policy_name: str, **settings: str) -> list[Episode]:
    bench, policy = load_bench("robosuite"), load_policy(policy_name, **settings)
    plan = make_plan(bench, policy, tasks=[TASK], num_episodes=2, seed=7, max_steps=16)
    run_plan(plan, bench, policy, folder, workers=2, video=False)
    return list(plan.episodes)


def test_a_served_run_equals_the_run_in_process(tmp_path: Path) -> None:
    run(tmp_path / "here", "xwam")
    with served(load_policy("xwam").load()) as server, tapped(server.url) as tap:
        episodes = run(tmp_path / "there", "remote", url=tap.url)
    here, there = (open_run(tmp_path / name).records() for name in ("here", "there"))
    hashes = [{record.key: record.actions_sha256 for record in records} for records in (here, there)]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 2
    for mine, theirs in zip(sorted(here, key=lambda r: r.key), sorted(there, key=lambda r: r.key), strict=True):
        _assert_equal_clips(tmp_path / "here" / str(mine.clip), tmp_path / "there" / str(theirs.clip))
    assert len(tap.to_server) >= 10  # 2 resets, 4 requests, 4 predictions
    for episode in episodes:
        for secret in _secrets(episode):
            for frame in (*tap.to_server, *tap.to_client):
                assert secret not in frame


def _secrets(episode: Episode) -> list[bytes]:
    """Return the task's name, and the seed as text, as msgpack and as 64 bits."""
    seed = episode.seed
    return [TASK.encode(), TASK.lower().encode(), str(seed).encode(), pack(seed), *_words(seed)]


def _words(seed: int) -> list[bytes]:
    return [np.array(seed, dtype).tobytes() for dtype in ("<i8", ">i8")]


def _assert_equal_clips(one: Path, other: Path) -> None:
    with ClipReader(one) as mine, ClipReader(other) as theirs:
        pairs = list(zip(mine, theirs, strict=True))
    assert pairs
    for a, b in pairs:
        assert a.predicted is not None
        assert b.predicted is not None
        for name in ("rgb", "depth", "proprio"):
            np.testing.assert_array_equal(getattr(a.predicted, name), getattr(b.predicted, name))
