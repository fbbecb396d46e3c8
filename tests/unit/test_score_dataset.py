"""Open-loop scoring of a policy on recorded frames.

In: a recorded run and policies whose predictions are known. Out: a verdict.
Read next: `evalkit/score/dataset.py`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from evalkit.cli.main import app
from evalkit.contracts.errors import BadConfig, EvalkitError, SpecMismatch
from evalkit.contracts.spec import OSC_DELTA_BASE, PolicySpec
from evalkit.contracts.types import PolicyReply, Prediction
from evalkit.score import dataset
from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.score.dataset import score_dataset
from evalkit.score.results.table import read_scores
from evalkit.store.clips import ClipReader
from tests.doubles.known import known
from tests.doubles.scene import write_scene_run

SIZE = (24, 32)
NO_LPIPS = ScoreOptions(lpips_nets=())


class StillPolicy:
    """Predicts that nothing moves."""

    spec = PolicySpec(
        policy_id="still",
        action_layouts=(OSC_DELTA_BASE,),
        chunk_len=8,
        execute_steps=8,
        predicts=("rgb", "depth", "proprio"),
        num_future_frames=2,
    )

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def reset(self, episode_id: str, env: Any) -> None:
        self.asked.append(("reset", env.env_id))

    def infer(self, requests: Any) -> Any:
        (request,) = requests
        self.asked.append((request.chunk_idx, request.observation.instruction))
        seen = request.observation
        still = Prediction(
            rgb=np.stack([seen.rgb] * 2), depth=np.stack([seen.depth] * 2), proprio=np.stack([seen.proprio] * 2)
        )
        return [PolicyReply(actions=np.zeros((8, 14), np.float32), prediction=lambda: still)]


class CodecPolicy(StillPolicy):
    def round_trip(self, prediction: Any) -> Any:
        return replace(prediction, rgb=prediction.rgb // 16 * 16)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_scene_run(tmp_path / "run", outcomes=["success", "error", "failure"], image_hw_px=SIZE, num_chunks=2)
    return tmp_path / "run"


def test_every_recorded_chunk_is_predicted_again(run: Path, tmp_path: Path) -> None:
    policy = StillPolicy()
    scores = read_scores(score_dataset(run, policy, tmp_path / "open.parquet", options=NO_LPIPS))
    said = "watch the ball"
    assert policy.asked == [("reset", "scene"), (0, said), (1, said)] * 2
    still, floor = (scores[scores["subject"] == name].reset_index() for name in ("policy", "repeat_last_frame"))
    assert len(still) > 0
    np.testing.assert_array_equal(still["value"].to_numpy(), floor["value"].to_numpy())


def test_a_policys_codec_gives_its_ceiling(run: Path, tmp_path: Path) -> None:
    scores = read_scores(score_dataset(run, CodecPolicy(), tmp_path / "open.parquet", options=NO_LPIPS))
    ceiling = scores[scores["subject"] == "codec_round_trip"]
    assert ceiling[ceiling["metric"] == "absrel/gt_mask_10m"]["value"].max() == 0.0
    assert ceiling[ceiling["metric"] == "psnr_db/frame_mean"]["value"].between(20, 40).all()


class GivenPolicy(StillPolicy):
    spec = replace(StillPolicy.spec, takes_actions=True)

    def __init__(self, answers: Any = True) -> None:
        super().__init__()
        self.given: list[Any] = []
        self.answers = answers

    def infer(self, requests: Any) -> Any:
        (reply,) = super().infer(requests)
        self.given.append(requests[0].given_actions)
        return [replace(reply, actions=self.given[-1]) if self.answers and self.given[-1] is not None else reply]


def test_recorded_actions_are_given_chunk_by_chunk(run: Path, tmp_path: Path) -> None:
    policy = GivenPolicy()
    scores = read_scores(
        score_dataset(run, policy, tmp_path / "o.parquet", modes=("own", "recorded"), options=NO_LPIPS)
    )
    assert [given is None for given in policy.given] == [True, False] * 4
    with ClipReader(run / "clips/ball/0000.h5") as clip:
        recorded = clip.read_actions()
    np.testing.assert_array_equal(known(policy.given[1]), known(recorded)[:8])
    own, given = (scores[scores["subject"] == name] for name in ("policy", "policy_given_actions"))
    np.testing.assert_array_equal(own["value"].to_numpy(), given["value"].to_numpy())
    assert (scores["subject"] == "repeat_last_frame").sum() == len(own)


def test_a_policy_that_takes_no_actions_is_refused_by_name(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecMismatch, match="Policy 'still' cannot be given the recorded actions"):
        score_dataset(run, StillPolicy(), tmp_path / "open.parquet", modes=("recorded",))


def test_a_policy_that_answers_otherwise_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecMismatch, match="declares takes_actions, but returned other actions for ball/0000"):
        score_dataset(run, GivenPolicy(answers=False), tmp_path / "open.parquet", modes=("recorded",))


def test_a_policy_without_predictions_is_refused(run: Path, tmp_path: Path) -> None:
    policy = StillPolicy()
    policy.spec = replace(policy.spec, predicts=())
    with pytest.raises(BadConfig, match="policy 'still' predicts no frames"):
        score_dataset(run, policy, tmp_path / "open.parquet")


def test_a_policy_that_fails_is_said_to(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = StillPolicy()
    monkeypatch.setattr(policy, "infer", lambda requests: 1 / 0)
    with pytest.raises(EvalkitError, match="Policy 'still' failed on ball/0000, chunk 0: ZeroDivisionError"):
        score_dataset(run, policy, tmp_path / "open.parquet")


def test_a_missing_clip_is_a_row(run: Path, tmp_path: Path) -> None:
    (run / "clips/ball/0000.h5").unlink()
    scores = read_scores(score_dataset(run, StillPolicy(), tmp_path / "open.parquet", options=NO_LPIPS))
    lost = scores[scores["metric"] == "clip"]
    assert list(zip(lost["index"], lost["status"], strict=True)) == [(0, "missing_clip")]
    assert set(scores["index"]) == {0, 2}


def test_a_failed_chunk_is_a_row_and_others_are_scored(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(chunk: Any, *args: Any, **kwargs: Any) -> Any:
        return 1 / 0 if chunk.chunk_idx == 1 else score_chunk(chunk, *args, **kwargs)

    monkeypatch.setattr(dataset, "score_chunk", fails)
    scores = read_scores(score_dataset(run, StillPolicy(), tmp_path / "open.parquet", options=NO_LPIPS))
    rows = scores[scores["metric"] == "clip"]
    assert list(zip(rows["index"], rows["chunk_idx"], rows["status"], strict=True)) == [
        (0, 1, "scoring_failed"),
        (2, 1, "scoring_failed"),
    ]
    assert set(scores[scores["value"].notna()]["index"]) == {0, 2}


def test_an_unreadable_episode_is_a_row(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClipReader, "read_actions", lambda self: 1 / 0)
    scores = read_scores(score_dataset(run, StillPolicy(), tmp_path / "open.parquet", options=NO_LPIPS))
    assert list(zip(scores["index"], scores["status"], strict=True)) == [(0, "scoring_failed"), (2, "scoring_failed")]


def test_frames_that_do_not_meet_are_refused(run: Path, tmp_path: Path) -> None:
    policy = StillPolicy()
    policy.spec = replace(policy.spec, frame_stride=2)
    with pytest.raises(SpecMismatch, match="the frames do not match"):
        score_dataset(run, policy, tmp_path / "open.parquet")
    assert not (tmp_path / "open.parquet").exists()


def test_a_dry_run_without_predictions_says_so(run: Path) -> None:
    done = CliRunner().invoke(app, ["score", "dataset", str(run), "--policy", "hold", "--dry-run"])
    assert done.exit_code == 0
    assert "There is nothing to score: policy 'hold' predicts no frames." in " ".join(done.output.split())
