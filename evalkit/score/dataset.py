"""Open-loop scoring: a policy predicts from recorded frames, and the recording is the ground truth.

In: recorded episodes of any policy, and the policy to evaluate. Out: a result file as for a run.
Read next: `sources/recorded.py`, what is read; `chunk.py`, which scores; `evalkit/contracts/policy.py`, the policy.

Scoring is teacher-forced: every chunk starts from a recorded frame, so errors do not accumulate. There are two modes,
which are separate subjects in the result file. In mode `own` the policy predicts the outcome of its own actions; the
recording shows the outcome of the recorded actions, so a difference of the actions counts as an error of the
prediction. In mode `recorded` the policy is given the recorded actions and predicts their outcome, as a world
simulator. If the policy has a method `round_trip(Prediction) -> Prediction` (its codec encodes, then decodes), the
ceiling is scored too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from evalkit.contracts.errors import BadConfig, EvalkitError, RunFolderError, SpecMismatch
from evalkit.contracts.memory import keep_freed_memory
from evalkit.contracts.policy import Policy
from evalkit.contracts.requests import EpisodeRequests
from evalkit.contracts.spec import EnvSpec, check, check_takes_actions
from evalkit.contracts.types import Observation, OnProgress, Prediction
from evalkit.dataset.layout import BrokenEpisode
from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.score.distribution import ClipSets
from evalkit.score.metrics.device import describe
from evalkit.score.results.coverage import clip_row, failure_row
from evalkit.score.results.outcome import WHOLE_CHUNK, Score
from evalkit.score.results.table import ClipScores, ScoreWriter
from evalkit.score.results.totals import Totals
from evalkit.score.results.truth import OnChunk, ScoredChunk, TruthHashes, seen_by
from evalkit.score.sources.recorded import Entry, Recorded, Source, actions_from, open_source
from evalkit.store.clips import ClipChunk

Mode = Literal["own", "recorded"]
SUBJECTS: dict[Mode, str] = {"own": "policy", "recorded": "policy_given_actions"}
NO_ACTIONS = "the recording of this episode holds no executed actions"


def score_dataset(
    folder: Path,
    policy: Policy,
    result: Path,
    *,
    modes: Sequence[Mode] = ("own",),
    on_progress: OnProgress | None = None,
    options: ScoreOptions | None = None,
    on_chunk: OnChunk | None = None,
) -> Path:
    """Score a policy's predictions from recorded frames and return the path of the result file.

    An episode that is missing or broken gives one row with that status.

    Args:
        folder: A run folder with clips, or a data set in the layout of X-WAM.
        policy: A loaded policy; called once for each chunk and mode, in order.
        result: Where the Parquet file goes.
        modes: Which actions the policy predicts the outcome of: its own, the recorded ones, or both.
        on_progress: Called with (episodes done, episodes in all).
        options: What is scored in addition to the metrics that every chunk gets.
        on_chunk: Called with each chunk of the first mode.

    Raises:
        BadConfig: If the folder holds no recorded episodes, the policy predicts nothing, or the device does not exist.
        RunFolderError: If the run cannot be read or the result cannot be written.
        SpecMismatch: If the policy needs other observations than the recorded ones, if its frames have another
            spacing, or if mode `recorded` is asked for and it takes no actions.
    """
    options = options or ScoreOptions()
    scored_on = describe(options.device)
    keep_freed_memory()
    if not policy.spec.predicts:
        raise BadConfig(f"There is nothing to score: policy '{policy.spec.policy_id}' predicts no frames.")
    source = open_source(folder)
    entries = source.episodes
    if not entries:
        raise BadConfig(f"{folder} holds no recorded episode: no record names a clip.")
    truth, sets = TruthHashes(), ClipSets()
    both = seen_by(truth.add, on_chunk)
    with ScoreWriter(result, scored_on=scored_on) as writer:
        for num_done, entry in enumerate(entries, start=1):
            for scored in _episode(source, entry, policy, modes, options, both):
                writer.write(scored)
                sets.add(scored)
            if on_progress is not None:
                on_progress(num_done, len(entries))
        for scored in sets.scored():
            writer.write(scored)
        writer.add_truth(truth)
    return result


def _episode(
    source: Source,
    entry: Entry,
    policy: Policy,
    modes: Sequence[Mode],
    options: ScoreOptions | None,
    on_chunk: OnChunk,
) -> Iterator[ClipScores]:
    """Yield the scores of one episode, one chunk at a time; references are scored with the first mode only.

    Each mode goes through the whole episode, because a policy may have a memory.
    """
    task, index = entry.task, entry.index
    try:
        for mode in modes:
            with source.open(entry, policy.spec) as recorded:
                task, index = recorded.episode.task, recorded.episode.index
                first = on_chunk if mode == modes[0] else None
                for scores, totals in _chunks(recorded, policy, mode, options, first):
                    yield ClipScores(task=task, index=index, outcome=entry.outcome, scores=scores, totals=totals)
    except (RunFolderError, BrokenEpisode) as error:
        row = clip_row("broken_clip" if entry.path.exists() else "missing_clip", str(error))
        yield ClipScores(task=task, index=index, outcome=entry.outcome, scores=[row])
    except EvalkitError:  # of the policy: without it there is nothing to score
        raise
    except Exception as error:
        yield ClipScores(task=task, index=index, outcome=entry.outcome, scores=[failure_row(error)])


def _chunks(
    recorded: Recorded, policy: Policy, mode: Mode, options: ScoreOptions | None, on_chunk: OnChunk | None
) -> Iterator[tuple[list[Score], Totals]]:
    """Yield the scores and sums of each chunk; with references where `on_chunk` is given, which is called with each."""
    env, spec, actions_nd = recorded.env, policy.spec, recorded.actions_nd
    options = options or ScoreOptions()
    check(env, spec)
    if mode == "recorded":
        check_takes_actions(env, spec)
        if actions_nd is None:
            yield [_without_actions()], {}
            return
    codec = getattr(policy, "round_trip", None)
    requests = EpisodeRequests(recorded.episode, spec)
    requests.reset(policy, env)
    for chunk, problems, between in recorded.chunks:
        _check_stride(chunk, env, policy)
        given = None
        if mode == "recorded" and actions_nd is not None:
            given = actions_from(actions_nd, chunk.step_idx, spec.chunk_len, env.action_layout)
        prediction = _predicted(policy, recorded, requests, chunk, given, between)
        if on_chunk is not None:
            episode, seen = recorded.episode, replace(chunk, predicted=prediction)
            on_chunk(ScoredChunk(task=episode.task, index=episode.index, env=env, chunk=seen))
        totals: Totals = {}
        try:
            scores = score_chunk(
                chunk,
                env,
                options if on_chunk is not None else replace(options, references=False),
                predictions={} if prediction is None else {SUBJECTS[mode]: prediction},
                codec=codec,
                problems=problems,
                totals=totals,
            )
        except Exception as error:
            scores = [failure_row(error, chunk_idx=chunk.chunk_idx)]
        yield scores, totals


def _predicted(
    policy: Policy,
    recorded: Recorded,
    requests: EpisodeRequests,
    chunk: ClipChunk,
    given_actions: np.ndarray | None,
    between: Sequence[np.ndarray],
) -> Prediction | None:
    """Return a policy's prediction of the frames that have a ground truth, from a chunk's first frame; None without."""
    start = chunk.start
    observation = Observation(
        rgb=start.rgb_fvhwc_u8[0],
        depth=start.depth_fvhw_m[0],
        intrinsics=chunk.intrinsics_v33_px,
        T_base_cam=start.T_base_cam_fv44[0],
        proprio=start.proprio_fd[0],
        instruction=recorded.instruction,
    )
    request = requests.request(
        observation,
        chunk_idx=chunk.chunk_idx,
        step_idx=chunk.step_idx,
        num_predicted_frames=min(policy.spec.num_future_frames, len(chunk.true.rgb_fvhwc_u8)),
        given_actions=given_actions,
        between=between,
    )
    try:
        (reply,) = policy.infer([request])
        prediction = None if reply.prediction is None else reply.prediction()
    except EvalkitError:
        raise
    except Exception as error:  # a policy is anyone's code
        raise EvalkitError(
            f"Policy '{policy.spec.policy_id}' failed on {recorded.episode.key}, chunk {chunk.chunk_idx}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if given_actions is not None and not np.array_equal(reply.actions, given_actions):
        raise SpecMismatch(
            f"Policy '{policy.spec.policy_id}' declares takes_actions, but returned other actions for "
            f"{recorded.episode.key} than those that it was given."
        )
    return prediction


def _without_actions() -> Score:
    return Score(
        subject=SUBJECTS["recorded"],
        chunk_idx=-1,
        frame_idx=WHOLE_CHUNK,
        view="static",
        metric="psnr_db/frame_mean",
        value=None,
        status="unavailable",
        reason=NO_ACTIONS,
    )


def _check_stride(chunk: ClipChunk, env: EnvSpec, policy: Policy) -> None:
    if policy.spec.predicts and policy.spec.frame_stride != chunk.frame_stride:
        raise SpecMismatch(
            f"{env.env_id} was recorded with one frame every {chunk.frame_stride} steps, policy "
            f"'{policy.spec.policy_id}' predicts one every {policy.spec.frame_stride}: the frames do not match."
        )
