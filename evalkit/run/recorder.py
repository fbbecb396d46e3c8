"""Listeners that record an episode: the clip for the scorer, the video for viewing.

In: executed chunks. Out: files in the run folder, whole or not at all.
Read next: `evalkit/store/clips.py`, `evalkit/store/video.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import Episode, Observation, Prediction
from evalkit.run.episode import ExecutedChunk, Listener
from evalkit.store.clips import ClipChunk, ClipHeader, ClipWriter, Frames
from evalkit.store.video import VideoWriter, video_frame

MAX_WAITING_CHUNKS = 4
"""Chunks that wait to be compressed; bounds the memory if the disk's thread is slower than the robot."""


class ClipRecorder:
    """Writes predictions and ground truth as one HDF5 file.

    A thread compresses each chunk while the episode goes on; the file appears at its end. The next call after an error
    of the thread raises it.
    """

    def __init__(
        self, path: Path, episode: Episode, env_spec: EnvSpec, policy_spec: PolicySpec, *, plan_sha256: str
    ) -> None:
        self._path, self._plan_sha256 = path, plan_sha256
        self._episode, self._env_spec, self._policy_spec = episode, env_spec, policy_spec
        self._writer = ClipWriter()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clip")
        self._waiting: deque[Future[None]] = deque()

    def on_chunk(self, chunk: ExecutedChunk) -> None:
        """Give one chunk to the thread; wait if it is too far behind."""
        self._wait_until_left(MAX_WAITING_CHUNKS - 1)
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._compress, chunk))

    def on_end(self, outcome: str) -> None:
        """Write the clip."""
        self._wait_until_left(0)
        self._thread.shutdown()
        header = ClipHeader(
            episode=self._episode,
            env_spec=self._env_spec,
            policy_spec=self._policy_spec.to_json(),
            outcome=outcome,
            plan_sha256=self._plan_sha256,
        )
        self._writer.save(self._path, header)

    def abandon(self) -> None:
        """Forget the chunks; no file was written yet."""
        self._thread.shutdown(cancel_futures=True)
        self._writer.close()

    def _compress(self, chunk: ExecutedChunk) -> None:
        observation = chunk.request.observation
        self._writer.add(
            ClipChunk(
                chunk_idx=chunk.request.chunk_idx,
                step_idx=chunk.request.step_idx,
                num_executed=chunk.outcome.num_executed,
                frame_stride=self._policy_spec.frame_stride,
                intrinsics_v33_px=observation.intrinsics,
                start=Frames.stack([observation], like=observation),
                true=Frames.stack(_frames(chunk, self._policy_spec.frame_stride), like=observation),
                predicted=chunk.predicted,
                actions_nd=chunk.actions,
            )
        )

    def _wait_until_left(self, count: int) -> None:
        """Wait until at most `count` chunks are left to compress."""
        while len(self._waiting) > count:
            self._waiting.popleft().result()


class VideoRecorder:
    """Encodes a video frame for every observed frame, with its prediction below it."""

    def __init__(self, path: Path, episode: Episode, env_spec: EnvSpec, policy_spec: PolicySpec) -> None:
        self._path, self._policy_spec, self._cameras = path, policy_spec, env_spec.cameras
        marks = "".join(f" {mark}" for mark in episode.protocol.split("+")[1:])  # for example placeholder-art
        self._caption = f"{env_spec.env_id} {episode.index:04d} seed {episode.seed} {policy_spec.policy_id}{marks}"
        self._last: np.ndarray | None = None
        self._writer = VideoWriter(fps=env_spec.control_hz / policy_spec.frame_stride)

    def on_chunk(self, chunk: ExecutedChunk) -> None:
        """Encode the frames of one chunk; before the first chunk also the first observation."""
        if chunk.request.chunk_idx == 0:
            self._add(chunk.request.observation, 0, None, 0)
        stride = self._policy_spec.frame_stride
        for offset, frame in chunk.outcome.frames:
            on_grid = offset % stride == 0
            predicted = chunk.predicted if on_grid else None
            self._add(frame, chunk.request.step_idx + offset, predicted, offset // stride - 1)

    def on_end(self, outcome: str) -> None:
        """Repeat the last frame for one second with a green (success) or red (failure) border; write the video."""
        if self._last is not None:
            colour = (0, 200, 0) if outcome == "success" else (220, 0, 0)
            for _ in range(round(self._writer.fps)):
                self._writer.add(cv2.rectangle(self._last, (0, 0), self._last.shape[1::-1], colour, thickness=6))
        self._writer.save(self._path)

    def abandon(self) -> None:
        """Free the encoder."""
        self._writer.close()

    def _add(self, observed: Observation, step_idx: int, predicted: Prediction | None, frame_idx: int) -> None:
        shown = predicted if predicted is not None and frame_idx < len(predicted.rgb) else None
        self._last = video_frame(
            observed.rgb,
            observed.depth,
            cameras=self._cameras,
            predicted_rgb_vhwc_u8=shown.rgb[frame_idx] if shown else None,
            predicted_depth_vhw_m=shown.depth[frame_idx] if shown and shown.depth is not None else None,
            with_prediction="rgb" in self._policy_spec.predicts,
            caption=f"{self._caption} step {step_idx}",
        )
        self._writer.add(self._last)


class OptionalListener:
    """A listener that never ends an episode: after its first error it is abandoned, and `problem` holds the error.

    Args:
        make: Makes the listener.
    """

    def __init__(self, make: Callable[[], Listener]) -> None:
        self.problem: Exception | None = None
        self._listener: Listener | None = None
        with self._caught():
            self._listener = make()

    def on_chunk(self, chunk: ExecutedChunk) -> None:
        """Pass one executed chunk on."""
        if self._listener is not None:
            with self._caught():
                self._listener.on_chunk(chunk)

    def on_end(self, outcome: str) -> None:
        """Pass the outcome on."""
        if self._listener is not None:
            with self._caught():
                self._listener.on_end(outcome)

    def abandon(self) -> None:
        """Abandon the listener; an error of it is of no further interest."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(Exception):
                listener.abandon()

    @contextmanager
    def _caught(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.problem = error
            self.abandon()


def _frames(chunk: ExecutedChunk, stride: int) -> list[Observation]:
    return [frame for offset, frame in chunk.outcome.frames if offset % stride == 0]
