"""What is decided about a pair of clips before it is scored: cameras, sizes, units, and how frames are matched.

In: the files of one clip on both sides, and the user's options. Out: `ClipFacts`, with a finding for every doubt.
Read next: `evalkit/score/folder_clip.py`, which scores with it; `evalkit/cli/folder_table.py`, which prints it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalkit.contracts.errors import BadConfig
from evalkit.score.metrics.image import thumbnail
from evalkit.score.results.checks import Finding
from evalkit.score.results.outcome import Measure, Modality
from evalkit.score.sources.alignment import NUM_TRIED, THUMBNAIL_PX, Alternative, better_match
from evalkit.score.sources.camera_files import read_cameras, view_names
from evalkit.score.sources.cameras import CameraSet, unknown_cameras
from evalkit.score.sources.clip_files import CAMERA_FILES, DEFAULT_VIEW, READABLE, STATES
from evalkit.score.sources.folder_options import FolderOptions, Resized
from evalkit.score.sources.frame_names import WRIST_WORDS, words
from evalkit.score.sources.images import DepthUnits, inspect, open_view
from evalkit.score.sources.matching import ALL_FAMILIES, FrameMatch, match_frames
from evalkit.score.sources.pairs import ClipPair, same_views
from evalkit.score.sources.side_facts import MODALITIES, SideFacts, side_facts, unit_findings
from evalkit.score.sources.states import read_states

TRUTH, POLICY = "ground_truth", "policy"

MAX_ASPECT_CHANGE = 0.01
"""Relative change of width over height by `--resize` that rounding explains."""


@dataclass(frozen=True, kw_only=True)
class ClipFacts:
    """Everything that is decided before the frames of a clip are read.

    Attributes:
        cameras: The views, in order, with intrinsics of the images as they are scored.
        true: The ground truth.
        pred: The prediction.
        sizes_hw_px: Size of each view as it is scored, in the order of the cameras.
        units: Stored units of predicted and true depth.
        match: Pairs of frames.
        findings: What looks wrong or is left open.
        resized: What is scaled, see `FolderOptions`.
    """

    cameras: CameraSet
    true: SideFacts
    pred: SideFacts
    sizes_hw_px: tuple[tuple[int, int], ...]
    units: tuple[DepthUnits, DepthUnits]
    match: FrameMatch
    findings: tuple[Finding, ...]
    resized: Resized | None = None

    def resizes(self, subject: str, modality: Modality) -> bool:
        """Return whether the images of a side are scaled."""
        return _resizes(self.resized, subject, modality)

    @property
    def refused(self) -> str:
        """Return why nothing of the clip is scored; empty if something is."""
        return next((finding.reason for finding in self.findings if set(finding.refuses) == set(ALL_FAMILIES)), "")

    def depth_problem(self, subject: str) -> Measure | None:
        """Return why the depth of a side is not scored, or None."""
        refusals = (
            finding for finding in self.findings if finding.check == "depth_unit" and finding.subject == subject
        )
        return next((Measure(None, "refused", finding.reason) for finding in refusals), None)


def clip_facts(pair: ClipPair, options: FolderOptions) -> ClipFacts:
    """Return what is known about a pair of clips.

    Raises:
        BadConfig: If the ground truth has no readable frame, or its cameras or files contradict themselves.
    """
    for clip in (pair.true, pair.pred):
        if clip.several:
            raise BadConfig(f"{clip.root / clip.name}: {clip.several}.")
    stated = _read_cameras(pair, options)
    names = [camera.spec.name for camera in stated.cameras]
    named = same_views(pair.true, names), same_views(pair.pred, names)
    true, pred = side_facts(pair.true, TRUTH, named[0]), side_facts(pair.pred, POLICY, named[1])
    if true.frames is None:
        problems = [source.info.problem for source in true.sources.values() if source.info.problem]
        why = problems[0] if problems else f"it holds {pair.true.contents()}"
        raise BadConfig(
            f"{pair.true.root / pair.true.name} has no readable frame, so there is no ground truth to compare with: "
            f"{why}."
        )
    units = _units(stated, options)
    sizes = tuple(_scored_size(name, true, pred, options) for name in names)
    match, doubts = _matched(true, pred, names, options)
    findings = [
        *_view_findings(pair, names, named),
        *true.findings,
        *pred.findings,
        *doubts,
        *_absent_findings(true, pred, match),
        *unit_findings(pred, units[0]),
        *unit_findings(true, units[1]),
        *_scale_findings(true, pred, options),
        *_unstated_units(stated, true, pred, options),
        *_size_findings(names, true, pred, sizes, options),
        *_camera_findings(pair, stated, true),
        *_mask_findings(true, names, sizes),
        *_state_findings(pair, true, pred, match),
    ]
    return ClipFacts(
        cameras=_scaled_cameras(stated, true, sizes),
        true=true,
        pred=pred,
        sizes_hw_px=sizes,
        units=units,
        match=match,
        findings=tuple(findings),
        resized=options.resize,
    )


def _read_cameras(pair: ClipPair, options: FolderOptions) -> CameraSet:
    """Return the cameras that the ground truth's file states; without a file, its views as static cameras."""
    views = sorted({view for _, view in pair.true.streams})
    path = pair.true.file(CAMERA_FILES, shared=True)
    if path is None:
        return unknown_cameras(views or [DEFAULT_VIEW])
    sizes = {view: inspect(stream, modality).hw_px for (modality, view), stream in pair.true.streams.items()}
    sizes_px = {view: size for view, size in sizes.items() if size is not None}
    try:
        stated = read_cameras(path, views, convention=options.convention, sizes_px=sizes_px)
    except BadConfig as error:
        problem = f"{str(error).rstrip('.')}; no view counts as a wrist camera"
        return replace(unknown_cameras(views or [DEFAULT_VIEW]), source=path.name, problem=problem, is_read=False)
    return _with_images(pair, stated, views)


