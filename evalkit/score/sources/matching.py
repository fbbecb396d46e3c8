"""Which predicted frame is compared with which ground-truth frame.

In: frame numbers and rates of both sides, and the user's options. Out: a `FrameMatch`, with a finding wherever files
alone do not decide.
Read next: `alignment.py`, which tries other matches where lengths differ; `images.py`, which reads the frames.

Frames are matched by number if every predicted number exists in the ground truth, else from the first frame on. Rates
that differ are refused, because the same number then means another moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from evalkit.score.results.checks import Finding
from evalkit.score.results.names import Family

ALL_FAMILIES: tuple[Family, ...] = ("image", "lpips", "depth", "cloud", "state")

RATE_TOLERANCE = Fraction(1, 100)
"""Rates that differ by less are equal: 29.97 and 30."""

TIME_TOLERANCE = Fraction(1, 10)
"""Largest difference in time between two compared frames, in intervals of the faster side."""


@dataclass(frozen=True, kw_only=True)
class MatchOptions:
    """How the user says that frames belong together; None leaves it to the files.

    Attributes:
        offset: Frames at the beginning of the prediction that have no ground truth, for example conditioning frames.
        true_offset: Frames at the beginning of the ground truth that are not predicted.
        fps: Rates of prediction and ground truth, frames per second; equal rates match frame by frame.
    """

    offset: int | None = None
    true_offset: int | None = None
    fps: tuple[Fraction, Fraction] | None = None

    @property
    def given(self) -> bool:
        """Return whether the user fixed where the two sides begin."""
        return self.offset is not None or self.true_offset is not None


@dataclass(frozen=True, kw_only=True)
class SideFrames:
    """The frames of one side of a clip.

    Attributes:
        numbers: In order, over all views.
        named: Whether file names hold the numbers.
        fps: Frames per second, where a video states it.
    """

    numbers: tuple[int, ...]
    named: bool = False
    fps: Fraction | None = None

    @property
    def first(self) -> int:
        """Return the first number."""
        return self.numbers[0]

    @property
    def count(self) -> int:
        """Return the number of frames from the first to the last, absent ones included."""
        return self.numbers[-1] - self.numbers[0] + 1


@dataclass(frozen=True, kw_only=True)
class FrameMatch:
    """Pairs of frames, in order of time.

    Attributes:
        true: Numbers of the ground-truth frames to compare.
        pred: Number of the predicted frame for each; it need not exist.
        first_pred: Number of the first predicted frame that has a ground truth.
        how: One phrase.
        findings: What the files leave open.
        ambiguous: Whether other matches are plausible, because lengths or first numbers differ.
    """

    true: tuple[int, ...]
    pred: tuple[int, ...]
    first_pred: int
    how: str
    findings: tuple[Finding, ...] = ()
    ambiguous: bool = False


def match_frames(pred: SideFrames, true: SideFrames, options: MatchOptions) -> FrameMatch:
    """Return the pairs of frames to compare.

    Example:
        >>> one_based = SideFrames(numbers=(1, 2, 3), named=True)
        >>> match = match_frames(one_based, SideFrames(numbers=(0, 1, 2)), MatchOptions())
        >>> match.true, match.pred, [finding.check for finding in match.findings]
        ((0, 1, 2), (1, 2, 3), ['frame_numbers'])
    """
    rates, refusal = _rates(pred, true, options)
    if refusal is not None:
        return FrameMatch(true=(), pred=(), first_pred=pred.first, how="refused", findings=(refusal,))
    by_number = not options.given and rates is None and set(pred.numbers) <= set(true.numbers)
    first_true = true.first + (options.true_offset or 0)
    first_pred = first_true if by_number else pred.first + (options.offset or 0)
    pairs = list(_pairs(first_pred, first_true, true.numbers[-1], rates))
    how = "by number" if by_number else "from the first frame on"
    if rates is not None:
        how = f"by time, {_hz(rates[0])} and {_hz(rates[1])}"
    if options.given:
        how += f", after {options.offset or 0} predicted and {options.true_offset or 0} ground-truth frames"
    findings = [] if options.given else [*_number_findings(pred, true, by_number)]
    findings += _length_findings(pred, true, first_pred, pairs, options, by_time=rates is not None)
    return FrameMatch(
        true=tuple(t for t, _ in pairs),
        pred=tuple(p for _, p in pairs),
        first_pred=first_pred,
        how=how,
        findings=tuple(findings),
        ambiguous=not options.given and (bool(findings) or rates is not None),
    )


def _rates(
    pred: SideFrames, true: SideFrames, options: MatchOptions
) -> tuple[tuple[Fraction, Fraction] | None, Finding | None]:
    """Return two rates that differ, or None; and a refusal where the files' rates differ without an option."""
    stated = options.fps
    if stated is not None:
        return (None if _equal(*stated) else stated), None
    if pred.fps is None or true.fps is None or _equal(pred.fps, true.fps):
        return None, None
    rates = f"{_number(pred.fps)},{_number(true.fps)}"
    reason = (
        f"the prediction has {_hz(pred.fps)}, the ground truth {_hz(true.fps)}, so equal frame numbers are different "
        f"moments; add --fps {rates} to match by time, or --fps {_number(true.fps)} if both show the same moments"
    )
    finding = Finding(
        check="frame_rate", subject="policy", value=float(pred.fps / true.fps), reason=reason, refuses=ALL_FAMILIES
    )
    return None, finding


