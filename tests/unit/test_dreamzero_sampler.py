"""DreamZero's inference: a block denoised with and without the cache, guidance, skipped passes."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.dreamzero.network import DreamZeroNetwork, Flows
from baselines.dreamzero.policy import STATIC_SCHEDULES
from baselines.dreamzero.sampler import BlockSchedule, BlockState, Context, advance, begin, flows_of, run, timesteps_of
from tests.doubles.dreamzero import cached, clip_of, flows_without_cache, network_of, same, text_of
from xwam.flow.step_cache import History, StepCache
from xwam.flow.unipc import UniPCState, unipc_grid, unipc_step


def state_of(network: DreamZeroNetwork, schedule: BlockSchedule, **named: Any) -> BlockState:
    """Return block 1 of a window before its first pass."""
    clip, text, null = clip_of(2), text_of(network), text_of(network, seed=6)
    frames = clip["clean_BCTVHW"][:, :, :3]
    return begin(
        schedule,
        noise_video_BCTVHW=clip["noisy_BCTVHW"][:, :, 3:],
        noise_action_BKA=clip["action_BKA"][:, 3:],
        proprio_BNS=clip["proprio_BNS"][:, 1:],
        seen=Context(cached(network, frames, text), text),
        blind=Context(cached(network, frames, null), null) if schedule.guidance else None,
        **named,
    )


def schedule_of(steps: int, **settings: Any) -> BlockSchedule:
    return BlockSchedule(num_video_steps=steps, num_action_steps=settings.pop("num_action_steps", steps), **settings)


# ---- with and without the cache


def test_denoising_with_the_cache_equals_denoising_without() -> None:
    network, clip = network_of(), clip_of(2)
    text, frames = text_of(network), clip["clean_BCTVHW"][:, :, :3]
    done = run(network, state_of(network, schedule_of(4)))
    grid = unipc_grid(4)
    video, action = UniPCState(x=clip["noisy_BCTVHW"][:, :, 3:]), UniPCState(x=clip["action_BKA"][:, 3:])
    for step in range(4):
        t_B = torch.tensor([float(grid.timesteps[step])])
        proprio = clip["proprio_BNS"][:, 1:]
        flows = flows_without_cache(network, frames, video.x, action.x, proprio, t_B, t_B, text)
        video, action = unipc_step(grid, video, flows.video_BCTVHW), unipc_step(grid, action, flows.action_BKA)
    same([done.video.x, done.action.x], [video.x, action.x], atol=2e-3)
    assert done.done
    assert done.actions_clean


def test_passes_only_read_the_cache() -> None:
    network = network_of()
    state = state_of(network, schedule_of(2))
    before = [layer.value.clone() for layer in state.seen.cache.layers]
    run(network, state)
    same([layer.value for layer in state.seen.cache.layers], before, atol=0)


# ---- guidance


def test_guidance_moves_the_video_and_never_the_actions() -> None:
    network = network_of()
    plain, guided = (state_of(network, schedule_of(3, guidance=weight)) for weight in (0.0, 5.0))
    assert guided.blind is not None
    (seen,), (blind,) = flows_of(network, [plain]), flows_of(network, [replace(plain, seen=guided.blind)])
    (mixed,) = flows_of(network, [guided])
    same([mixed.video_BCTVHW], [blind.video_BCTVHW + 5 * (seen.video_BCTVHW - blind.video_BCTVHW)], atol=1e-3)
    assert torch.equal(mixed.action_BKA, seen.action_BKA)
    with pytest.raises(ValueError, match=r"Guidance 5\.0 needs the cache of the empty prompt"):
        begin(
            schedule_of(3, guidance=5.0),
            noise_video_BCTVHW=plain.video.x,
            noise_action_BKA=plain.action.x,
            proprio_BNS=plain.proprio_BNS,
            seen=plain.seen,
        )


# ---- actions that are clean first, or known


def test_actions_are_clean_first_and_stand_at_zero_afterwards() -> None:
    network = network_of()
    state = run(network, state_of(network, schedule_of(4, num_action_steps=2)), stop_after_actions=True)
    assert (state.action.step_idx, state.video.step_idx, state.done) == (2, 2, False)
    assert timesteps_of(state) == (float(unipc_grid(4).timesteps[2]), 0.0)
    done = run(network, state)
    assert torch.equal(done.action.x, state.action.x)
    with pytest.raises(ValueError, match=r"Actions need 1 to 4 steps \(those of the video\), got 5"):
        schedule_of(4, num_action_steps=5)


def test_given_actions_stand_at_zero_in_every_pass() -> None:
    network, given = network_of(), torch.ones(1, 3, 14)
    state = state_of(network, schedule_of(3), given_action_BKA=given)
    assert state.actions_clean
    assert [timesteps_of(each)[1] for each in (state, *advance(network, [state]))] == [0.0, 0.0]
    done, other = run(network, state), run(network, state_of(network, schedule_of(3), given_action_BKA=-given))
    assert torch.equal(done.action.x, given)
    assert not torch.allclose(done.video.x, other.video.x)


# ---- skipped passes


class Turning(DreamZeroNetwork):
    """A network whose video velocity turns by a given angle in each pass, and which counts its passes."""

    def __init__(self, cosines: list[float]) -> None:
        torch.nn.Module.__init__(self)
        self.angles_rad = [0.0]
        for cosine in cosines:
            self.angles_rad.append(self.angles_rad[-1] + float(torch.tensor(cosine).acos()))
        self.steps: list[float] = []

    def denoise(self, noisy_BCTVHW: Tensor, action_BKA: Tensor, *rest: Any) -> Flows:  # type: ignore[override]
        angle = torch.tensor(self.angles_rad[len(self.steps)])
        self.steps.append(float(rest[1]))
        flow = torch.zeros_like(noisy_BCTVHW)
        flow.view(-1)[:2] = torch.stack([angle.cos(), angle.sin()])
        return Flows(flow, torch.full_like(action_BKA, float(len(self.steps))))


def steps_that_run(cosines: list[float], cache: StepCache | None, num_steps: int = 16) -> list[int]:
    network = Turning(cosines)
    state = state_of(network_of(), schedule_of(num_steps, step_cache=cache))
    done = run(network, state)
    assert done.done
    timesteps = unipc_grid(num_steps).timesteps
    return [timesteps.index(int(t)) for t in network.steps]


@pytest.mark.parametrize(
    ("cosines", "expected"),
    [
        ([0.5] * 15, list(range(16))),  # it turns: all run
        ([0.96] * 15, [0, 1, 6, 11]),  # nearly parallel: 4 are skipped, then 1 runs
        ([0.94] * 15, [0, 1, 4, 7, 10, 13]),  # a little less: 2 are skipped
        ([0.5, 0.96, 0.5, 0.94] + [0.5] * 11, [0, 1, 2, 7, 8, 11, 12, 13, 14, 15]),
        ([0.95, 0.93] + [0.5] * 13, [0, 1, 4, *range(5, 16)]),
    ],
)
def test_the_cosine_of_the_video_decides_what_is_skipped(cosines: list[float], expected: list[int]) -> None:
    if cosines[0] == 0.95:  # 0.95 itself is not more than 0.95, and 0.93 not more than 0.93
        cosines = [0.9499, 0.9299, *cosines[2:]]
    assert steps_that_run(cosines, StepCache()) == expected


@pytest.mark.parametrize("count", [5, 6, 7, 8])
def test_static_schedules_run_the_steps_that_they_name(count: int) -> None:
    cache = StepCache(run_steps=STATIC_SCHEDULES[count])
    ran = steps_that_run([0.5] * 15, cache)
    assert ran == list(STATIC_SCHEDULES[count])
    assert len(ran) == count


def test_without_step_caching_all_passes_run() -> None:
    assert steps_that_run([1.0] * 15, None) == list(range(16))


def test_a_skipped_pass_has_the_velocities_of_the_last_one() -> None:
    network = Turning([1.0] * 15)
    state = state_of(network_of(), schedule_of(8, step_cache=StepCache()))
    (second,) = advance(network, advance(network, [state]))
    assert len(network.steps) == 2
    assert second.history.num_runs == 2
    grid, expected = unipc_grid(8), state.action
    for velocity in (1.0, 2.0, 2.0, 2.0, 2.0, 2.0):  # four passes are skipped behind the second
        expected = unipc_step(grid, expected, torch.full_like(expected.x, velocity))
    assert second.action.step_idx == 6
    assert torch.equal(second.action.x, expected.x)


def test_a_history_knows_the_last_two_passes_that_ran() -> None:
    first, second = (Flows(torch.full((1, 1), value), torch.zeros(1)) for value in (1.0, 2.0))
    history = History[Flows]().after_run(first).after_run(second)
    assert (history.num_runs, history.last, history.previous) == (2, second, first)