def _with_images(pair: ClipPair, stated: CameraSet, views: Sequence[str]) -> CameraSet:
    """Return the stated cameras that have images on a side; static ones of unknown place where none has."""
    names = [camera.spec.name for camera in stated.cameras]
    shown = {**same_views(pair.true, names), **same_views(pair.pred, names)}
    kept = tuple(camera for camera in stated.cameras if camera.spec.name in shown)
    if kept or not views:
        return replace(stated, cameras=kept or stated.cameras)
    problem = f"{stated.source} names {', '.join(names)}, the folders are {', '.join(views)}: no name fits"
    return replace(stated, cameras=unknown_cameras(views).cameras, problem=problem)


def _units(cameras: CameraSet, options: FolderOptions) -> tuple[DepthUnits, DepthUnits]:
    if options.depth is not None:
        return options.depth
    units = DepthUnits() if cameras.depth_per_m is None else DepthUnits(integer_per_m=cameras.depth_per_m)
    return units, units


def _scored_size(view: str, true: SideFacts, pred: SideFacts, options: FolderOptions) -> tuple[int, int]:
    own, other = true.hw_px(view), pred.hw_px(view)
    return (other if options.resize == "gt" else None) or own or other or (1, 1)


def _matched(
    true: SideFacts, pred: SideFacts, names: Sequence[str], options: FolderOptions
) -> tuple[FrameMatch, list[Finding]]:
    """Return the pairs of frames, and the findings about them."""
    assert true.frames is not None
    if pred.frames is None:
        numbers, skipped = true.frames.numbers, options.match.offset or 0
        full = tuple(range(numbers[0] + (options.match.true_offset or 0), numbers[-1] + 1))
        rows = tuple(range(skipped, skipped + len(full)))  # of predicted states, counted from 0
        return FrameMatch(true=full, pred=rows, first_pred=skipped, how="no predicted frame"), []
    match = match_frames(pred.frames, true.frames, options.match)
    findings = list(match.findings)
    if match.ambiguous and (better := _better(true, pred, names, match)) is not None:
        findings.append(better)
    if not match.true and not findings:
        reason = f"--gt-offset {options.match.true_offset} skips all {true.frames.count} frames of the ground truth"
        findings.append(Finding(check="frame_count", subject=TRUTH, reason=reason, refuses=ALL_FAMILIES))
    return match, findings


