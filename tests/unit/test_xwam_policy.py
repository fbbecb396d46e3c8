"""X-WAM as a policy: conforms, repeats itself to the bit, and says what it is."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from evalkit.contracts import spec as contract
from evalkit.contracts.errors import BadConfig, EpisodeFault
from evalkit.contracts.policy import Policy
from evalkit.contracts.types import QUAT_WXYZ, PolicyRequest, Prediction
from evalkit.dataset.writer import Recording, Steps, View, episode_key, write_episode
from tests.doubles.known import known
from tests.doubles.xwam import ENV, PLUGIN, QUICK, RANDOM, request_of
from xwam.checkpoints.bundle import save_checkpoint
from xwam.checkpoints.fresh import fresh_network
from xwam.config import NANO, DepthMode
from xwam.flow import sampler
from xwam.nano.pixel_decoder import Scene, gripper_motion_features
from xwam.policy import XwamPolicy, XwamPolicyConfig
from xwam.robots.axes import ee_pose
from xwam.serving.seen import Seen
from xwam.training.clips import ClipDataset
from xwam.training.decoder import fresh_decoder


@pytest.fixture(scope="module")
def policy() -> XwamPolicy:
    return PLUGIN.make(QUICK)


def predict(policy: Policy, request: PolicyRequest) -> Any:
    """Return the prediction of one request."""
    return known(policy.infer([request])[0].prediction)()


def reproject_views(policy: XwamPolicy, observation: Any, future_proprio: Any) -> Any:
    seen, finisher = Seen.of(observation), cast(Any, policy.engine.finisher)
    return finisher.reproject_views(seen, seen.cameras, future_proprio)


def test_spec_needs_no_framework() -> None:
    code = "import sys; from xwam.policy import *; p = XwamPlugin(); c = XwamPolicyConfig('random-nano'); "
    check = "p.spec(c); p.provenance(c); assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code + check], check=True)


def test_spec_fits_the_embedded_bench() -> None:
    contract.check(ENV, PLUGIN.spec(QUICK))
    assert PLUGIN.spec(QUICK).predicts == ("rgb", "depth", "proprio")
    json.dumps(PLUGIN.spec(QUICK).to_json())


def test_config_is_a_structured_one() -> None:
    merged = OmegaConf.merge(OmegaConf.structured(XwamPolicyConfig), {"num_action_steps": 3})
    assert OmegaConf.to_object(merged) == XwamPolicyConfig(num_action_steps=3)


def test_reply_conforms(policy: XwamPolicy) -> None:
    (reply,) = policy.infer([request_of(num_predicted_frames=8)])
    contract.check_actions(reply.actions, ENV, policy.spec)
    assert np.abs(reply.actions).max() <= 1
    prediction: Any = known(reply.prediction)()
    frames, views, (height, width) = 8, 3, NANO.image_hw_px
    assert prediction.rgb.shape == (frames, views, height, width, 3)
    assert prediction.rgb.dtype == np.uint8
    assert prediction.depth.shape == (frames, views, height, width)
    assert prediction.depth.dtype == prediction.proprio.dtype == np.float32
    assert np.isfinite(prediction.depth).all()
    assert (prediction.depth > 0).all()
    assert prediction.proprio.shape == (frames, 16)
    np.testing.assert_allclose(np.linalg.norm(prediction.proprio[:, 3:7], axis=1), 1, rtol=1e-5)
    assert (prediction.proprio[:, 3] >= 0).all()
    assert not prediction.proprio[:, 8:].any()
    assert policy.infer([request_of()])[0].prediction is None


def test_a_request_is_answered_the_same_whatever_else_was_asked(policy: XwamPolicy) -> None:
    requests = [request_of(seed, instruction=f"Lift cube {seed}.") for seed in range(3)]
    first = [reply.actions for reply in policy.infer(requests)]
    again = [reply.actions for reply in policy.infer(requests[::-1])][::-1]
    fresh = PLUGIN.make(QUICK).infer([requests[1]])[0].actions
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert np.array_equal(first[1], fresh)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], policy.infer([request_of(0, chunk_idx=1)])[0].actions)


@pytest.mark.parametrize(("number", "said"), [(np.nan, "nan"), (np.inf, "inf"), (0.0, "0")])
def test_a_state_without_a_rotation_is_refused(policy: XwamPolicy, number: float, said: str) -> None:
    request = request_of()
    state = request.observation.proprio.copy()
    state[QUAT_WXYZ] = number
    bad = replace(request, observation=replace(request.observation, proprio=state))
    for ask in (policy.prepare, lambda asked: policy.infer([asked])):
        with pytest.raises(
            EpisodeFault, match=f"observed state holds no rotation of the left arm: .* got .{said}, "
        ) as raised:
            ask(bad)
        assert raised.value.blame == "env"


def test_a_request_and_a_clip_give_the_network_the_same_state(policy: XwamPolicy, tmp_path: Path) -> None:
    request = request_of()
    proprio = request.observation.proprio
    proprio[3:7] = [0.02, -0.7, -0.71, 0.07]  # w >= 0, as benches give it, and not on nano's side
    proprio[3:7] /= np.linalg.norm(proprio[3:7])
    seen = request.observation
    steps = Steps(
        rgb=seen.rgb[None], depth=seen.depth[None], proprio=proprio[None], action=np.zeros((1, 14), np.float32)
    )
    names = ("0_a", "1_b", "2_c")
    views = tuple(View(name=name, kind="static") for name in names)
    recording = Recording(
        views=views, arms=("left",), layout="osc_delta_base", control_hz=20.0, depth_range=NANO.depth_range
    )
    write_episode(tmp_path, 0, steps, recording, instructions=["go"])
    clips = ClipDataset.for_model(
        tmp_path, {episode_key(0): 1}, NANO, crop_frac=1.0, past_end="hold", augmentation=None
    )
    learnt = clips.numbers(0, np.random.default_rng(0))[0][0]
    asked = policy.engine.begin(Seen(seen.rgb, proprio, "go"), seed=0).state.proprio.x[0, 0]
    torch.testing.assert_close(asked, learnt, atol=1e-6, rtol=0)
    assert (asked[4:6] > 0).all()


def test_the_imagined_future_does_not_move_the_actions(policy: XwamPolicy) -> None:
    plain, asked = request_of(), request_of(num_predicted_frames=8)
    reply = policy.infer([asked])[0]
    decode: Any = known(reply.prediction)
    one, two = decode(), decode()
    assert np.array_equal(policy.infer([plain])[0].actions, reply.actions)
    assert np.array_equal(one.rgb, two.rgb)
    assert np.array_equal(one.depth, two.depth)


@pytest.mark.parametrize("checkpoint", ["nano", "random-nano"])
@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_fewer_frames_are_the_first_ones_of_all(checkpoint: str, num_frames: int) -> None:
    policy = PLUGIN.make(XwamPolicyConfig(checkpoint=checkpoint))
    K = np.array([[154.5, 0.0, 63.5], [0.0, 154.5, 63.5], [0.0, 0.0, 1.0]])
    asked = request_of(num_predicted_frames=8)
    asked = replace(asked, observation=replace(asked.observation, intrinsics=np.tile(K, (3, 1, 1))))
    whole = predict(policy, asked)
    few = predict(policy, replace(asked, num_predicted_frames=num_frames))
    assert len(few.rgb) == len(few.depth) == len(few.proprio) == num_frames
    np.testing.assert_array_equal(few.proprio, whole.proprio[:num_frames])
    # a convolution of fewer images may round otherwise, and then the decoder may copy another pixel
    assert (few.rgb != whole.rgb[:num_frames]).mean() < 1e-4
    assert (few.depth != whole.depth[:num_frames]).mean() < 1e-4


def test_no_predicted_change_gives_the_measured_depth() -> None:
    request, found = request_of(num_predicted_frames=8), {}
    for camera_depth in (True, False):
        config = replace(QUICK, camera_depth=camera_depth)
        policy = PLUGIN.make(config)
        head: Any = policy.engine.network.extra_heads[0]
        head.head.requires_grad_(False)
        head.head.weight.zero_()
        head.head.bias.zero_()
        reply = policy.infer([request])[0]
        found[camera_depth] = reply.actions, known(known(reply.prediction)().depth)
        stated = PLUGIN.provenance(config)["predicted depth"]
        assert stated.startswith("built on the depth that the cameras measure" if camera_depth else "the network's own")
    static = [view for view, kind in enumerate(NANO.views) if kind == "static"]
    measured = np.broadcast_to(request.observation.depth, found[True][1].shape)[:, static]
    np.testing.assert_allclose(found[True][1][:, static], measured, rtol=1e-4)
    assert not np.allclose(found[False][1][:, static], measured, rtol=0.1)
    assert np.array_equal(found[True][0], found[False][0])


def test_wrist_depth_is_reprojected_to_the_future_pose(policy: XwamPolicy) -> None:
    seen = request_of().observation
    wrist = list(NANO.views).index("wrist")
    K = np.array([[100.0, 0.0, 63.5], [0.0, 100.0, 63.5], [0.0, 0.0, 1.0]])
    T_base_cam = np.eye(4)
    T_base_cam[:3, :3] = np.diag([1.0, -1.0, -1.0])  # looks down
    T_base_cam[:3, 3] = [0.4, 0.0, 1.0]
    depth = np.full_like(seen.depth, 0.8)
    depth[wrist, 100:] = 0.05  # the end effector
    seen = replace(seen, depth=depth, intrinsics=np.tile(K, (3, 1, 1)), T_base_cam=np.tile(T_base_cam, (3, 1, 1)))
    future = np.stack([seen.proprio, seen.proprio])
    future[1, 2] -= 0.3  # down in the base frame is ahead in the camera's
    now, later = reproject_views(policy, seen, future).depth_fvhw_m
    np.testing.assert_allclose(now, depth, rtol=1e-6)
    np.testing.assert_allclose(later[wrist, :96], 0.5, rtol=1e-6)
    np.testing.assert_allclose(later[wrist, 100:], 0.05, rtol=1e-6)
    static = [view for view, kind in enumerate(NANO.views) if kind == "static"]
    np.testing.assert_allclose(later[static], depth[static], rtol=1e-6)
    asked = replace(request_of(num_predicted_frames=8), observation=seen)
    prediction = predict(policy, asked)
    carried = reproject_views(policy, seen, prediction.proprio).depth_fvhw_m[:, wrist]
    is_known = carried > 0  # an untrained network may predict poses from which nothing is known
    assert is_known.mean() > 0.5
    np.testing.assert_allclose(prediction.depth[:, wrist][is_known], carried[is_known], rtol=1e-6)


def test_without_measured_depth_the_network_gives_all() -> None:
    policy = PLUGIN.make(QUICK)
    half = request_of(num_predicted_frames=8)
    half.observation.depth[0] = 0.0
    own = PLUGIN.make(replace(QUICK, camera_depth=False))
    np.testing.assert_array_equal(predict(policy, half).depth, predict(own, half).depth)


@pytest.fixture
def drawn_as_seen(tmp_path: Path) -> XwamPolicyConfig:
    """A checkpoint of an untrained network with an untrained decoder, which copies the present images."""
    path = tmp_path / "drawn.safetensors"
    network = fresh_network(NANO.network, seed=0)
    save_checkpoint(path, network, NANO, decoder=fresh_decoder(0).weights())
    return replace(QUICK, checkpoint=str(path))


def test_static_views_are_decoded_and_wrist_reprojected(drawn_as_seen: XwamPolicyConfig) -> None:
    request = request_of(num_predicted_frames=8)
    K = np.array([[100.0, 0.0, 63.5], [0.0, 100.0, 63.5], [0.0, 0.0, 1.0]])
    request = replace(request, observation=replace(request.observation, intrinsics=np.tile(K, (3, 1, 1))))
    policy = PLUGIN.make(drawn_as_seen)
    found = predict(policy, request)
    seen, moving = request.observation, NANO.moving_views
    for view in NANO.static_views:
        assert (found.rgb[:, view] == seen.rgb[view]).all()
        np.testing.assert_allclose(found.depth[:, view], np.broadcast_to(seen.depth[view], (8, 128, 128)), rtol=1e-3)
    carried = reproject_views(policy, seen, found.proprio)
    np.testing.assert_array_equal(found.rgb[:, moving], carried.rgb_fvhwc_u8[:, moving])
    assert PLUGIN.provenance(drawn_as_seen)["predicted images"].startswith("static cameras: a learned decoder")


def test_a_decoder_is_told_frame_by_frame_and_view_by_view(
    drawn_as_seen: XwamPolicyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of(num_predicted_frames=8)
    K = np.array([[100.0, 0.0, 63.5], [0.0, 100.0, 63.5], [0.0, 0.0, 1.0]])
    T_base_cam = np.tile(np.eye(4), (3, 1, 1))
    T_base_cam[:, :3, 3] = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]]
    observation = replace(request.observation, intrinsics=np.stack([K, K * [[2], [2], [1]], K]), T_base_cam=T_base_cam)
    engine, calls = PLUGIN.make(drawn_as_seen).engine, []
    generator = torch.Generator().manual_seed(0)
    video, depth = torch.randn(2, 1, *NANO.latent_shape, generator=generator)
    monkeypatch.setattr(sampler, "latents_of", lambda state: sampler.Latents(video, depth))
    decoder = cast(Any, engine.finisher).decoder
    images = decoder.images

    def noting(*parts: Any) -> Any:
        calls.append(parts)
        return images(*parts)

    monkeypatch.setattr(decoder, "images", noting)
    future = engine.imagine(engine.act(engine.begin(Seen.of(observation), seed=0))[1])
    ((seen, change, features),) = calls
    assert len(seen) == len(change) == len(features) == 8 * 2
    for frame, view in ((0, 1), (5, 0), (7, 1)):
        place = 2 * frame + view
        image = torch.from_numpy(observation.rgb[view]).permute(2, 0, 1) / 127.5 - 1
        torch.testing.assert_close(seen[place, :3], image)
        changes = [cast(Any, engine.codec).change(latent[:, :, 1:, view])[0, :, frame] for latent in (video, depth)]
        torch.testing.assert_close(change[place, :3], changes[0])
        torch.testing.assert_close(change[place, 3], changes[1].mean(0))
        scene = Scene(
            depth_vhw_m=observation.depth[[view]],
            intrinsics_v33_px=observation.intrinsics[[view]],
            T_base_cam_v44=observation.T_base_cam[[view]],
            T_base_ee=ee_pose(observation.proprio[:8]),
        )
        T_base_ee = ee_pose(known(future.proprio)[frame, :8])
        expected = gripper_motion_features(scene, T_base_ee[None], [(frame + 1) / 8])[0, 0]
        np.testing.assert_allclose(features[place], expected, atol=2e-3)


@pytest.mark.parametrize("without", ["warp", "camera_depth", "measured"])
def test_without_a_pixel_decoder_images_are_the_codecs(drawn_as_seen: XwamPolicyConfig, without: str) -> None:
    request = request_of(num_predicted_frames=8)
    plain = predict(PLUGIN.make(replace(drawn_as_seen, warp=False)), request).rgb
    changes: dict[str, Any] = {} if without == "measured" else {without: False}
    config = replace(drawn_as_seen, **changes)
    if without == "measured":
        request.observation.depth[:] = 0.0
    else:
        assert PLUGIN.provenance(config)["predicted images"] == "the codec's output"
    np.testing.assert_array_equal(predict(PLUGIN.make(config), request).rgb, plain)
    assert not (plain[:, 0] == request.observation.rgb[0]).all()


@pytest.mark.parametrize("num_frames", [1, 2, 8])
def test_the_codec_alone_keeps_a_smooth_scene(policy: XwamPolicy, num_frames: int) -> None:
    rows = np.linspace(0, 255, 128, dtype=np.uint8)
    rgb = np.broadcast_to(rows[:, None, None], (num_frames, 3, 128, 128, 3)).copy()
    depth = np.broadcast_to(np.linspace(0.5, 2.0, 128, dtype=np.float32)[:, None], (num_frames, 3, 128, 128)).copy()
    back = policy.round_trip(Prediction(rgb=rgb, depth=depth, proprio=None))
    assert back.rgb.shape == rgb.shape
    assert np.abs(back.rgb.astype(int) - rgb).max() <= 1
    np.testing.assert_allclose(known(back.depth), depth, rtol=0.1)


def test_other_seed_other_weights(policy: XwamPolicy) -> None:
    other = PLUGIN.make(replace(QUICK, init_seed=1))
    assert not np.array_equal(other.infer([request_of()])[0].actions, policy.infer([request_of()])[0].actions)


def test_a_blind_model_does_not_see(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = replace(NANO, blind=True)
    save_checkpoint(path, fresh_network(model.network, seed=1), model)
    blind = PLUGIN.make(replace(QUICK, checkpoint=str(path)))
    first = request_of(0)
    other = replace(first, observation=replace(first.observation, rgb=255 - first.observation.rgb))
    actions = [blind.infer([request])[0].actions for request in (first, other)]
    np.testing.assert_array_equal(actions[0], actions[1])


def test_provenance_says_random() -> None:
    provenance = PLUGIN.provenance(QUICK)
    assert provenance["weights"] == "random, init_seed 0: an untrained network"
    assert PLUGIN.spec(QUICK).policy_id == "xwam/xwam-nano-random"


def test_a_saved_checkpoint_is_the_same_policy(policy: XwamPolicy, tmp_path: Path) -> None:
    path = tmp_path / "nano.safetensors"
    save_checkpoint(path, policy.engine.network, NANO, notes={"data": "none"})
    config = replace(QUICK, checkpoint=str(path))
    loaded = PLUGIN.make(config)
    assert np.array_equal(loaded.infer([request_of()])[0].actions, policy.infer([request_of()])[0].actions)
    assert PLUGIN.provenance(config)["weights"].startswith("sha256 ")
    assert PLUGIN.spec(config).policy_id == "xwam/xwam-nano"


def test_settings_that_cannot_be_used_say_so(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"There is no checkpoint at .*nothing"):
        PLUGIN.spec(replace(QUICK, checkpoint=str(tmp_path / "nothing.safetensors")))
    with pytest.raises(BadConfig, match="got num_action_steps=9 and num_video_steps=3"):
        PLUGIN.make(replace(QUICK, num_action_steps=9))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x00" * 5)
    with pytest.raises(BadConfig, match="cut off or no safetensors file"):
        PLUGIN.make(replace(QUICK, checkpoint=str(broken)))


def test_steps_that_are_left_open_are_the_models_own() -> None:
    assert PLUGIN.spec(RANDOM).execute_steps == 8
    own = PLUGIN.provenance(RANDOM)
    assert own["denoising"] == "2 steps for actions, 3 for video, guidance 0.0"
    assert own["departures from the model's own schedule"] == "none"
    assert own["depth scale"].endswith("the map of its training")
    other = replace(RANDOM, num_video_steps=25, execute_steps=3, guidance=2.0)
    assert PLUGIN.spec(other).execute_steps == 3
    assert PLUGIN.provenance(other)["departures from the model's own schedule"] == (
        "num_video_steps 25 in place of 3, execute_steps 3 in place of 8, guidance 2.0 in place of 0"
    )
    engine = PLUGIN.make(replace(RANDOM, num_action_steps=3)).engine
    assert (engine.schedule.num_video_steps, engine.schedule.num_action_steps) == (3, 3)
    open_again = OmegaConf.merge(OmegaConf.structured(XwamPolicyConfig), {"num_video_steps": None, "execute_steps": 4})
    assert OmegaConf.to_object(open_again) == XwamPolicyConfig(execute_steps=4)
    with pytest.raises(BadConfig, match=r"execute_steps must be 1 to 32, got 33\."):
        PLUGIN.spec(replace(RANDOM, execute_steps=33))
    with pytest.raises(BadConfig, match="num_action_steps=4 and num_video_steps=3"):
        PLUGIN.spec(replace(RANDOM, num_action_steps=4))


def test_threads_are_set() -> None:
    PLUGIN.make(replace(QUICK, threads=1))
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("mode", ["none", "sequence", "channel"])
def test_rivals_of_the_ablation_run_end_to_end(mode: DepthMode, tmp_path: Path) -> None:
    small = replace(NANO.network, width=64, ffn_width=64, num_heads=2, num_blocks=2, num_depth_blocks=1, depth=mode)
    model = replace(NANO, network=small, name=f"nano-{mode}")
    path = tmp_path / f"{mode}.safetensors"
    save_checkpoint(path, fresh_network(small, seed=0), model)
    config = replace(QUICK, checkpoint=str(path))
    (reply,) = PLUGIN.make(config).infer([request_of(num_predicted_frames=8)])
    contract.check_actions(reply.actions, ENV, PLUGIN.spec(config))
    assert (
        (known(reply.prediction)().depth is None) == (mode == "none") == ("depth" not in PLUGIN.spec(config).predicts)
    )
