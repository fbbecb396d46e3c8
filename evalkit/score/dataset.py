"""Open-loop scoring: a policy predicts from recorded frames, and the recording is the ground truth.

In: recorded episodes of any policy, and the policy to evaluate. Out: a result file as for a run.
Read next: `sources/recorded.py`, what is read; `chunk.py`, which scores; `evalkit/contracts/policy.py`, the policy.

Scoring is teacher-forced: every chunk starts from a recorded frame, so errors do not accumulate. Each mode is a subject
of the result file. In mode `own` the policy predicts the outcome of its own actions; the recording shows the outcome of
the recorded actions, so a difference of the actions counts as an error of the prediction. In mode `recorded` the policy
is given the recorded actions and predicts their outcome, as a world simulator. Controls (`controls/choice.py`) give it
other actions or another instruction. If the policy has a method `round_trip(Prediction) -> Prediction` (its codec
encodes, then decodes), the ceiling is scored too.

All modes go through an episode together, chunk by chunk, each with a memory of its own in the policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from evalkit.contracts.errors import BadConfig, EvalkitError, RunFolderError, SpecMismatch
from evalkit.contracts.memory import keep_freed_memory
from evalkit.contracts.policy import Policy
from evalkit.contracts.requests import EpisodeRequests
from evalkit.contracts.spec import EnvSpec, PolicySpec, check, check_takes_actions
from evalkit.contracts.types import Observation, OnProgress, Prediction
from evalkit.dataset.layout import BrokenEpisode
from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.score.controls.branches import BranchFolder, execute_missing
from evalkit.score.controls.choice import NO_ACTIONS, Asked, Controls, NoControl, recorded_actions
from evalkit.score.controls.dependence import Branching, dependence_scores
from evalkit.score.distribution import ClipSets
from evalkit.score.metrics.device import describe
from evalkit.score.references import reference_branchings
from evalkit.score.results.coverage import clip_row, failure_row, no_frames_sentence
from evalkit.score.results.names import BRANCHES
from evalkit.score.results.outcome import WHOLE_CHUNK, ImageKey, Measure, Score
from evalkit.score.results.table import ClipScores, ScoreWriter
from evalkit.score.results.totals import Totals
from evalkit.score.results.truth import OnChunk, ScoredChunk, TruthHashes, seen_by
from evalkit.score.sources.data_set import RecordedChunk
from evalkit.score.sources.recorded import Entry, Recorded, Source, open_source
from evalkit.store.clips import ClipChunk

Mode = Literal["own", "recorded"]
SUBJECTS: dict[Mode, str] = {"own": "policy", "recorded": "policy_given_actions"}
MODES: dict[str, tuple[Mode, ...]] = {"own": ("own",), "recorded": ("recorded",), "both": ("own", "recorded")}
"""What `--actions` takes."""


@dataclass(frozen=True, kw_only=True)
class _Scoring:
    """What the episodes of one call share; see `score_dataset`."""

    source: Source
    policy: Policy
    modes: tuple[Mode, ...]
    controls: Controls
    branches: BranchFolder | None
    options: ScoreOptions
    on_chunk: OnChunk

    def subjects(self, recorded: Recorded) -> list[str]:
        """Return what can be predicted of an episode."""
        given = [] if recorded.actions_nd is None else [SUBJECTS["recorded"], *self.controls.names]
        own = [SUBJECTS["own"]] if "own" in self.modes else []
        return own + (given if "recorded" in self.modes else [])


def score_dataset(
    folder: Path,
    policy: Policy,
    result: Path,
    *,
    modes: Sequence[Mode] = ("own",),
    controls: Sequence[str] = (),
    branches: Path | None = None,
    execute_branches: bool = True,
    on_progress: OnProgress | None = None,
    options: ScoreOptions | None = None,
    on_chunk: OnChunk | None = None,
) -> Path:
    """Score a policy's predictions from recorded frames and return the path of the result file.

    An episode that is missing or broken gives one row with that status.

    Args:
        folder: A run folder with clips, or a data set in the layout of X-WAM.
        policy: A loaded policy; called once for each chunk and subject, in order.
        result: Where the Parquet file goes.
        modes: Which actions the policy predicts the outcome of: its own, the recorded ones, or both.
        controls: Also score these predictions, some of `names.CONTROLS`; needs mode `recorded`.
        branches: Folder with the ground truth of the actions of `other_branch` and `mirrored_action`; missing ones are
            executed in the simulator of the recording. With it, the result says how far predictions depend on the
            actions.
        execute_branches: Whether to execute those that are missing or failed; False if that has just been done.
        on_progress: Called with (episodes done, episodes in all).
        options: What is scored in addition to the metrics that every chunk gets.
        on_chunk: Called with each chunk and its first prediction.

    Raises:
        BadConfig: If the folder holds no recorded episodes, the policy predicts nothing, the device does not exist, or
            controls and modes do not fit.
        EvalkitError: If the simulator is needed, and is missing or fails.
        RunFolderError: If the run cannot be read or the result cannot be written.
        SpecMismatch: If the policy needs other observations than the recorded ones, if its frames have another
            spacing, or if mode `recorded` is asked for and it takes no actions.
    """
    options = options or ScoreOptions()
    scored_on = describe(options.device)
    keep_freed_memory()
    check_predicts(policy.spec)
    check_controls(controls, modes, branches)
    source = open_source(folder)
    entries = source.episodes
    if not entries:
        raise BadConfig(f"{folder} holds no recorded episode: no record names a clip.")
    truth, sets = TruthHashes(), ClipSets()
    scoring = _Scoring(
        source=source,
        policy=policy,
        modes=tuple(modes),
        controls=Controls(source, policy.spec, controls),
        branches=None if branches is None else BranchFolder(root=branches, policy=policy.spec),
        options=options,
        on_chunk=seen_by(truth.add, on_chunk),
    )
    if branches is not None and execute_branches:
        execute_missing(source, policy.spec, controls, branches)
    with ScoreWriter(result, scored_on=scored_on) as writer:
        for num_done, entry in enumerate(entries, start=1):
            for scored in _episode(scoring, entry):
                writer.write(scored)
                sets.add(scored)
            if on_progress is not None:
                on_progress(num_done, len(entries))
        for scored in sets.scored():
            writer.write(scored)
        writer.add_truth(truth)
    return result


def check_predicts(policy: PolicySpec) -> None:
    """Raise BadConfig unless a policy predicts something."""
    if not policy.predicts:
        raise BadConfig(no_frames_sentence(policy.policy_id))


def check_controls(controls: Sequence[str], modes: Sequence[Mode], branches: Path | None) -> None:
    """Raise BadConfig unless controls, modes and a folder of branches fit each other."""
    if controls and "recorded" not in modes:
        raise BadConfig(
            "Controls are compared with predictions for the recorded actions; add --actions recorded or both."
        )
    if branches is not None and not set(controls) & set(BRANCHES):
        raise BadConfig(f"--branches holds the outcome of other actions; add --controls {','.join(BRANCHES)}.")


def _episode(scoring: _Scoring, entry: Entry) -> Iterator[ClipScores]:
    """Yield the scores of one episode, one chunk at a time."""
    task, index = entry.task, entry.index
    try:
        with scoring.source.open(entry, scoring.policy.spec) as recorded:
            task, index = recorded.episode.task, recorded.episode.index
            for scores, totals in _chunks(scoring, entry, recorded):
                yield ClipScores(task=task, index=index, outcome=entry.outcome, scores=scores, totals=totals)
    except (RunFolderError, BrokenEpisode) as error:
        row = clip_row("broken_clip" if entry.path.exists() else "missing_clip", str(error))
        yield ClipScores(task=task, index=index, outcome=entry.outcome, scores=[row])
    except EvalkitError:  # of the policy: without it there is nothing to score
        raise
    except Exception as error:
        yield ClipScores(task=task, index=index, outcome=entry.outcome, scores=[failure_row(error)])


def _chunks(scoring: _Scoring, entry: Entry, recorded: Recorded) -> Iterator[tuple[list[Score], Totals]]:
    """Yield the scores and sums of each chunk."""
    env, policy = recorded.env, scoring.policy
    check(env, policy.spec)
    if "recorded" in scoring.modes:
        check_takes_actions(env, policy.spec)
        if recorded.actions_nd is None:
            yield [_unavailable(SUBJECTS["recorded"], -1, NO_ACTIONS)], {}
    requests = {subject: EpisodeRequests(recorded.episode, policy.spec) for subject in scoring.subjects(recorded)}
    for each in requests.values():
        each.reset(policy, env)
    for recorded_chunk in recorded.chunks if requests else ():
        chunk, problems = recorded_chunk.chunk, recorded_chunk.problems
        _check_stride(chunk, env, policy)
        made = _predictions(scoring, entry, recorded, recorded_chunk, requests)
        first = next(iter(made.predictions.values()), None)
        episode, seen = recorded.episode, replace(chunk, predicted=first)
        scoring.on_chunk(ScoredChunk(task=episode.task, index=episode.index, env=env, chunk=seen))
        totals: Totals = {}
        try:
            scores = score_chunk(
                chunk,
                env,
                scoring.options,
                predictions=made.predictions,
                codec=getattr(policy, "round_trip", None),
                problems=problems,
                totals=totals,
            )
            scores += _dependence(scoring, recorded, chunk, made, problems)
        except EvalkitError:
            raise
        except Exception as error:
            scores = [failure_row(error, chunk_idx=chunk.chunk_idx)]
        yield [*scores, *made.unavailable], totals


class _Made(NamedTuple):
    """The predictions of one chunk, by subject: what they were asked for, and rows that say why others are absent."""

    predictions: dict[str, Prediction]
    asked: dict[str, Asked]
    unavailable: list[Score]


def _predictions(
    scoring: _Scoring,
    entry: Entry,
    recorded: Recorded,
    chunk: RecordedChunk,
    requests: Mapping[str, EpisodeRequests],
) -> _Made:
    """Return the predictions of every subject from the first frame of a chunk."""
    made = _Made({}, {}, [])
    for subject, request in requests.items():
        try:
            asked = _asked(scoring, subject, entry, recorded, chunk.chunk)
        except NoControl as error:
            made.unavailable.append(_unavailable(subject, chunk.chunk.chunk_idx, str(error)))
            if scoring.policy.spec.past_frame_stride is not None:  # its memory must see every chunk
                asked = _asked(scoring, SUBJECTS["recorded"], entry, recorded, chunk.chunk)
                _predicted(scoring.policy, recorded, request, chunk, asked)
            continue
        prediction = _predicted(scoring.policy, recorded, request, chunk, asked)
        if prediction is not None:
            made.predictions[subject], made.asked[subject] = prediction, asked
    return made


def _asked(scoring: _Scoring, subject: str, entry: Entry, recorded: Recorded, chunk: ClipChunk) -> Asked:
    """Return the actions that are given, None for the policy's own, and the instruction.

    Raises:
        NoControl: If there is no such control of this chunk.
    """
    if subject == SUBJECTS["own"]:
        return Asked(None, recorded.instruction)
    if subject == SUBJECTS["recorded"]:
        return Asked(recorded_actions(recorded, chunk, scoring.policy.spec.chunk_len), recorded.instruction)
    return scoring.controls.ask(subject, entry, recorded, chunk)


def _dependence(
    scoring: _Scoring,
    recorded: Recorded,
    chunk: ClipChunk,
    made: _Made,
    problems: Mapping[ImageKey, Measure],
) -> list[Score]:
    """Return how far predictions for other actions part from those for the recorded ones, next to the ground truths."""
    given, predictions, scores = SUBJECTS["recorded"], made.predictions, list[Score]()
    if scoring.branches is None or given not in predictions:
        return scores
    for branch in BRANCHES:
        actions = made.asked[branch].actions if branch in predictions else None
        if actions is None:
            continue
        try:
            other = scoring.branches.read(branch, recorded, chunk, actions)
        except NoControl as error:
            scores.append(_unavailable(given, chunk.chunk_idx, str(error), metric=f"apart_levels/true_{branch}"))
            continue
        pairs = {given: Branching(predictions[given], predictions[branch])}
        if scoring.options.references:
            pairs |= reference_branchings(chunk, other, predictions[given], getattr(scoring.policy, "round_trip", None))
        scores += dependence_scores(chunk, branch, other, pairs, recorded.env, problems)
    return scores


def _predicted(
    policy: Policy,
    recorded: Recorded,
    requests: EpisodeRequests,
    recorded_chunk: RecordedChunk,
    asked: Asked,
) -> Prediction | None:
    """Return a policy's prediction of the frames that have a ground truth, from a chunk's first frame; None without."""
    chunk, given_actions = recorded_chunk.chunk, asked.actions
    start = chunk.start
    observation = Observation(
        rgb=start.rgb_fvhwc_u8[0],
        depth=start.depth_fvhw_m[0],
        intrinsics=chunk.intrinsics_v33_px,
        T_base_cam=start.T_base_cam_fv44[0],
        proprio=start.proprio_fd[0],
        instruction=asked.instruction,
    )
    request = requests.request(
        observation,
        chunk_idx=chunk.chunk_idx,
        step_idx=chunk.step_idx,
        num_predicted_frames=min(policy.spec.num_future_frames, len(chunk.true.rgb_fvhwc_u8)),
        given_actions=given_actions,
        between=recorded_chunk.between,
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


def _unavailable(subject: str, chunk_idx: int, reason: str, *, metric: str = "psnr_db/frame_mean") -> Score:
    return Score(
        subject=subject,
        chunk_idx=chunk_idx,
        frame_idx=WHOLE_CHUNK,
        view="static",
        metric=metric,
        value=None,
        status="unavailable",
        reason=reason,
    )


def _check_stride(chunk: ClipChunk, env: EnvSpec, policy: Policy) -> None:
    if policy.spec.predicts and policy.spec.frame_stride != chunk.frame_stride:
        raise SpecMismatch(
            f"{env.env_id} was recorded with one frame every {chunk.frame_stride} steps, policy "
            f"'{policy.spec.policy_id}' predicts one every {policy.spec.frame_stride}: the frames do not match."
        )