def _better(true: SideFacts, pred: SideFacts, names: Sequence[str], match: FrameMatch) -> Finding | None:
    """Return the refusal of a match that another one beats clearly."""
    assert true.frames is not None
    assert pred.frames is not None
    view = next((name for name in names if ("rgb", name) in true.sources and ("rgb", name) in pred.sources), None)
    if view is None or not match.true:
        return None
    thumbnails = [_thumbnails(side, view) for side in (true, pred)]
    default = Alternative.of(
        [number - true.frames.first for number in match.true], [number - pred.frames.first for number in match.pred]
    )
    better = better_match(thumbnails[0], thumbnails[1], default, true.frames.count, pred.frames.count)
    if better is None:
        return None
    reason = (
        f"the prediction fits the ground truth of {view} better with {better.alternative.options()} (mean squared "
        f"error {better.mse:.4g}) than as the files are numbered ({better.default_mse:.4g} squared grey levels); add "
        f"it, or {default.options()} to keep the match"
    )
    return Finding(
        check="frame_alignment", subject=POLICY, view=view, value=better.mse, reason=reason, refuses=ALL_FAMILIES
    )


def _thumbnails(side: SideFacts, view: str) -> dict[int, np.ndarray]:
    source = side.sources["rgb", view]
    wanted = range(source.base, source.base + 2 * NUM_TRIED)
    frames = open_view(source.stream, "rgb", wanted).take(len(wanted))
    return {
        i: thumbnail(frame, THUMBNAIL_PX)
        for i, frame in enumerate(frames)
        if not isinstance(frame, Measure) and frame.ndim == 3
    }


def _view_findings(
    pair: ClipPair, names: Sequence[str], named: tuple[Mapping[str, str], Mapping[str, str]]
) -> Iterator[Finding]:
    """Yield views that only one side has, by name."""
    scored = ", ".join(names)
    for clip, subject, own in ((pair.true, TRUTH, named[0]), (pair.pred, POLICY, named[1])):
        side = "ground truth" if subject == TRUTH else "prediction"
        for view in sorted({view for _, view in clip.streams} - set(own.values())):
            reason = f"view '{view}' of the {side} is not scored: the views of the ground truth are {scored}"
            yield Finding(check="views", subject=subject, view=view, reason=reason)
        missing = [view for view in names if view not in own]
        if missing and (clip.streams or clip.unused):
            reason = (
                f"the {side} has no frames of view {', '.join(missing)}; {clip.root / clip.name} has {clip.contents()}"
            )
            reason += f". Readable are {READABLE}" if clip.unused else ""
            yield Finding(check="views", subject=subject, view=missing[0], reason=reason)
    if pair.true.file(CAMERA_FILES, shared=True) is None and len(names) > 1:
        for view in (name for name in names if set(words(name)) & WRIST_WORDS):
            reason = (
                f"view '{view}' counts as a static camera, because no camera file says what it is; write "
                f'{{"views": [{{"name": "{view}", "kind": "wrist"}}, ...]}} into cameras.json to score it apart'
            )
            yield Finding(check="views", subject=TRUTH, view=view, reason=reason)
    if pair.pred.has("depth") and not pair.true.has("depth"):
        reason = "the prediction has depth, the ground truth has none, so that depth and point clouds have no score"
        yield Finding(check="views", subject=TRUTH, reason=reason)


def _scale_findings(true: SideFacts, pred: SideFacts, options: FolderOptions) -> Iterator[Finding]:
    if options.depth is None or any(units.floating_per_m != 1 for units in options.depth):
        return
    sources = [*true.sources.items(), *pred.sources.items()]
    stored = [source.info.stored for (modality, _), source in sources if modality == "depth" and source.info.stored]
    if stored and all(name.startswith("float") for name in stored):
        reason = (
            f"--depth-scale {options.depth[0].integer_per_m:.6g} has no effect: all depth files hold floating point, "
            "which is metres; write --depth-scale PRED,GT for these"
        )
        yield Finding(check="depth_unit", subject="options", reason=reason)


def _unstated_units(cameras: CameraSet, true: SideFacts, pred: SideFacts, options: FolderOptions) -> Iterator[Finding]:
    """Yield a refusal of integer depth whose units a camera file may state that cannot be read."""
    if cameras.is_read or options.depth is not None:
        return
    for side in (true, pred):
        stored = [source.info.stored for (modality, _), source in side.sources.items() if modality == "depth"]
        if any(name and not name.startswith("float") for name in stored):
            reason = (
                f"{cameras.source} cannot be read, and may state the unit of depth; correct it, or add --depth-scale, "
                "for example 1000 for millimetres"
            )
            yield Finding(check="depth_unit", subject=side.subject, reason=reason, refuses=("depth", "cloud"))


