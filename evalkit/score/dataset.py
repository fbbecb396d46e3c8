"""Open-loop scoring: a policy imagines from recorded frames, and is held against what was recorded next.

In: a run folder with clips, by whatever policy, and a policy. Out: a result file as for a run.
Read next: `chunk.py`, which scores; `evalkit/contracts/policy.py` for what is asked of the policy.

Teacher-forced: every chunk starts from the recorded frame, so errors do not add up. The policy imagines the outcome of
its own actions, the record shows that of the recorded ones: where the two differ, so do the futures. A policy with a
method `round_trip(Prediction) -> Prediction` (its codec, there and back) also gets its ceiling scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.contracts.errors import SpecMismatch
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import EnvSpec, check
from evalkit.contracts.types import Episode, Observation, PolicyRequest, Prediction
from evalkit.score.chunk import Score, ScoreOptions, score_chunk, score_round_trip
from evalkit.score.table import ClipScores, ScoreWriter
from evalkit.store.clips import ClipChunk, ClipReader
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import open_run


def score_dataset(
    run_dir: Path,
    policy: Policy,
    result: Path,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    options: ScoreOptions | None = None,
) -> Path:
    """Score what a policy imagines from the recorded frames of a run and return the path of the result file.

    Args:
        run_dir: A run folder with clips.
        policy: Loaded; asked once a chunk, in order.
        result: Where the Parquet file goes.
        on_progress: Called with (clips done, clips in all).
        options: What is scored beside the metrics that every chunk gets.

    Raises:
        RunFolderError: If a clip cannot be read or the result cannot be written.
        SpecMismatch: If the policy cannot see what was recorded, or its frames are spaced otherwise.
    """
    run = open_run(run_dir)
    records = [record for record in run.records() if record.clip is not None]
    with ScoreWriter(result) as writer:
        for num_done, record in enumerate(records, start=1):
            scores = _score_clip(run.path / str(record.clip), record, policy, options)
            writer.write(ClipScores(task=record.task, index=record.index, outcome=record.outcome, scores=scores))
            if on_progress is not None:
                on_progress(num_done, len(records))
    return result


def _score_clip(path: Path, record: EpisodeRecord, policy: Policy, options: ScoreOptions | None) -> list[Score]:
    scores: list[Score] = []
    with ClipReader(path) as clip:
        episode, env = clip.header.episode, clip.header.env_spec
        check(env, policy.spec)
        policy.reset(episode, env)
        for chunk in clip:
            _check_stride(chunk, env, policy)
            imagined = imagine(policy, episode, chunk, instruction=record.instruction or "")
            scores += score_chunk(replace(chunk, predicted=imagined), env, options)
            round_trip: Any = getattr(policy, "round_trip", None)
            if round_trip is not None and imagined is not None:
                scores += score_round_trip(replace(chunk, predicted=imagined), env, round_trip)
    return scores


def imagine(policy: Policy, episode: Episode, chunk: ClipChunk, *, instruction: str) -> Prediction | None:
    """Return what a policy imagines from a chunk's first frame; None where it imagines nothing."""
    start = chunk.start
    observation = Observation(
        rgb=start.rgb_fvhwc_u8[0],
        depth=start.depth_fvhw_m[0],
        intrinsics=chunk.intrinsics_v33_px,
        T_base_cam=start.T_base_cam_fv44[0],
        proprio=start.proprio_fd[0],
        instruction=instruction,
    )
    request = PolicyRequest(
        episode=episode,
        chunk_idx=chunk.chunk_idx,
        step_idx=chunk.step_idx,
        observation=observation,
        want_prediction=True,
    )
    (reply,) = policy.infer([request])
    return None if reply.prediction is None else reply.prediction()


def _check_stride(chunk: ClipChunk, env: EnvSpec, policy: Policy) -> None:
    if policy.spec.predicts and policy.spec.frame_stride != chunk.frame_stride:
        raise SpecMismatch(
            f"{env.env_id} was recorded with {chunk.frame_stride} steps between frames, policy "
            f"'{policy.spec.policy_id}' imagines one every {policy.spec.frame_stride}: their frames do not meet."
        )
