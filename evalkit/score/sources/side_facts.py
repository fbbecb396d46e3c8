"""What is known about one side of a clip before it is scored: the frames of each view, their sizes, rates and units.

In: the files of one clip on one side. Out: `SideFacts`.
Read next: `clip_facts.py`, which brings both sides together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evalkit.score.metrics.depth import measured
from evalkit.score.results.checks import Finding
from evalkit.score.results.names import Family
from evalkit.score.results.outcome import Measure, Modality
from evalkit.score.sources.clip_files import ClipFiles, Stream
from evalkit.score.sources.images import DepthUnits, StreamInfo, inspect, open_view
from evalkit.score.sources.matching import ALL_FAMILIES, RATE_TOLERANCE, SideFrames

MODALITIES: tuple[Modality, ...] = ("rgb", "depth")

PLAUSIBLE_M = (0.02, 50.0)
"""Median depths that a robot's camera can see, metres."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One view in one modality.

    Attributes:
        stream: Its files.
        info: What is known about them.
        base: Its own number of the side's first frame.
    """

    stream: Stream
    info: StreamInfo
    base: int


@dataclass(frozen=True, kw_only=True)
class SideFacts:
    """One side of a clip.

    Attributes:
        subject: Whose files they are, as in the result file.
        sources: By modality and view, with the names of the ground truth's views.
        frames: All frames; None if none can be read.
        findings: What looks wrong.
        masks: By view, files of the pixels that show the robot.
    """

    subject: str
    sources: Mapping[tuple[Modality, str], Source]
    frames: SideFrames | None
    findings: tuple[Finding, ...] = ()
    masks: Mapping[str, Stream] = field(default_factory=dict)

    def numbers(self, source: Source, wanted: Sequence[int]) -> list[int]:
        """Return a source's own numbers of frames that the side calls `wanted`."""
        first = 0 if self.frames is None else self.frames.first
        return [source.base + number - first for number in wanted]

    def hw_px(self, view: str) -> tuple[int, int] | None:
        """Return the size of a view: of its colours, else of its depth."""
        infos = [self.sources[m, view].info for m in MODALITIES if (m, view) in self.sources]
        return next((info.hw_px for info in infos if info.hw_px is not None), None)


def side_facts(clip: ClipFiles, subject: str, names: Mapping[str, str]) -> SideFacts:
    """Return what is known about one side.

    Args:
        clip: Its files.
        subject: `policy` or `ground_truth`.
        names: The side's own name of each view that it has.
    """
    infos = {
        (modality, view): (stream, inspect(stream, modality))
        for modality in MODALITIES
        for view, own in names.items()
        if (stream := clip.streams.get((modality, own))) is not None
    }
    counted = [info for _, info in infos.values() if info.numbers]
    findings = [_unreadable(subject, key, info) for key, (_, info) in infos.items() if info.problem]
    if not counted:
        sources = {key: Source(stream=stream, info=info, base=0) for key, (stream, info) in infos.items()}
        return SideFacts(subject=subject, sources=sources, frames=None, findings=tuple(findings))
    first = min(info.numbers[0] for info in counted)
    longest = max(len(info.numbers) for info in counted)
    sources, numbers = dict[tuple[Modality, str], Source](), set[int]()
    for key, (stream, info) in infos.items():
        base = first
        if info.numbers and info.numbers[0] != first and len(info.numbers) == longest:
            base = info.numbers[0]
            findings.append(_own_numbers(subject, key, base, first))
        sources[key] = Source(stream=stream, info=info, base=base)
        numbers |= {number - base + first for number in info.numbers}
    rates = [info.fps for info in counted if info.fps is not None]
    findings += [*_rate_findings(subject, {key: source.info for key, source in sources.items()})]
    frames = SideFrames(
        numbers=tuple(sorted(numbers)),
        named=any(info.named for info in counted),
        fps=max(rates, default=None),
    )
    masks = {view: clip.masks[own] for view, own in names.items() if own in clip.masks}
    return SideFacts(subject=subject, sources=sources, frames=frames, findings=tuple(findings), masks=masks)


def unit_findings(side: SideFacts, units: DepthUnits) -> Iterator[Finding]:
    """Yield a refusal for depth whose first frame has a median that no robot's camera sees."""
    for (modality, view), source in side.sources.items():
        if modality != "depth" or not source.info.numbers:
            continue
        [frame] = open_view(source.stream, "depth", source.info.numbers[:1], units=units).take(1)
        if isinstance(frame, Measure):
            continue
        valid = measured(frame)
        median_m = float(np.median(valid)) if len(valid) else np.nan
        if not np.isfinite(median_m) or PLAUSIBLE_M[0] <= median_m <= PLAUSIBLE_M[1]:
            continue
        per_m = units.floating_per_m if source.info.stored.startswith("float") else units.integer_per_m
        reason = (
            f"the first depth image of {view} ({source.info.stored}) has a median of {median_m:.4g} m if {per_m:.6g} "
            f"stored units are a metre, expected {PLAUSIBLE_M[0]:g} to {PLAUSIBLE_M[1]:g} m; give the stored units per "
            "metre with --depth-scale PRED,GT, for example 1000,1000 for millimetres"
        )
        yield Finding(
            check="depth_unit",
            subject=side.subject,
            view=view,
            value=median_m,
            reason=reason,
            refuses=("depth", "cloud"),
        )
        return


def _unreadable(subject: str, key: tuple[Modality, str], info: StreamInfo) -> Finding:
    modality, view = key
    refuses: tuple[Family, ...] = ("image", "lpips") if modality == "rgb" else ("depth", "cloud")
    which = "first frame of the " if info.numbers else ""
    reason = f"the {which}{modality} of {view} cannot be read: {info.problem}"
    return Finding(check="files", subject=subject, view=view, reason=reason, refuses=() if info.numbers else refuses)


def _own_numbers(subject: str, key: tuple[Modality, str], base: int, first: int) -> Finding:
    modality, view = key
    reason = (
        f"the {modality} of {view} is numbered from {base}, other files of the same clip from {first}, and has as many "
        "frames; its first frame was taken for the first. Give all files of a clip the same numbers"
    )
    return Finding(check="frame_numbers", subject=subject, view=view, value=float(base - first), reason=reason)


def _rate_findings(subject: str, infos: Mapping[tuple[Modality, str], StreamInfo]) -> Iterator[Finding]:
    """Yield videos of one clip whose rates differ, and videos whose own rate varies."""
    for (modality, view), info in infos.items():
        if info.uneven_from is not None:
            reason = (
                f"the rate of the {modality} video of {view} varies from frame {info.uneven_from} on; frames are "
                "compared in their order, not by time. Write it with a constant rate if moments matter"
            )
            yield Finding(check="frame_rate", subject=subject, view=view, value=float(info.uneven_from), reason=reason)
    stated = {key: info.fps for key, info in infos.items() if info.fps is not None}
    if not stated or max(stated.values()) - min(stated.values()) <= RATE_TOLERANCE * max(stated.values()):
        return
    listed = ", ".join(f"{modality} of {view} {float(fps):.6g}" for (modality, view), fps in stated.items())
    reason = f"the videos of one clip have different frame rates ({listed} frames/s); write all with one rate"
    fastest = float(max(stated.values()))
    yield Finding(check="frame_rate", subject=subject, value=fastest, reason=reason, refuses=ALL_FAMILIES)
