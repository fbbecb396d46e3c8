"""A small policy that answers by passes, with real arithmetic: every pass multiplies `width` rows by one matrix.

In: requests. Out: actions after 2 passes, predictions after 5; faults and waiting times on demand.
Read next: `evalkit/contracts/stepped.py`; `evalkit/serve/local.py`, which hosts it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from evalkit.contracts.spec import OSC_DELTA_BASE, EnvSpec, PolicySpec
from evalkit.contracts.stepped import Phase
from evalkit.contracts.types import ACTION_DIM, PROPRIO_DIM, Observation, PolicyReply, PolicyRequest, Prediction

DIM, CHUNK_LEN, NUM_ACTION_PASSES, NUM_PASSES = 64, 8, 2, 5

SPEC = PolicySpec(
    policy_id="small-steps",
    action_layouts=(OSC_DELTA_BASE,),
    chunk_len=CHUNK_LEN,
    execute_steps=CHUNK_LEN,
    predicts=("rgb", "proprio"),
    num_future_frames=2,
    frame_stride=4,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SmallJob:
    """A request under way: one row of numbers and how many passes it has had."""

    request: PolicyRequest
    row_D: np.ndarray
    passes: int = 0
    actions: np.ndarray | None = None

    @property
    def phase(self) -> Phase:
        if self.passes < NUM_ACTION_PASSES:
            return Phase.ACTIONS
        return Phase.VIDEO if self.passes_left else Phase.DONE

    @property
    def passes_left(self) -> int:
        return (NUM_PASSES if self.request.num_predicted_frames else NUM_ACTION_PASSES) - self.passes

    @property
    def group(self) -> int:
        return len(self.request.observation.instruction)


@dataclass(eq=False)
class SmallSteps:
    """The policy. A reply depends on the request alone.

    Attributes:
        width: Rows of a pass.
        pass_s: Seconds that a pass takes longer.
        finish_s: Seconds that decoding takes longer.
        fault: Called with the jobs of a pass before it is computed.
        passes: Noise seeds of the jobs of each pass so far, with their phases.
    """

    width: int = 4
    pass_s: float = 0.0
    finish_s: float = 0.0
    fault: Callable[[Sequence[SmallJob]], None] = lambda jobs: None
    passes: list[list[tuple[int, Phase]]] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    resets: list[str] = field(default_factory=list)
    spec: PolicySpec = SPEC

    def __post_init__(self) -> None:
        self.matrix_DD = np.random.default_rng(0).normal(size=(DIM, DIM)).astype(np.float32) / 8
        self.thread: int | None = None

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        self.resets.append(episode_id)

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        return [self._infer(request) for request in requests]

    def _infer(self, request: PolicyRequest) -> PolicyReply:
        job = self.prepare(request)
        while job.phase is Phase.ACTIONS:
            (job,) = self.step([job])
        clean = job

        def prediction() -> Prediction:
            job = clean
            while job.phase is not Phase.DONE:
                (job,) = self.step([job])
            return self.finish(job)

        return replace(self.actions(clean), prediction=prediction if request.num_predicted_frames else None)

    def prepare(self, request: PolicyRequest) -> SmallJob:
        row = np.random.default_rng(request.noise_seed).normal(size=DIM).astype(np.float32)
        row[:PROPRIO_DIM] += request.observation.proprio
        return SmallJob(request=request, row_D=row)

    def step(self, jobs: Sequence[SmallJob]) -> list[SmallJob]:
        assert 1 <= len(jobs) <= self.width, len(jobs)
        assert len({job.group for job in jobs}) == 1
        assert all(job.phase is not Phase.DONE for job in jobs)
        self.passes.append([(job.request.noise_seed, job.phase) for job in jobs])
        self.thread = threading.get_ident()
        time.sleep(self.pass_s)
        self.fault(jobs)
        rows = [job.row_D for job in jobs]
        after_WD = np.tanh(np.stack([*rows, *[rows[0]] * (self.width - len(rows))]) @ self.matrix_DD)
        return [self._after(job, row_D) for job, row_D in zip(jobs, after_WD, strict=False)]

    def _after(self, job: SmallJob, row_D: np.ndarray) -> SmallJob:
        actions = job.actions
        if job.passes + 1 == NUM_ACTION_PASSES:
            actions = np.zeros((CHUNK_LEN, ACTION_DIM), np.float32)
            actions[:, :3] = row_D[: 3 * CHUNK_LEN].reshape(CHUNK_LEN, 3)
        return replace(job, row_D=row_D.copy(), passes=job.passes + 1, actions=actions)

    def actions(self, job: SmallJob) -> PolicyReply:
        assert job.actions is not None
        return PolicyReply(actions=job.actions, timings_ms={"own": 1.0})

    def finish(self, job: SmallJob) -> Prediction:
        assert job.phase is Phase.DONE
        assert threading.get_ident() != self.thread or self.finish_s == 0
        time.sleep(self.finish_s)
        self.finished.append(job.request.noise_seed)
        num_frames = job.request.num_predicted_frames
        levels = (np.abs(job.row_D[:num_frames]) * 255).astype(np.uint8)
        rgb = np.broadcast_to(levels[:, None, None, None, None], (num_frames, 1, 8, 8, 3)).copy()
        return Prediction(rgb=rgb, depth=None, proprio=np.tile(job.row_D[:PROPRIO_DIM], (num_frames, 1)))


def small_request(
    noise_seed: int, *, frames: int = 2, instruction: str = "push", episode_id: str = ""
) -> PolicyRequest:
    """Return a request without images; its group is the length of the instruction."""
    observation = Observation(
        rgb=np.zeros((1, 8, 8, 3), np.uint8),
        depth=np.zeros((1, 8, 8), np.float32),
        intrinsics=np.eye(3)[None],
        T_base_cam=np.eye(4)[None],
        proprio=np.full(PROPRIO_DIM, 0.1, np.float32),
        instruction=instruction,
    )
    return PolicyRequest(
        episode_id=episode_id or f"episode-{noise_seed}",
        chunk_idx=0,
        step_idx=0,
        noise_seed=noise_seed,
        observation=observation,
        num_predicted_frames=frames,
    )
