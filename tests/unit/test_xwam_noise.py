"""Noise levels, seeds, and the walk from noise to data."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy import stats

from tests.doubles.known import known
from tests.doubles.networks import TINY, inputs_of, network_of, started
from xwam.config import DepthMode, Geometry
from xwam.flow.noise import (
    NoiseMode,
    ans_levels,
    draw_levels,
    draw_noise,
    shift,
    sigma_grid,
    timestep_grid,
)
from xwam.flow.sampler import Schedule, advance, begin, run
from xwam.flow.unipc import UniPCState, unipc_grid, unipc_step
from xwam.network.transformer import Denoised, TextContext

MANY = 20_000


def unshift(sigma: Any) -> Any:
    return (sigma / (5 - 4 * sigma)).numpy()


def test_ans_by_hand() -> None:
    levels = ans_levels(torch.tensor([0.4, 0.6]), torch.tensor([0.9, 0.5]), torch.tensor([0.5, 0.125]))
    assert levels.clean_action_B.tolist() == [True, False]
    assert levels.sigma_action_B.tolist() == pytest.approx([0.0, 5 * 0.5 / 3])
    assert levels.sigma_video_B.tolist() == pytest.approx([shift(0.5), shift(0.5 + 0.5 * 0.125 ** (2 / 3))])


def test_ans_never_has_less_noise_on_video_than_on_actions() -> None:
    levels = draw_levels(MANY, "ans", generator=torch.Generator().manual_seed(0))
    assert (levels.sigma_video_B >= levels.sigma_action_B).all()
    assert (levels.sigma_action_B[levels.clean_action_B] == 0).all()
    assert levels.clean_action_B.float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_ans_marginals_match_closed_form() -> None:
    levels = draw_levels(MANY, "ans", generator=torch.Generator().manual_seed(1))
    clean, video, action = levels.clean_action_B, levels.sigma_video_B, levels.sigma_action_B
    assert stats.kstest(unshift(video[clean]), "uniform").pvalue > 0.01
    assert stats.kstest(unshift(action[~clean]), "uniform").pvalue > 0.01
    place = (unshift(video[~clean]) - unshift(action[~clean])) / (1 - unshift(action[~clean]))
    assert stats.kstest(place, "beta", args=(1.5, 1)).pvalue > 0.01
    # P(t_video < x) = int_0^x ((x - a) / (1 - a))^1.5 da for noisy actions
    grid = np.linspace(0.05, 0.95, 10)
    starts = (np.arange(4000) + 0.5) / 4000
    expected = [np.mean(np.where(starts < x, (np.clip(x - starts, 0, 1) / (1 - starts)) ** 1.5, 0)) for x in grid]
    np.testing.assert_allclose([np.mean(unshift(video[~clean]) < x) for x in grid], expected, atol=0.015)


def test_rivals_of_ans() -> None:
    generator = torch.Generator().manual_seed(2)
    decoupled, sync = (
        draw_levels(MANY, "decoupled", generator=generator),
        draw_levels(MANY, "sync", generator=generator),
    )
    assert torch.equal(sync.sigma_video_B, sync.sigma_action_B)
    assert abs(np.corrcoef(decoupled.sigma_video_B, decoupled.sigma_action_B)[0, 1]) < 0.03
    for sigma in (*decoupled[:2], sync.sigma_video_B):
        assert stats.kstest(unshift(sigma), "uniform").pvalue > 0.01


def test_beta_sampling_is_the_release_s() -> None:
    """One level for video and actions, from Beta(1.5, 1) before the shift."""
    levels = draw_levels(MANY, "sync-beta", generator=torch.Generator().manual_seed(4))
    assert torch.equal(levels.sigma_video_B, levels.sigma_action_B)
    assert not levels.clean_action_B.any()
    drawn = unshift(levels.sigma_video_B)
    assert stats.kstest(drawn, "beta", args=(1.5, 1)).pvalue > 0.01
    assert drawn.mean() == pytest.approx(0.6, abs=4 * stats.beta.std(1.5, 1) / MANY**0.5)


@pytest.mark.parametrize("mode", ["ans", "decoupled", "sync", "sync-beta"])
def test_some_samples_stand_where_inference_begins(mode: NoiseMode) -> None:
    draws = {"clean_frac": 0.25, "start_frac": 0.25}
    levels = draw_levels(MANY, mode, **draws, generator=torch.Generator().manual_seed(3))
    plain = draw_levels(MANY, mode, clean_frac=0.25, generator=torch.Generator().manual_seed(3))
    first = (levels.sigma_video_B == sigma_grid(1)[0].astype(np.float32)) & (levels.sigma_action_B > 0.9997)
    assert first.float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(levels.clean_action_B, plain.clean_action_B)
    assert not (levels.clean_action_B & first).any()
    assert all(torch.equal(a[~first], b[~first]) for a, b in zip(levels, plain, strict=True))


def test_a_seed_fixes_the_noise() -> None:
    one, two = draw_noise(7, (2, 3), (4,)), draw_noise(7, (2, 3), (4,))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_grid_ends_clean_and_starts_at_999() -> None:
    assert timestep_grid(50)[0] == 999
    assert sigma_grid(10)[-1] == 0
    with pytest.raises(ValueError, match="at least one step, got 0"):
        sigma_grid(0)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 10, 25])
def test_unipc_against_diffusers(num_steps: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0, num_train_timesteps=1000
    )
    scheduler.set_timesteps(sigmas=np.linspace(0.999, 0, num_steps + 1)[:-1])  # it shifts them itself
    grid = unipc_grid(num_steps)
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    state = UniPCState(x=x)
    for index, timestep in enumerate(scheduler.timesteps):
        velocity = torch.tanh(state.x * 1.3 + index)
        x = scheduler.step(torch.tanh(x * 1.3 + index), timestep, x).prev_sample
        state = unipc_step(grid, state, velocity)
        torch.testing.assert_close(state.x, x, atol=2e-5, rtol=1e-4)


def test_unipc_is_exact_when_the_data_is_one_point() -> None:
    point, x = torch.tensor([0.3, -1.2]), torch.tensor([1.0, 2.0])
    grid, state = unipc_grid(6), UniPCState(x=x)
    for sigma in grid.sigmas[:-1]:
        state = unipc_step(grid, state, (state.x - point) / sigma)
    torch.testing.assert_close(state.x, point)


def test_requests_at_different_steps_share_a_pass() -> None:
    network = network_of(replace(TINY))
    first, second = started(network, 1), started(network, 2, steps=(5, 2))
    (first_on,) = advance(network, [first])
    (first_on,) = advance(network, [first_on])
    together = advance(network, [first_on, second], depth=True)
    for got, alone in zip(together, (first_on, second), strict=True):
        (expected,) = advance(network, [alone], depth=True)
        assert got.video.step_idx == expected.video.step_idx == alone.video.step_idx + 1
        for name in ("video", "action", "proprio"):
            torch.testing.assert_close(getattr(got, name).x, getattr(expected, name).x, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(got.depth_BCTVHW, expected.depth_BCTVHW, atol=1e-4, rtol=1e-4)


def test_the_loop_changes_nothing_in_place_and_stops_early() -> None:
    network = network_of()
    state = started(network)
    copies = [state.video.x.clone(), state.action.x.clone()]
    early = run(network, state, stop_after_actions=True, depth=False)
    assert early.actions_clean
    assert not early.done
    assert early.depth_BCTVHW is None
    late = run(network, early)
    assert late.done
    assert torch.equal(late.action.x, early.action.x)
    assert torch.equal(late.video.x, run(network, state).video.x)
    assert torch.equal(late.video.x[:, :, 0], state.seen_latent_BCVHW)
    assert torch.equal(late.proprio.x[:, 0], state.seen_proprio_BS)
    assert torch.equal(state.video.x, copies[0])
    assert torch.equal(state.action.x, copies[1])


def test_guidance_of_one_is_the_conditional_pass() -> None:
    network = network_of()
    plain, guided = run(network, started(network)), run(network, started(network, guidance=1.0))
    torch.testing.assert_close(plain.action.x, guided.action.x, atol=1e-4, rtol=1e-4)
    strong = run(network, started(network, guidance=3.0))
    assert not torch.allclose(plain.action.x, strong.action.x, atol=1e-3)


class Says:
    """A network whose every velocity is the one number of its prompt."""

    def geometry(self, video: Any, num_actions: Any, num_proprios: Any) -> Any:
        return Geometry(num_frames=2, num_views=3, rows=2, cols=3, num_actions=num_actions, num_proprios=num_proprios)

    def timesteps(self, *_: Any) -> Any:
        return None

    def __call__(self, video: Any, action: Any, proprio: Any, times: Any, text: Any, *, depth: Any) -> Any:
        def fill(tensor: Any) -> Any:
            return text.embedded_BND.reshape(-1, *[1] * (tensor.dim() - 1)).expand(tensor.shape)

        return Denoised(fill(video), fill(action), fill(proprio), fill(video) if depth else None)


def says(number: Any) -> Any:
    return TextContext(embedded_BND=torch.full((1, 1, 1), number), bias_BN=None, main=())


def at_zero(guidance: Any, *, words: Any = 3.0, nothing: Any = 1.0) -> Any:
    video, action, proprio, _ = inputs_of(batch=1)
    return begin(
        Schedule(num_video_steps=1, num_action_steps=1, guidance=guidance),
        noise_video_BCTVHW=video * 0,
        noise_action_BKA=action * 0,
        noise_proprio_BPS=proprio * 0,
        seen_latent_BCVHW=video[:, :, 0] * 0,
        seen_proprio_BS=proprio[:, 0] * 0,
        text=says(words),
        null_text=None if nothing is None else says(nothing),
    )


def test_guidance_by_hand() -> None:
    sigma = 5 * 0.999 / (1 + 4 * 0.999)  # one step leads from there to 0, so x = 0 - sigma * velocity
    (done,) = advance(cast(Any, Says()), [at_zero(2.0)], depth=True)
    for x in (done.video.x[:, :, 1:], done.action.x, done.proprio.x[:, 1:]):
        torch.testing.assert_close(x, torch.full_like(x, -sigma * (1 + 2 * (3 - 1))))
    assert (known(done.depth_BCTVHW) == 3).all()


def test_requests_of_different_guidance_share_a_pass() -> None:
    sigma = 5 * 0.999 / (1 + 4 * 0.999)
    states = [at_zero(0.0), at_zero(2.0), at_zero(0.0, nothing=None), at_zero(3.0, words=-1.0)]
    got = [-float(state.action.x.mean()) / sigma for state in advance(cast(Any, Says()), states)]
    assert got == pytest.approx([3.0, 1 + 2 * 2, 3.0, 1 - 3 * 2], rel=1e-5)


def test_a_mixed_batch_equals_single_requests() -> None:
    network = network_of()
    states = [started(network, 1), started(network, 2, guidance=2.0)]
    states[0] = replace(states[0], null_text=states[1].null_text)
    for got, alone in zip(advance(network, states), states, strict=True):
        (expected,) = advance(network, [alone])
        torch.testing.assert_close(got.action.x, expected.action.x, atol=1e-4, rtol=1e-4)


def test_states_that_cannot_share_a_pass_are_named() -> None:
    network = network_of()
    state = started(network)
    done = run(network, state)
    with pytest.raises(ValueError, match="State 1 of 2 is done after 6 passes; leave it out"):
        advance(network, [state, done])
    smaller = replace(state, action=UniPCState(x=state.action.x[:, :5]))
    with pytest.raises(ValueError, match=r"State 1 of 2 has actions of \(5, 14\), state 0 of \(7, 14\)"):
        advance(network, [state, smaller])
    with pytest.raises(ValueError, match="at least one state, got none"):
        advance(network, [])


@pytest.mark.parametrize("mode", ["sequence", "channel"])
def test_rivals_denoise_depth_beside_the_video(mode: DepthMode) -> None:
    config = replace(TINY, depth=mode)
    network = network_of(config)
    video, action, proprio, text = inputs_of(batch=1, channels=config.state_channels)
    state = begin(
        Schedule(num_video_steps=3, num_action_steps=2),
        noise_video_BCTVHW=video,
        noise_action_BKA=action,
        noise_proprio_BPS=proprio,
        seen_latent_BCVHW=video[:, :4, 0] * 0.5,
        seen_proprio_BS=proprio[:, 0],
        text=network.encode_text(text),
    )
    done = run(network, state)
    assert torch.equal(done.video.x[:, :4, 0], state.seen_latent_BCVHW)
    assert not torch.equal(done.video.x[:, 4:, 0], video[:, 4:, 0])


def test_schedules_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"1 to 4 steps .* got 5"):
        Schedule(num_video_steps=4, num_action_steps=5)
    network = network_of()
    state = started(network)
    with pytest.raises(ValueError, match="needs the context of the empty prompt"):
        begin(
            Schedule(num_video_steps=2, num_action_steps=1, guidance=2.0),
            noise_video_BCTVHW=state.video.x,
            noise_action_BKA=state.action.x,
            noise_proprio_BPS=state.proprio.x,
            seen_latent_BCVHW=state.seen_latent_BCVHW,
            seen_proprio_BS=state.seen_proprio_BS,
            text=state.text,
        )
