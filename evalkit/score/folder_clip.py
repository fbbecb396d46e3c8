"""Scoring of one pair of clips from files, a few frames at a time.

In: `ClipFacts`. Out: scores, part by part.
Read next: `sources/clip_facts.py`, what is decided before; `chunk.py`, which scores a part.

A clip is read and scored `FRAMES_A_PART` frames at a time, so that memory does not grow with its length. Metrics
that are pooled over a generated clip are pooled over the whole clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import PROPRIO_DIM, Prediction
from evalkit.score.chunk import ScoreOptions, pooled_scores, score_chunk
from evalkit.score.extra import RobotMasks
from evalkit.score.pools import Pools
from evalkit.score.results.checks import Finding, check_row
from evalkit.score.results.coverage import clip_row
from evalkit.score.results.outcome import ImageKey, Measure, Modality, Score
from evalkit.score.results.totals import Totals
from evalkit.score.results.truth import OnChunk, ScoredChunk
from evalkit.score.sources.cameras import arms_of
from evalkit.score.sources.clip_facts import POLICY, TRUTH, ClipFacts
from evalkit.score.sources.clip_files import READABLE, STATES, ClipFiles
from evalkit.score.sources.images import Frame, View, copy_frame, open_view, read_masks
from evalkit.score.sources.pairs import ClipPair, same_views
from evalkit.score.sources.read_log import ReadLog
from evalkit.score.sources.side_facts import MODALITIES, SideFacts
from evalkit.score.sources.states import read_states
from evalkit.store.clips import ClipChunk, Frames

FRAMES_A_PART = 32
"""Frames of a clip that are in memory together."""

Key = tuple[str, Modality]
"""Subject and modality."""

Read = Mapping[Key, list[list[Frame]]]
"""Frames of each view of each side."""


class Offers(NamedTuple):
    """What the predictions of at least one clip hold in addition to RGB; it counts as missing in clips without it."""

    depth: bool
    states: bool


def offers_of(clips: Sequence[ClipFiles]) -> Offers:
    """Return what the predictions hold."""
    return Offers(
        depth=any(clip.has("depth") for clip in clips), states=any(clip.file(STATES) is not None for clip in clips)
    )


def clip_parts(
    pair: ClipPair,
    facts: ClipFacts,
    options: ScoreOptions | None,
    offers: Offers,
    on_chunk: OnChunk | None = None,
    totals: Totals | None = None,
) -> Iterator[list[Score]]:
    """Yield the findings about a clip, then its scores, part by part; `on_chunk` is called with each part.

    The sums of `score_chunk` are added to `totals`.
    """
    yield [check_row(finding) for finding in facts.findings if facts.refused or not _is_read_later(finding)]
    if not pair.pred.streams and pair.pred.file(STATES) is None:
        where = pair.pred.root / pair.pred.name
        lies = f"holds {pair.pred.contents()}" if where.exists() else "does not exist"
        readable = f"; readable are {READABLE}" if pair.pred.unused else ""
        yield [clip_row("no_prediction", f"{where} {lies}{readable}")]
        return
    if facts.refused:
        yield [clip_row("refused", facts.refused)]
        return
    scored = _Clip(pair, facts, offers)
    if scored.start_problem is not None:
        yield [_without_floor(scored.start_problem)]
    pools = Pools()
    for chunk, problems, first in scored.parts():
        robot = scored.robot(first, len(chunk.true.rgb_fvhwc_u8))
        if on_chunk is not None:
            part = ScoredChunk(
                task=pair.task,
                index=pair.index,
                env=scored.env,
                chunk=chunk,
                first_frame_idx=first,
                robot_fvhw=None if robot is None else robot.shown_fvhw,
            )
            on_chunk(part)
        yield score_chunk(
            chunk,
            scored.env,
            options,
            problems=problems,
            first_frame_idx=first,
            pools=pools,
            robot=robot,
            totals=totals,
        )
    yield pooled_scores(pools)
    yield [check_row(finding) for finding in scored.log.findings(scored.views, len(facts.match.true), facts.findings)]


def _is_read_later(finding: Finding) -> bool:
    """Return whether a finding is about the first frame alone; all frames are counted while they are read."""
    return finding.check == "files" and not finding.refuses


class _Clip:
    """One pair of clips while it is read."""

    def __init__(self, pair: ClipPair, facts: ClipFacts, offers: Offers) -> None:
        self.facts, self.offers, self.log = facts, offers, ReadLog()
        self.views = [camera.spec.name for camera in facts.cameras.cameras]
        self.size = max(size[0] for size in facts.sizes_hw_px), max(size[1] for size in facts.sizes_hw_px)
        files = {TRUTH: pair.true.file(STATES), POLICY: pair.pred.file(STATES)}
        self.states = {subject: read_states(path).values for subject, path in files.items()}
        self.has_true_depth = any(modality == "depth" for modality, _ in facts.true.sources)
        self.env = EnvSpec(
            env_id="folders",
            cameras=tuple(camera.spec for camera in facts.cameras.cameras),
            image_hw_px=self.size,
            arms=arms_of(facts.cameras, self.states[TRUTH]),
            action_layout="none",
            control_hz=0.0,
        )
        self.start, self.start_problem = self._start(pair.true)

    def parts(self) -> Iterator[tuple[ClipChunk, dict[ImageKey, Measure], int]]:
        """Yield the clip as chunks, each with what could not be read and the index of its first frame."""
        match = self.facts.match
        opened = {
            (side.subject, modality): [self._open(side, modality, view, numbers) for view in self.views]
            for side, numbers in ((self.facts.true, match.true), (self.facts.pred, match.pred))
            for modality in MODALITIES
        }
        before: Read = {}
        for first in range(0, len(match.true), FRAMES_A_PART):
            count = min(FRAMES_A_PART, len(match.true) - first)
            new = {key: [self._take(view, key, count) for view in views] for key, views in opened.items()}
            read = {key: [old + fresh for old, fresh in zip(before[key], new[key], strict=True)] for key in before}
            chunk, problems = self._chunk(read or new, first)
            yield chunk, problems, first
            before = {key: [frames[-1:] for frames in views] for key, views in new.items()}

    def robot(self, first: int, num_frames: int) -> RobotMasks | None:
        """Return the pixels of a part that show the robot, or why there is no mask; None if no view has masks.

        Args:
            first: Index of the part's first new frame; the part begins with the frame before, except at the start.
            num_frames: Frames of the part.
        """
        masks = self.facts.true.masks
        if not masks:
            return None
        begin = first - (1 if first else 0)
        assert self.facts.true.frames is not None
        shift = self.facts.true.frames.first
        shown = np.zeros((num_frames, len(self.views), *self.size), bool)
        none = Measure(None, "bad_truth", "the view has no masks of the robot")
        problems = {(row, view): none for row in range(num_frames) for view in range(len(self.views))}
        for name, stream in masks.items():
            view = self.views.index(name)
            first_own = shift if stream.numbers else 0
            numbers = [number - shift + first_own for number in self.facts.match.true[begin : begin + num_frames]]
            height, width = self.facts.sizes_hw_px[view]
            for row, mask in enumerate(read_masks(stream, numbers)):
                problem = copy_frame(shown[row, view, :height, :width], mask)
                problems.pop((row, view))
                if problem is not None:
                    problems[row, view] = problem._replace(status="bad_truth", reason=f"robot mask: {problem.reason}")
        return RobotMasks(shown, problems)

    def _open(self, side: SideFacts, modality: Modality, view: str, numbers: Sequence[int]) -> View:
        source = side.sources.get((modality, view))
        if source is None:
            return View(None)
        size = self.facts.sizes_hw_px[self.views.index(view)]
        units = self.facts.units[1 if side.subject == TRUTH else 0]
        own = side.numbers(source, numbers)
        resize = _resize_to(size, modality) if self.facts.resizes(side.subject, modality) else None
        return open_view(source.stream, modality, own, units=units, resize=resize)

    def _take(self, view: View, key: Key, count: int) -> list[Frame]:
        subject, modality = key
        side = "ground-truth" if subject == TRUTH else "predicted"
        if modality == "depth" and (problem := self.facts.depth_problem(subject)) is not None and view.exists:
            return [problem] * count
        frames = view.take(count)
        return frames + [Measure(None, "missing_frame", f"there are no {side} {modality} frames")] * (
            count - len(frames)
        )

    def _chunk(self, read: Read, first: int) -> tuple[ClipChunk, dict[ImageKey, Measure]]:
        """Return one part as a chunk that starts with the last frame of the part before, and what could not be read."""
        num_frames = len(read[TRUTH, "rgb"][0])
        begin = first - (1 if first else 0)
        problems: dict[ImageKey, Measure] = {}
        true_numbers = self.facts.match.true[begin : begin + num_frames]
        pred_numbers = self.facts.match.pred[begin : begin + num_frames]
        true_depth = self._stack(read, (TRUTH, "depth"), {} if not self.has_true_depth else problems, begin)
        true_rgb = self._stack(read, (TRUTH, "rgb"), problems, begin)
        pred_rgb = self._stack(read, (POLICY, "rgb"), problems, begin)
        pred_depth = self._stack(read, (POLICY, "depth"), problems, begin) if self.offers.depth else None
        self._compare("rgb", true_rgb, pred_rgb, problems)
        if pred_depth is not None:
            self._compare("depth", true_depth, pred_depth, problems)
        assert self.facts.true.frames is not None
        first_true = self.facts.true.frames.first
        chunk = ClipChunk(
            chunk_idx=first // FRAMES_A_PART,
            step_idx=first,
            num_executed=0,
            frame_stride=1,
            view_hw_px=self.facts.sizes_hw_px if len(set(self.facts.sizes_hw_px)) > 1 else None,
            intrinsics_v33_px=np.stack([camera.intrinsics_33_px for camera in self.facts.cameras.cameras]),
            start=self.start,
            true=Frames(
                rgb_fvhwc_u8=true_rgb,
                depth_fvhw_m=true_depth,
                proprio_fd=self._true_states(true_numbers),
                T_base_cam_fv44=np.stack(
                    [camera.poses(true_numbers, first_true) for camera in self.facts.cameras.cameras], axis=1
                ),
            ),
            predicted=Prediction(
                rgb=pred_rgb,
                depth=pred_depth,
                proprio=self._pred_states(pred_numbers),
            ),
        )
        return chunk, problems

    def _compare(
        self, modality: Modality, true: np.ndarray, pred: np.ndarray, problems: dict[ImageKey, Measure]
    ) -> None:
        for view in range(len(self.views)):
            usable = [row for row in range(len(true)) if ImageKey(modality, row, view) not in problems]
            self.log.compare(modality, view, true[usable, view], pred[usable, view])

    def _stack(self, read: Read, key: Key, problems: dict[ImageKey, Measure], begin: int | None = None) -> np.ndarray:
        """Return the frames of all views, zero where one cannot be read or a view is smaller than the largest.

        Args:
            read: The frames.
            key: Which of them.
            problems: Gets what cannot be read.
            begin: Index in the clip of the first frame; None for a frame that is not compared.
        """
        modality, frames_of = key[1], read[key]
        shape = (len(frames_of[0]), len(self.views), *self.size, *((3,) if modality == "rgb" else ()))
        array = np.zeros(shape, np.uint8 if modality == "rgb" else np.float32)
        for view, frames in enumerate(frames_of):
            height, width = self.facts.sizes_hw_px[view]
            for frame_idx, frame in enumerate(frames):
                problem = copy_frame(array[frame_idx, view, :height, :width], frame)
                if problem is not None:
                    if begin is not None:
                        self.log.add_fault(key[0], modality, view, begin + frame_idx, problem)
                    problem = problem if key[0] == POLICY else problem._replace(status="bad_truth")
                    problems.setdefault(ImageKey(modality, frame_idx, view), problem)
        return array

    def _true_states(self, numbers: Sequence[int]) -> np.ndarray:
        """Return the states of frames, F,16; NaN where there are none."""
        known, frames = self.states[TRUTH], self.facts.true.frames
        states = np.full((len(numbers), PROPRIO_DIM), np.nan, np.float32)
        for row, number in enumerate(numbers):
            place = number - (0 if frames is None else frames.first)
            if known is not None and 0 <= place < len(known):
                states[row] = known[place]
        return states

    def _pred_states(self, numbers: Sequence[int]) -> np.ndarray | None:
        """Return the predicted states of frames as far as there are any; None if no clip has predicted states."""
        known, frames = self.states[POLICY], self.facts.pred.frames
        if known is None:
            return np.zeros((0, PROPRIO_DIM), np.float32) if self.offers.states else None
        first = 0 if frames is None else frames.first
        places = [number - first for number in numbers if 0 <= number - first < len(known)]
        return np.asarray(known[places], np.float32)

    def _start(self, true: ClipFiles) -> tuple[Frames, Measure | None]:
        """Return the last frame before the prediction; or no frame, and what is wrong with it."""
        none = _no_frame(len(self.views), self.size)
        if true.start is not None:
            opened = _start_folder(true.start, self.views, self.facts)
            states = read_states(true.start.file(STATES)).values
        elif (
            self.facts.match.true and self.facts.true.frames and self.facts.match.true[0] > self.facts.true.frames.first
        ):
            number = self.facts.match.true[0] - 1
            opened = {
                (modality, view): self._open(self.facts.true, modality, view, [number])
                for modality, view in self.facts.true.sources
            }
            states = self._true_states([number])
        else:
            return none, None
        wanted: list[Modality] = ["rgb", "depth"] if self.has_true_depth else ["rgb"]
        read: dict[Key, list[list[Frame]]] = {}
        for modality in wanted:
            missing = Measure(None, "missing_frame", f"the start frame has no {modality} of a view")
            read[TRUTH, modality] = [
                (opened[modality, view].take(1) if (modality, view) in opened else []) or [missing]
                for view in self.views
            ]
        problems: dict[ImageKey, Measure] = {}
        unused: dict[ImageKey, Measure] = {}  # a model without depth has a floor without the depth of the start
        arrays = {
            modality: self._stack(
                read, (TRUTH, modality), problems if modality == "rgb" or self.offers.depth else unused
            )
            for modality in wanted
        }
        if problems:
            return none, next(iter(problems.values()))
        proprio = np.full((1, PROPRIO_DIM), np.nan, np.float32)
        if states is not None and len(states):
            proprio[0] = states[0]
        depth = arrays.get("depth", np.zeros((1, len(self.views), *self.size), np.float32))
        poses = np.zeros((1, len(self.views), 4, 4))
        return Frames(rgb_fvhwc_u8=arrays["rgb"], depth_fvhw_m=depth, proprio_fd=proprio, T_base_cam_fv44=poses), None


def _start_folder(start: ClipFiles, views: Sequence[str], facts: ClipFacts) -> dict[tuple[Modality, str], View]:
    """Return the views of a `start` folder; the lowest number is the frame."""
    opened: dict[tuple[Modality, str], View] = {}
    for view, own in same_views(start, views).items():
        for modality in MODALITIES:
            stream = start.streams.get((modality, own))
            if stream is not None:
                size = facts.sizes_hw_px[views.index(view)]
                resize = _resize_to(size, modality) if facts.resizes(TRUTH, modality) else None
                number = stream.numbers[0] if stream.numbers else 0
                opened[modality, view] = open_view(stream, modality, [number], units=facts.units[1], resize=resize)
    return opened


def _resize_to(hw_px: tuple[int, int], modality: Modality) -> Callable[[np.ndarray], np.ndarray]:
    """Return what scales an image to a size; `folder_options.RESIZE_FILTERS` names the filters."""

    def resize(image: np.ndarray) -> np.ndarray:
        if image.shape[:2] == hw_px:
            return image
        smaller = hw_px[0] <= image.shape[0] and hw_px[1] <= image.shape[1]
        colours = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        method = cv2.INTER_NEAREST_EXACT if modality == "depth" else colours
        return np.asarray(cv2.resize(np.ascontiguousarray(image), (hw_px[1], hw_px[0]), interpolation=method))

    return resize


def _without_floor(problem: Measure) -> Score:
    row = clip_row(problem.status, f"the start frame: {problem.reason}", chunk_idx=0)
    return replace(row, subject="repeat_last_frame", view="static", metric="psnr_db/frame_mean")


def _no_frame(num_views: int, size: tuple[int, int]) -> Frames:
    return Frames(
        rgb_fvhwc_u8=np.zeros((0, num_views, *size, 3), np.uint8),
        depth_fvhw_m=np.zeros((0, num_views, *size), np.float32),
        proprio_fd=np.zeros((0, PROPRIO_DIM), np.float32),
        T_base_cam_fv44=np.zeros((0, num_views, 4, 4)),
    )
