"""UWM: which group moves in which use, levels, losses, sizes, a checkpoint's way, both policies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.uwm.config import UwmConfig, count_uwm
from baselines.uwm.levels import PURE_NOISE_SIGMA, UwmLevels, draw_uwm_levels
from baselines.uwm.models import MODELS, uwm_network
from baselines.uwm.network import UwmNetwork
from baselines.uwm.objective import UwmObjective, uwm_losses
from baselines.uwm.policy import UwmPlugin, UwmPolicyConfig
from baselines.uwm.recipes import RECIPES
from baselines.uwm.sampling import Groups, advance, begin, run, timestep_of
from baselines.uwm.uses import USES, Does
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.types import PolicyRequest
from evalkit.dataset.layout import scan
from tests.doubles.known import known
from tests.doubles.uwm import ACTIONS, FRAMES, STATES, TINY, VIEWS, groups_of, network_of, started, text_rows
from tests.doubles.xwam import request_of
from xwam.checkpoints.bundle import load_bundle, save_checkpoint
from xwam.checkpoints.fresh import fresh_bundle
from xwam.config import NANO, NUM_TRAIN_TIMESTEPS, count_parameters
from xwam.flow import sampler
from xwam.flow.losses import Batch, Noise
from xwam.flow.noise import draw_levels
from xwam.flow.unipc import unipc_grid
from xwam.policy import XwamPlugin, XwamPolicyConfig

PLUGIN = UwmPlugin()
QUICK = UwmPolicyConfig(num_steps=2)


# ---- the five uses

TABLE = {  # facts: what the actions do, what the next observation does
    "policy": ("denoised", "held as noise"),
    "video": ("held as noise", "denoised"),
    "forward_dynamics": ("given", "denoised"),
    "inverse_dynamics": ("denoised", "given"),
    "joint": ("denoised", "denoised"),
}


def test_the_five_uses_are_those_of_the_paper() -> None:
    assert {name: (use.action.value, use.observation.value) for name, use in USES.items()} == TABLE


@pytest.mark.parametrize("use", USES)
def test_only_denoised_groups_move(use: str) -> None:
    network = network_of()
    first = started(network, use)
    last = run(network, first)
    noise, given = groups_of(1), groups_of(2)
    futures = {"video_BCTVHW": slice(1, None), "proprio_BPS": slice(1, None), "action_BKA": slice(None)}
    for name, does in zip(Groups._fields, first.does, strict=True):
        dim = 2 if name == "video_BCTVHW" else 1
        after, drawn, told = (
            getattr(groups, name).movedim(dim, 0)[futures[name]] for groups in (last.values, noise, given)
        )
        assert torch.equal(after, told) == (does is Does.GIVEN)
        assert torch.equal(after, drawn) == (does is Does.NOISE)


@pytest.mark.parametrize("use", USES)
def test_the_present_stays_clean(use: str) -> None:
    network, present = network_of(), groups_of(3)
    values = run(network, started(network, use)).values
    assert torch.equal(values.video_BCTVHW[:, :, 0], present.video_BCTVHW[:, :, 0])
    assert torch.equal(values.proprio_BPS[:, 0], present.proprio_BPS[:, 0])


@pytest.mark.parametrize("use", USES)
def test_the_network_reads_the_levels_of_the_use(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, levels = network_of(), list[tuple[float, float]]()
    original = UwmNetwork.timesteps

    def watched(self: UwmNetwork, t_video_B: torch.Tensor, t_action_B: torch.Tensor, geometry: object) -> object:
        levels.append((float(t_action_B), float(t_video_B)))
        return original(self, t_video_B, t_action_B, geometry)  # type: ignore[arg-type]

    monkeypatch.setattr(UwmNetwork, "timesteps", watched)
    run(network, started(network, use, num_steps=3))
    down = list(map(float, unipc_grid(3).timesteps))
    expected = {"denoised": down, "held as noise": [999.0] * 3, "given": [0.0] * 3}
    assert levels == list(zip(*(expected[does] for does in TABLE[use]), strict=True))


def test_joint_denoising_equals_synchronous_xwam() -> None:
    """Without registers and with states at the video's level, X-WAM's sampler with equal steps is the joint use."""
    network, noise, present = network_of(), groups_of(1), groups_of(3)
    text = network.encode_text(text_rows())
    theirs = sampler.begin(
        sampler.Schedule(num_video_steps=4, num_action_steps=4),
        noise_video_BCTVHW=noise.video_BCTVHW,
        noise_action_BKA=noise.action_BKA,
        noise_proprio_BPS=noise.proprio_BPS,
        seen_latent_BCVHW=present.video_BCTVHW[:, :, 0],
        seen_proprio_BS=present.proprio_BPS[:, 0],
        text=text,
    )
    done = sampler.run(network, theirs)
    ours = run(network, started(network, "joint")).values
    for one, two in zip(ours, (done.video.x, done.action.x, done.proprio.x), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("use", "group", "depends"),
    [
        ("policy", "video_BCTVHW", True),  # the noise of the observation is in the context, as noise
        ("forward_dynamics", "action_BKA", False),
        ("inverse_dynamics", "video_BCTVHW", False),
    ],
)
def test_noise_of_given_groups_changes_nothing(use: str, group: str, depends: bool) -> None:
    network = network_of()
    noises = groups_of(1), groups_of(1)._replace(**{group: getattr(groups_of(9), group)})
    moving = "video_BCTVHW" if use == "forward_dynamics" else "action_BKA"
    results = []
    for noise in noises:
        state = started(network, use)
        present = state.values.video_BCTVHW[:, :, 0], state.values.proprio_BPS[:, 0]
        again = begin(state.use, 4, noise, present=present, text=state.text, given=groups_of(2))
        results.append(getattr(run(network, again).values, moving))
    assert torch.equal(*results) != depends


@pytest.mark.parametrize(("use", "group"), [("forward_dynamics", "action_BKA"), ("inverse_dynamics", "video_BCTVHW")])
def test_what_is_given_is_read(use: str, group: str) -> None:
    network, results = network_of(), []
    for known_groups in (groups_of(2), groups_of(2)._replace(**{group: getattr(groups_of(9), group)})):
        state = started(network, use)
        present = state.values.video_BCTVHW[:, :, 0], state.values.proprio_BPS[:, 0]
        again = begin(state.use, 4, groups_of(1), present=present, text=state.text, given=known_groups)
        moved = run(network, again).values
        results.append(moved.action_BKA if use == "inverse_dynamics" else moved.video_BCTVHW)
    assert not torch.allclose(results[0], results[1])


def test_guidance_needs_the_empty_prompt_and_turns_the_result() -> None:
    network = network_of()
    plain, guided = (run(network, started(network, "joint", guidance=weight)) for weight in (0.0, 3.0))
    assert not torch.allclose(plain.values.action_BKA, guided.values.action_BKA)
    one = run(network, started(network, "joint", guidance=1.0))
    torch.testing.assert_close(one.values.action_BKA, plain.values.action_BKA, atol=1e-5, rtol=1e-5)
    present = groups_of(3).video_BCTVHW[:, :, 0], groups_of(3).proprio_BPS[:, 0]
    text = network.encode_text(text_rows())
    with pytest.raises(ValueError, match=r"needs the context of the empty prompt"):
        begin(USES["joint"], 4, groups_of(1), present=present, text=text, guidance=1.0)
    with pytest.raises(ValueError, match="takes the next observation as given; pass `given`"):
        begin(USES["inverse_dynamics"], 4, groups_of(1), present=present, text=text)


def test_a_pass_moves_one_step() -> None:
    network = network_of()
    state = started(network, "policy", num_steps=3)
    steps = []
    while state.step_idx < state.num_steps:
        steps.append(timestep_of(Does.DENOISED, state.step_idx, 3))
        (state,) = advance(network, [state])
    assert steps == [float(step) for step in unipc_grid(3).timesteps]


# ---- tokens


def test_states_stand_with_the_video() -> None:
    network = network_of()
    geometry = network.geometry(groups_of(1).video_BCTVHW, ACTIONS, STATES)
    times = network.timesteps(torch.tensor([700.0]), torch.tensor([300.0]), geometry)
    by_token = torch.cat([times.t_BG[0, group].expand(length) for group, length in times.runs])
    frame = VIEWS * 1 * 2
    assert by_token.tolist() == [0.0] * frame + [700.0] * (FRAMES - 1) * frame + [300.0] * ACTIONS + [0.0] + [700.0] * (
        STATES - 1
    )


def test_registers_are_read_and_give_no_output() -> None:
    config = replace(TINY, num_registers=3)
    network, values = network_of(config), groups_of(1)
    without = UwmNetwork(TINY).eval().requires_grad_(False)
    without.load_state_dict({name: value for name, value in network.state_dict().items() if name != "registers"})
    outs = []
    for each in (network, without):
        geometry = each.geometry(values.video_BCTVHW, ACTIONS, STATES)
        times = each.timesteps(torch.tensor([700.0]), torch.tensor([300.0]), geometry)
        assert sum(length for _, length in times.runs) == geometry.num_tokens + each.config.num_registers
        outs.append(each(*values, times, each.encode_text(text_rows())))
    for one, two in zip(outs[0][:3], outs[1][:3], strict=True):
        assert one.shape == two.shape
        assert not torch.allclose(one, two)


@pytest.mark.parametrize("prediction", ["velocity", "change"])
def test_registers_change_no_state_velocity_by_position(prediction: str) -> None:
    """Registers that no token attends to leave every output as it is."""
    config = replace(TINY, num_registers=2, proprio_prediction=prediction, num_blocks=0)  # type: ignore[arg-type]
    network, values = network_of(config), groups_of(1)
    without = UwmNetwork(replace(config, num_registers=0)).eval().requires_grad_(False)
    without.load_state_dict({name: value for name, value in network.state_dict().items() if name != "registers"})
    outs = []
    for each in (network, without):
        geometry = each.geometry(values.video_BCTVHW, ACTIONS, STATES)
        times = each.timesteps(torch.tensor([700.0]), torch.tensor([300.0]), geometry)
        outs.append(each(*values, times, each.encode_text(text_rows())))
    for one, two in zip(outs[0][:3], outs[1][:3], strict=True):
        assert torch.equal(one, two)


def test_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="UWM predicts no depth; depth must be 'none', got 'channel'"):
        replace(TINY, depth="channel")
    with pytest.raises(ValueError, match="num_registers must be at least 0"):
        replace(TINY, num_registers=-1)


# ---- sizes


def test_nano_has_as_many_parameters_as_xwams() -> None:
    ours = sum(count_uwm(MODELS["nano"].network))  # type: ignore[arg-type]
    assert ours == pytest.approx(sum(count_parameters(NANO.network)), rel=0.05)


def test_5b_is_wan_and_four_small_mlps() -> None:
    d, mlp = 3072, 14336
    attention = 4 * (d * d + d) + 2 * d  # q, k, v, o with biases; two norms
    block = 2 * attention + (d * mlp + mlp) + (mlp * d + d) + 2 * d + 6 * d  # norm3; modulation
    patch = 48 * 2 * 2
    wan = (patch * d + d) + (4096 * d + d) + (d * d + d) + (256 * d + d) + (d * d + d) + (d * 6 * d + 6 * d)
    wan += 30 * block + (d * patch + patch) + 2 * d
    mlps = sum((size * d + d) + 2 * (d * d + d) + (d * size + size) for size in (14, 16))
    config = MODELS["5b"].network
    assert isinstance(config, UwmConfig)
    assert tuple(count_uwm(config)) == (wan, 3 * d, mlps, 0)
    with torch.device("meta"):
        network = UwmNetwork(config)
    assert sum(weight.numel() for weight in network.parameters()) == wan + 3 * d + mlps
    assert all(weight.is_meta for weight in network.parameters())


# ---- training


def batch_of(count: int = 3) -> tuple[Batch, Noise]:
    clean, noise = groups_of(4, count), groups_of(5, count)
    action_mask, proprio_mask = torch.zeros(count, ACTIONS, 14), torch.zeros(count, STATES, 16)
    action_mask[..., :7], proprio_mask[..., :8] = 1, 1
    batch = Batch(
        video_BCTVHW=clean.video_BCTVHW,
        depth_BCTVHW=clean.video_BCTVHW[:, :0],
        action_BKA=clean.action_BKA,
        proprio_BPS=clean.proprio_BPS,
        action_mask_BKA=action_mask,
        proprio_mask_BPS=proprio_mask,
        executed_BKA=clean.action_BKA,
    )
    return batch, Noise(*noise)


def test_the_loss_is_that_of_velocities_by_hand() -> None:
    network, (batch, noise) = network_of(), batch_of(1)
    video, action = torch.tensor([0.6]), torch.tensor([0.3])
    text = network.encode_text(text_rows())
    found = uwm_losses(network, batch, noise, UwmLevels(video, action), text)
    noisy_video = 0.4 * batch.video_BCTVHW + 0.6 * noise.video_BCTVHW
    noisy_video[:, :, 0] = batch.video_BCTVHW[:, :, 0]
    noisy_state = 0.4 * batch.proprio_BPS + 0.6 * noise.proprio_BPS
    noisy_state[:, 0] = batch.proprio_BPS[:, 0]
    geometry = network.geometry(noisy_video, ACTIONS, STATES)
    times = network.timesteps(video * NUM_TRAIN_TIMESTEPS, action * NUM_TRAIN_TIMESTEPS, geometry)
    out = network(noisy_video, 0.7 * batch.action_BKA + 0.3 * noise.action_BKA, noisy_state, times, text)
    errors = [
        (out.video_BCTVHW - (noise.video_BCTVHW - batch.video_BCTVHW))[:, :, 1:],
        (out.action_BKA - (noise.action_BKA - batch.action_BKA))[..., :7],
        (out.proprio_BPS - (noise.proprio_BPS - batch.proprio_BPS))[:, 1:, :8],
    ]
    for loss, error in zip(found, errors, strict=True):
        torch.testing.assert_close(loss, error.square().mean())


def test_video_without_actions_trains_at_the_last_level() -> None:
    network, (batch, noise) = network_of(), batch_of()
    batch.action_mask_BKA[1] = 0
    text = network.encode_text(text_rows(3))
    levels = torch.tensor([0.2, 0.5, 0.8])
    results = []
    for sigma in (levels, torch.tensor([0.2, PURE_NOISE_SIGMA, 0.8])):
        results.append(uwm_losses(network, batch, noise, UwmLevels(levels, sigma), text))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
    batch.action_BKA[1] = 0  # at the last level it is noise all the same
    dropped = uwm_losses(network, batch, noise, UwmLevels(levels, levels), text)
    torch.testing.assert_close(dropped.video, results[0].video, atol=1e-3, rtol=1e-3)
    assert float(PURE_NOISE_SIGMA * NUM_TRAIN_TIMESTEPS) == pytest.approx(999.8, abs=0.1)


def test_levels_are_independent_and_shifted() -> None:
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    both = torch.stack(draw_uwm_levels(20_000, generator=generators[0]))
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.03
    uniform = both / (5 - 4 * both)  # the inverse of the shift by 5
    assert torch.allclose(uniform.mean(dim=1), torch.full((2,), 0.5), atol=0.01)
    assert torch.allclose(uniform.var(dim=1), torch.full((2,), 1 / 12), atol=0.003)
    as_xwams = draw_levels(20_000, "decoupled", generator=generators[1])
    assert torch.equal(both, torch.stack(as_xwams[:2]))
    assert RECIPES["uwm-5b"].clean_action_frac == 0
    assert all((recipe.weight_action, recipe.weight_proprio) == (1, 1) for recipe in RECIPES.values())


def test_shares_of_samples_are_given_or_start() -> None:
    levels = draw_uwm_levels(20_000, given_frac=0.4, start_frac=0.1, generator=torch.Generator().manual_seed(0))
    given = [(sigma == 0).float().mean().item() for sigma in levels]
    assert given == pytest.approx([0.2, 0.2], abs=0.01)
    assert not ((levels.sigma_video_B == 0) & (levels.sigma_action_B == 0)).any()
    starting = (levels.sigma_video_B == PURE_NOISE_SIGMA) & (levels.sigma_action_B == PURE_NOISE_SIGMA)
    assert starting.float().mean().item() == pytest.approx(0.1, abs=0.01)


def test_given_groups_carry_no_loss() -> None:
    network, (batch, noise) = network_of(), batch_of(2)
    text = network.encode_text(text_rows(2))
    levels = UwmLevels(torch.tensor([0.0, 0.7]), torch.tensor([0.6, 0.0]))
    found = uwm_losses(network, batch, noise, levels, text)
    alone = []
    for sample in range(2):
        one = slice(sample, sample + 1)
        part = Batch(**{name: value[one] for name, value in vars(batch).items()})
        drawn, level = Noise(*(each[one] for each in noise)), UwmLevels(*(each[one] for each in levels))
        alone.append(uwm_losses(network, part, drawn, level, network.encode_text(text_rows(2)[one])))
    torch.testing.assert_close(found.action, alone[0].action)
    torch.testing.assert_close(found.video, alone[1].video)
    torch.testing.assert_close(found.proprio, alone[1].proprio)
    assert alone[0].video == alone[0].proprio == alone[1].action == 0


def test_dependent_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="UWM needs independent noise levels: noise must be 'decoupled', got 'ans'"):
        UwmObjective(network_of(), replace(RECIPES["uwm-nano"], noise="ans"))


def test_the_trainer_trains_it_for_the_policy(shared_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="training needs Accelerate: pip install 'evalkit[train]'")
    from tests.doubles.training import RECIPE, model_of
    from xwam.training.trainer import CHECKPOINT, Trainer, prepare_data

    base = model_of(shared_root)
    network = uwm_network(base.network, num_registers=2)
    bundle = fresh_bundle(replace(base, name="uwm-tiny", family="uwm", network=network), seed=0)
    before = {name: weight.clone() for name, weight in bundle.network.named_parameters()}
    recipe = replace(RECIPE, noise="decoupled", clean_action_frac=0.0, start_frac=0.0, imagined_steps=(2, 2))
    Trainer(
        tmp_path, bundle, prepare_data(shared_root, scan(shared_root), bundle, recipe), recipe, say=lambda _: None
    ).run()
    loaded = load_bundle(str(tmp_path / CHECKPOINT))
    assert loaded.model.network == network
    assert all(not torch.equal(weight, before[name]) for name, weight in loaded.network.named_parameters())
    plugin = UwmPlugin()
    config = UwmPolicyConfig(checkpoint=str(tmp_path / CHECKPOINT), num_steps=1)
    assert plugin.spec(config).policy_id == "uwm/uwm-tiny-joint"
    assert plugin.provenance(config)["training"].startswith("7 steps in its last training stage")
    with pytest.raises(BadConfig, match="is a model of the family 'uwm', but --policy xwam runs those of 'xwam'"):
        XwamPlugin().spec(XwamPolicyConfig(checkpoint=str(tmp_path / CHECKPOINT)))


# ---- policies and checkpoints


def denoised(config: UwmPolicyConfig, request: PolicyRequest) -> tuple[np.ndarray, np.ndarray]:
    """Return actions and predicted images."""
    (reply,) = PLUGIN.make(config).infer([request])
    prediction = known(reply.prediction)()
    assert prediction.depth is None
    assert known(prediction.proprio).shape == (8, 16)
    return reply.actions, known(prediction.rgb)


def test_policy_id_and_provenance_name_the_way_of_acting() -> None:
    marginal = replace(QUICK, act="marginal")
    assert PLUGIN.spec(QUICK).policy_id == "uwm/uwm-nano-joint-random"
    assert PLUGIN.spec(marginal).policy_id == "uwm/uwm-nano-marginal-random"
    assert PLUGIN.provenance(QUICK)["predictions"] == "denoised together with the actions"
    assert PLUGIN.provenance(marginal)["predictions"].startswith("forward dynamics of the policy's own actions")
    assert PLUGIN.provenance(QUICK)["departures from the model's own schedule"] == "num_steps 2 in place of 10"
    assert "untrained" in PLUGIN.provenance(QUICK)["weights"]
    for changes, reason in (
        ({"act": "both"}, r"policy\.uwm\.act must be joint or marginal, got both"),
        ({"num_steps": 0}, r"policy\.uwm\.num_steps must be from 1 to 1000, got 0"),
        ({"guidance": 1.0}, r"policy\.uwm\.guidance must be 0 or above 1, got 1.0"),
        ({"execute_steps": 33}, r"policy\.uwm\.execute_steps must be from 1 to 32, got 33"),
    ):
        with pytest.raises(BadConfig, match=reason):
            PLUGIN.spec(replace(QUICK, **changes))  # type: ignore[arg-type]


def test_joint_and_marginal_act_differently_and_repeat() -> None:
    request = request_of(3, num_predicted_frames=8)
    joint, again = (denoised(QUICK, request) for _ in range(2))
    marginal = denoised(replace(QUICK, act="marginal"), request)
    assert all(np.array_equal(one, two) for one, two in zip(joint, again, strict=True))
    assert not np.array_equal(joint[0], marginal[0])
    assert not np.array_equal(joint[1], marginal[1])


@pytest.mark.parametrize("act", ["joint", "marginal"])
def test_given_actions_are_forward_dynamics(act: str) -> None:
    """Both policies are one world model: they predict the same for the same actions."""
    actions = np.zeros((32, 14), np.float32)
    actions[:, 0] = 0.5
    request = replace(request_of(3, num_predicted_frames=8), given_actions=actions)
    acted, rgb = denoised(replace(QUICK, act=act), request)
    assert np.array_equal(acted, actions)
    other = denoised(replace(QUICK, act=act), replace(request, given_actions=-actions))[1]
    assert not np.array_equal(rgb, other)
    reference = denoised(replace(QUICK, act="joint"), request)[1]
    assert np.array_equal(rgb, reference)


def test_the_marginal_policy_predicts_its_own_outcome() -> None:
    """What it predicts for its own actions is what it predicts for these actions given by others."""
    marginal = replace(QUICK, act="marginal")
    request = request_of(3, num_predicted_frames=8)
    actions, rgb = denoised(marginal, request)
    _, told = denoised(marginal, replace(request, given_actions=actions))
    assert np.array_equal(rgb, told)


def test_the_marginal_policy_predicts_what_is_executed(tmp_path: Path) -> None:
    """With wide bounds most actions of the network lie outside of what the bench executes, and are clipped."""
    path, model = tmp_path / "wide.safetensors", MODELS["nano"]
    wide = replace(model.bounds, action_low=(-9.0,) * 7 + (0.0,) * 7, action_high=(9.0,) * 7 + (0.0,) * 7)
    model = replace(model, bounds=wide)
    save_checkpoint(path, fresh_bundle(model, seed=5).network, model)
    settings = replace(QUICK, checkpoint=str(path), act="marginal")
    request = request_of(3, num_predicted_frames=8)
    actions, rgb = denoised(settings, request)
    assert (np.abs(actions[:, :7]) == 1).mean() > 0.2, "clipped"
    assert np.array_equal(rgb, denoised(settings, replace(request, given_actions=actions))[1])


def test_models_of_another_bench_or_family_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"is a model of robosuite, not of robocasa.*random-nano-robocasa"):
        PLUGIN.for_bench("robocasa").spec(QUICK)
    with pytest.raises(BadConfig, match="is a model of the family 'xwam', but --policy uwm runs those of 'uwm'"):
        PLUGIN.spec(replace(QUICK, checkpoint="xwam/nano"))
    for name in ("random-nano", "random-nano-robocasa", "random-nano-robotwin", "random-nano-registers"):
        spec = PLUGIN.spec(replace(QUICK, checkpoint=name))
        assert spec.predicts == ("rgb", "proprio")
        assert spec.takes_actions


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "uwm.safetensors"
    model = MODELS["nano-registers"]
    bundle = fresh_bundle(model, seed=5)
    save_checkpoint(path, bundle.network, model)
    loaded = load_bundle(str(path))
    assert loaded.model == model
    assert isinstance(loaded.network, UwmNetwork)
    request = request_of(1, num_predicted_frames=8)
    ours = denoised(replace(QUICK, checkpoint=str(path)), request)
    fresh = denoised(replace(QUICK, checkpoint="random-nano-registers", init_seed=5), request)
    assert all(np.array_equal(one, two) for one, two in zip(ours, fresh, strict=True))


def test_requests_differ_by_their_seed() -> None:
    policy = PLUGIN.make(QUICK)
    request = request_of(3)
    one, two = policy.infer([request, replace(request, noise_seed=request.noise_seed + 1)])
    assert not np.array_equal(one.actions, two.actions)