def _equal(one: Fraction, other: Fraction) -> bool:
    return abs(one - other) <= RATE_TOLERANCE * max(one, other)


def _pairs(
    first_pred: int, first_true: int, last_true: int, rates: tuple[Fraction, Fraction] | None
) -> Iterator[tuple[int, int]]:
    """Yield ground-truth and predicted numbers; with rates only those that show the same moment."""
    for step in range(last_true - first_true + 1):
        if rates is None:
            yield first_true + step, first_pred + step
            continue
        steps = Fraction(step) * rates[0] / rates[1]
        nearest = round(steps)
        if abs(steps - nearest) * max(Fraction(1), rates[1] / rates[0]) <= TIME_TOLERANCE:
            yield first_true + step, first_pred + nearest


def _number_findings(pred: SideFrames, true: SideFrames, by_number: bool) -> Iterator[Finding]:
    if by_number or pred.first == true.first:
        return
    reason = (
        f"the prediction's frames are numbered from {pred.first}, the ground truth's from {true.first}; the first "
        "frames were matched with each other. Add --offset 0 if that is right, else --offset N or --gt-offset N to "
        "skip the first N frames of the prediction or the ground truth"
    )
    yield Finding(check="frame_numbers", subject="policy", value=float(pred.first - true.first), reason=reason)


def _length_findings(
    pred: SideFrames,
    true: SideFrames,
    first_pred: int,
    pairs: list[tuple[int, int]],
    options: MatchOptions,
    *,
    by_time: bool,
) -> Iterator[Finding]:
    """Yield a finding if the prediction is longer or shorter; options that skip frames explain a longer one."""
    lacking = [number for _, number in pairs if number not in set(pred.numbers)]
    extra = pred.numbers[-1] - (pairs[-1][1] if pairs else first_pred)
    lengths = f"the prediction has {len(pred.numbers)} frames, the ground truth {len(true.numbers)}"
    if lacking:
        absent = (
            f"predicted frame {lacking[0]} is absent"
            if len(lacking) == 1
            else f"{len(lacking)} predicted frames from {lacking[0]} on are absent"
        )
        hint = "Absent frames have no score"
        if not options.given and not by_time and lacking[-1] > pred.numbers[-1]:
            hint = (
                "Add --offset 0 if the prediction ends early, --gt-offset N if the ground truth begins N frames "
                "earlier, or --fps PRED,GT if the prediction has another frame rate"
            )
        reason = f"{lengths}; {absent}. {hint}"
        yield Finding(check="frame_count", subject="policy", value=float(len(lacking)), reason=reason)
    elif extra > 0 and not options.given and not by_time:
        reason = (
            f"{lengths}; the first {len(pairs)} were compared. Add --offset {extra} if the prediction begins with "
            f"{extra} conditioning frames, or --offset 0 if its last {extra} lie after the end of the ground truth"
        )
        yield Finding(check="frame_count", subject="policy", value=float(extra), reason=reason)


def _hz(rate: Fraction) -> str:
    return f"{_number(rate)} frames/s"


def _number(rate: Fraction) -> str:
    return f"{float(rate):.6g}"