def _size_findings(
    names: Sequence[str],
    true: SideFacts,
    pred: SideFacts,
    sizes: Sequence[tuple[int, int]],
    options: FolderOptions,
) -> Iterator[Finding]:
    """Yield views whose images differ in size between or within the sides, or change their shape by `--resize`."""
    for view, size in zip(names, sizes, strict=True):
        for side in (true, pred):
            for modality in MODALITIES:
                source = side.sources.get((modality, view))
                own = source.info.hw_px if source is not None else None
                if own is None or own == size:
                    continue
                if not _resizes(options.resize, side.subject, modality):
                    which = "ground truth's" if side is true else "predicted"
                    reason = (
                        f"the {which} {modality} of {view} has {own[0]} x {own[1]} pixels (rows x columns), expected "
                        f"{size[0]} x {size[1]}; add --resize {_suggested(side, view, modality, size)} to scale it"
                    )
                    refuses = ("image", "lpips") if modality == "rgb" else ("depth", "cloud")
                    yield Finding(
                        check="image_size",
                        subject=side.subject,
                        view=view,
                        reason=reason,
                        refuses=refuses,  # type: ignore[arg-type]
                    )
                elif abs(own[1] * size[0] / (own[0] * size[1]) - 1) > MAX_ASPECT_CHANGE:
                    reason = (
                        f"--resize {options.resize} stretches the {modality} of {view} from {own[0]} x {own[1]} to "
                        f"{size[0]} x {size[1]} pixels (rows x columns), another shape; crop it first if it is a crop"
                    )
                    yield Finding(check="image_size", subject=side.subject, view=view, reason=reason)


def _resizes(resized: Resized | None, subject: str, modality: Modality) -> bool:
    if resized == "depth":
        return modality == "depth"
    return subject == {"pred": POLICY, "gt": TRUTH, None: None}[resized]


def _suggested(side: SideFacts, view: str, modality: Modality, size: tuple[int, int]) -> str:
    """Return the value of `--resize` that scales an image to the size as it is scored."""
    if modality == "depth" and side.hw_px(view) == size:
        return "depth"
    return "gt" if side.subject == TRUTH else "pred"


def _scaled_cameras(cameras: CameraSet, true: SideFacts, sizes: Sequence[tuple[int, int]]) -> CameraSet:
    """Return the cameras with intrinsics of the images as they are scored."""
    scaled = []
    for camera, size in zip(cameras.cameras, sizes, strict=True):
        own = camera.stated_hw_px or true.hw_px(camera.spec.name) or size
        fits = camera.stated_hw_px in (None, true.hw_px(camera.spec.name))
        K = camera.resized(own, size) if own != size and fits else camera.intrinsics_33_px
        scaled.append(replace(camera, intrinsics_33_px=K if fits else np.full((3, 3), np.nan)))
    return replace(cameras, cameras=tuple(scaled))


def _mask_findings(true: SideFacts, names: Sequence[str], sizes: Sequence[tuple[int, int]]) -> Iterator[Finding]:
    """Yield masks of the robot that cannot be read, have another size than the images, or lack frames."""
    assert true.frames is not None
    for view, size in zip(names, sizes, strict=True):
        if view not in true.masks:
            continue
        info = inspect(true.masks[view], "depth", is_mask=True)
        numbers = set(info.numbers) if info.named else {number + true.frames.first for number in info.numbers}
        fault = info.problem
        if not fault and info.hw_px != size:
            fault = f"it has the size {info.hw_px}, the images have {size}"
        elif not fault and (missing := set(true.frames.numbers) - numbers):
            fault = f"it has no frame {min(missing)}"
        if fault:
            reason = f"the mask of {view} marks no robot where it does not fit the ground truth: {fault}"
            yield Finding(check="mask", subject=TRUTH, view=view, reason=reason)


def _absent_findings(true: SideFacts, pred: SideFacts, match: FrameMatch) -> Iterator[Finding]:
    """Yield views that lack compared frames; predicted frames that every view lacks are the matter of `matching.py`."""
    for side, numbers in ((true, match.true), (pred, match.pred)):
        known = () if side.frames is None or side is true else set(side.frames.numbers)
        shared = [number for number in numbers if side is true or number in known]
        whose = "ground truth's" if side is true else "prediction's"
        has = {modality for modality, _ in side.sources}
        for modality, view in sorted({*true.sources, *pred.sources}):
            lacking = _lacking(side, (modality, view), shared) if modality in has else []
            if lacking:
                reason = (
                    f"the {whose} {modality} of {view} lacks {len(lacking)} of {len(numbers)} compared frames, "
                    f"first frame {lacking[0]}; they have no score, and means are over the others"
                )
                lost = float(len(lacking))
                yield Finding(check="frame_count", subject=side.subject, view=view, value=lost, reason=reason)


