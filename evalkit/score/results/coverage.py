"""Coverage of a result file: which plan and records it was made from, and which clips could not be scored.

In: a run's plan and records; a result file. Out: `Coverage`, stored inside the file; sentences for the user.
Read next: `table.py`, which stores it; `evalkit/report/caveats.py`, which compares it with the present records.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from evalkit.score.results.checks import split_checks
from evalkit.score.results.names import PREDICTED
from evalkit.score.results.outcome import STATUSES, WHOLE_CHUNK, Score
from evalkit.store.plan import Plan
from evalkit.store.records import EpisodeRecord

if TYPE_CHECKING:
    import pandas as pd

CLIP_METRIC = "clip"
"""`metric` of the row of a clip that could not be scored."""

NUM_NAMED = 5
"""How many clips a sentence names; further ones are counted."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Plan and records that a result file was made from.

    Attributes:
        plan_sha256: Hash of the plan.
        clips: A hash of the record of each episode with a clip, by the episode's key.
    """

    plan_sha256: str
    clips: Mapping[str, str]

    @classmethod
    def of(cls, plan: Plan, records: Iterable[EpisodeRecord]) -> Coverage:
        """Return the coverage of these records."""
        clips = {record.key: _hash(record) for record in records if record.clip is not None}
        return cls(plan_sha256=plan.sha256, clips=dict(sorted(clips.items())))

    def to_text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str | bytes) -> Coverage:
        """Return what `to_text` wrote."""
        return cls(**json.loads(text))


class LostClip(NamedTuple):
    """A clip that could not be scored: its episode's key, and the status that says why."""

    key: str
    status: str


def clip_row(status: str, reason: str, *, chunk_idx: int = -1) -> Score:
    """Return the row of a clip, or of one of its chunks, that could not be scored."""
    return Score(
        subject="policy",
        chunk_idx=chunk_idx,
        frame_idx=WHOLE_CHUNK,
        view="",
        metric=CLIP_METRIC,
        value=None,
        status=status,
        reason=reason,
    )


def failure_row(error: Exception, *, chunk_idx: int = -1) -> Score:
    """Return the row of a clip, or of one of its chunks, on which the scorer failed."""
    return clip_row("scoring_failed", f"{type(error).__name__}: {error}", chunk_idx=chunk_idx)


def predicts_nothing(plan: Plan) -> bool:
    """Return whether the policy of a plan predicts no frames, so that its runs never have a score."""
    return not any(spec.get("predicts", True) for spec in plan.policy.specs.values())


def no_frames_sentence(policy: str) -> str:
    """Return that a policy has no scores, because it predicts no frames."""
    return f"There is nothing to score: policy '{policy}' predicts no frames."


def nothing_to_score(plan: Plan, records: Sequence[EpisodeRecord]) -> str | None:
    """Return why a run has no clip to score, one sentence; None if it has one."""
    if any(record.clip is not None for record in records):
        return None
    if predicts_nothing(plan):
        return no_frames_sentence(plan.policy.name)
    if not records:
        return "There is nothing to score yet: the run has no records."
    return (
        "There is nothing to score: no recorded episode has a clip (none ended in success or failure, or run.clips "
        "was off)."
    )


def kept_sentence(about: Mapping[str, Any], records: Sequence[EpisodeRecord]) -> str | None:
    """Return of how many episodes clips were kept, where the settings asked for a share of them; else None.

    Args:
        about: Contents of `run.json`.
        records: The run's records.
    """
    listed = about.get("sessions")
    runs = (
        [session.get("run") for session in listed if isinstance(session, Mapping)] if isinstance(listed, list) else []
    )
    settings = [run.get("clips") for run in runs if isinstance(run, Mapping)]
    shares = list(dict.fromkeys(f"{share:g}" for share in settings if type(share) is float and share < 1))
    if not shares:
        return None
    ended = [record for record in records if record.outcome in ("success", "failure")]
    kept = sum(record.clip is not None for record in ended)
    return (
        f"Clips were kept of {kept} of {len(ended)} episodes with a result (run.clips={' and '.join(shares)}): scores "
        "of predictions are of these alone."
    )


def lost_clips(scores: pd.DataFrame) -> list[LostClip]:
    """Return the clips that could not be scored, as a whole or in part, each once.

    Args:
        scores: With the columns task, index, metric and status.
    """
    rows = scores[scores["metric"] == CLIP_METRIC].drop_duplicates(["task", "index"])
    return [
        LostClip(f"{task}/{index:04d}", str(status))
        for task, index, status in zip(rows["task"], rows["index"], rows["status"], strict=True)
    ]


def unscored_sentence(scores: pd.DataFrame) -> str | None:
    """Return why no prediction has a value, one sentence; None if one has.

    Args:
        scores: A result file with the columns subject, metric, value, status and reason.
    """
    rows = scores[scores["subject"].map(lambda subject: subject.startswith(PREDICTED)).astype(bool)]
    metrics, _ = split_checks(rows)
    if metrics["value"].notna().any():
        return None
    if rows.empty:
        return "Nothing could be scored: no clip holds a prediction with ground truth."
    first = rows.assign(is_clip=rows["metric"] == CLIP_METRIC).sort_values("is_clip", ascending=False, kind="stable")
    status, reason = str(first["status"].iloc[0]), str(first["reason"].iloc[0])
    return f"Nothing could be scored: {reason or STATUSES.get(status, status)}".rstrip(".") + "."


def lost_sentence(lost: Sequence[LostClip], num_clips: int) -> str:
    """Return a sentence that names the clips that could not be scored.

    Example:
        >>> lost_sentence([LostClip("Lift/0001", "missing_clip")], 2)
        '1 of 2 clips could not be scored: Lift/0001 (missing_clip).'
    """
    names = [f"{key} ({status})" for key, status in lost[:NUM_NAMED]]
    rest = [f"and {len(lost) - NUM_NAMED} more"] if len(lost) > NUM_NAMED else []
    noun = "clip" if num_clips == 1 else "clips"
    return f"{len(lost)} of {num_clips} {noun} could not be scored: {', '.join([*names, *rest])}."


def _hash(record: EpisodeRecord) -> str:
    identity = (record.key, record.outcome, record.seed, record.actions_sha256, record.clip)
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
