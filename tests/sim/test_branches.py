"""Branches and replays in robosuite: both lead back to the recorded frames, to the bit.

In: short recordings of random actions, rendered small. Out: a verdict.
Read next: `evalkit/score/controls/branches.py`, `baselines/replay.py`.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evalkit.contracts.spec import OSC_DELTA_BASE, PolicySpec
from evalkit.dataset.layout import read_metadata, read_track
from evalkit.score.controls.branches import COMPLETE, BranchFolder, execute_missing
from evalkit.score.results.names import BRANCHES
from evalkit.score.sources.recorded import open_source
from evalkit.store.clips import ClipReader
from tests.doubles.known import known
from tests.doubles.simulators import needs_robosuite

pytestmark = needs_robosuite()

SPEC = PolicySpec(
    policy_id="any",
    action_layouts=(OSC_DELTA_BASE,),
    chunk_len=8,
    execute_steps=8,
    predicts=("rgb",),
    num_future_frames=2,
    frame_stride=4,
    takes_actions=True,
)


def record(folder: Path, *more: str) -> Path:
    command = [sys.executable, "-m", "evalkit.cli", "record", str(folder), "Lift=2", "--max-steps", "18", *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("random") / "data", "--policy", "random")


def test_branches_start_from_the_recorded_frames(data: Path, tmp_path: Path) -> None:
    source, folder = open_source(data), BranchFolder(root=tmp_path, policy=SPEC)
    execute_missing(source, SPEC, BRANCHES, tmp_path)
    for entry in source.episodes:
        for control in BRANCHES:
            with source.open(entry, SPEC) as recorded, ClipReader(folder.path(control, recorded)) as clip:
                assert clip.header.outcome == COMPLETE
                for (chunk, _, _), branch in zip(recorded.chunks, clip, strict=True):
                    np.testing.assert_array_equal(branch.start.rgb_fvhwc_u8, chunk.start.rgb_fvhwc_u8)
                    assert len(branch.true.rgb_fvhwc_u8) == SPEC.num_future_frames
                    if len(chunk.true.rgb_fvhwc_u8):
                        moved_m = np.abs(branch.true.proprio_fd[-1, :3] - chunk.start.proprio_fd[0, :3]).max()
                        assert moved_m > 0.005
                        assert (branch.true.rgb_fvhwc_u8[0] != chunk.true.rgb_fvhwc_u8[0]).any()


def test_a_replay_executes_the_recorded_actions(data: Path, tmp_path: Path) -> None:
    again = record(tmp_path / "again", "--policy", "replay", f"policy.replay.data={data}")
    keys = list(read_metadata(data))
    assert keys == list(read_metadata(again))
    for key in keys:
        first, second = (read_track(folder, key) for folder in (data, again))
        np.testing.assert_array_equal(known(first.executed), known(second.executed))
        np.testing.assert_array_equal(first.proprio, second.proprio)