def _lacking(side: SideFacts, key: tuple[Modality, str], numbers: Sequence[int]) -> list[int]:
    """Return the frames that a side lacks in one view; none if all of it is absent or unreadable."""
    source = side.sources.get(key)
    if source is None:
        has_view = any(view == key[1] for _, view in side.sources)
        return list(numbers) if has_view else []
    known = set(source.info.numbers)
    return [number for number in side.numbers(source, numbers) if number not in known] if known else []


def _state_findings(pair: ClipPair, true: SideFacts, pred: SideFacts, match: FrameMatch) -> Iterator[Finding]:
    """Yield states that cannot be read, or are fewer than the compared frames."""
    for clip, side, numbers in ((pair.true, true, match.true), (pair.pred, pred, match.pred)):
        states = read_states(clip.file(STATES))
        if states.problem:
            yield Finding(check="states", subject=side.subject, reason=states.problem, refuses=("state",))
        elif states.values is not None:
            first = 0 if side.frames is None else side.frames.first
            lacking = sum(number - first >= len(states.values) for number in numbers)
            if lacking:
                whose = "ground truth" if side is true else "prediction"
                reason = (
                    f"the {whose} has {len(states.values)} states, so that {lacking} of {len(numbers)} compared frames "
                    "have none; means are over the others"
                )
                yield Finding(check="frame_count", subject=side.subject, value=float(lacking), reason=reason)


def _pose_counts(cameras: CameraSet, true: SideFacts) -> Iterator[Finding]:
    """Yield cameras with one pose per frame, but not for every frame."""
    assert true.frames is not None
    for camera in cameras.cameras:
        poses, count = camera.T_base_cam_f44, true.frames.count
        if poses.ndim != 3:
            continue
        known = set(camera.pose_numbers)
        lacking = sum(number not in known for number in true.frames.numbers) if known else max(count - len(poses), 0)
        if lacking or (not known and len(poses) > count):
            reason = (
                f"{camera.spec.name} has {len(poses)} poses for {count} frames; poses were taken from the first frame "
                "on, and a frame without a pose has no point cloud. Give one pose, or one per frame"
            )
            if known:
                reason = f"{camera.spec.name} has no pose for {lacking} of {count} frames, which have no point cloud"
            yield Finding(check="cameras", subject=TRUTH, view=camera.spec.name, value=float(len(poses)), reason=reason)


def _camera_findings(pair: ClipPair, cameras: CameraSet, true: SideFacts) -> Iterator[Finding]:
    """Yield cameras that are not used, state another image size, or have a number of poses of their own."""
    if cameras.problem:
        yield Finding(check="cameras", subject=TRUTH, reason=cameras.problem.rstrip("."), refuses=("cloud",))
    file = pair.true.file(CAMERA_FILES, shared=True)
    named = [] if file is None else view_names(file)
    shown = {camera.spec.name for camera in cameras.cameras}
    for name in [] if cameras.problem else [name for name in named if name not in shown]:
        folders = ", ".join(sorted({view for _, view in pair.true.streams}))
        reason = f"{cameras.source} names {name}, which has no images; the folders are {folders}"
        yield Finding(check="cameras", subject=TRUTH, view=name, reason=reason)
    yield from _pose_counts(cameras, true)
    for camera in cameras.cameras:
        own = true.hw_px(camera.spec.name)
        if camera.stated_hw_px is not None and own is not None and camera.stated_hw_px != own:
            reason = (
                f"{cameras.source} states {camera.stated_hw_px[0]} x {camera.stated_hw_px[1]} pixels (rows x columns) "
                f"for {camera.spec.name}, its images have {own[0]} x {own[1]}; give the intrinsics of the images"
            )
            yield Finding(check="intrinsics", subject=TRUTH, view=camera.spec.name, reason=reason, refuses=("cloud",))
    path = pair.pred.file(CAMERA_FILES)
    if path is None:
        return
    reason = (
        f"{path} is not used: point clouds take the cameras of the ground truth ({cameras.source}), and wrist views "
        "the pose of the predicted state"
    )
    yield Finding(check="predicted_cameras", subject=POLICY, reason=reason)
