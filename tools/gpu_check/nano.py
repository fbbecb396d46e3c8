"""The stage that runs the shipped nano weights on the device: act, imagine, decode, against numbers of a CPU.

In: an observation of robosuite and what a CPU made of it, in `goldens`. Out: a check per step, and their times.
Read next: `xwam/serving/engine.py`, which does the same in a run and is checked too where scipy is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from evalkit.contracts.geometry import ee_pose_from_proprio
from evalkit.contracts.types import ARM_PROPRIO
from gpu_check.cases import GOLDENS, Pair, Tensors
from gpu_check.parity import COARSE_LIMIT, largest, root_mean_square
from gpu_check.running import Report
from gpu_check.standins import is_installed
from gpu_check.timing import fastest
from xwam.checkpoints.bundle import Bundle, load_bundle
from xwam.codecs.patch_dct import PatchDCT, change_of_views
from xwam.flow import sampler
from xwam.nano.choice import choose
from xwam.nano.pixel_decoder import PixelDecoder, Scene, gripper_motion_features
from xwam.robots.actions import denormalise, normalise, with_quaternions_near
from xwam.serving.images import BenchImages
from xwam.serving.imagine import Observations, read_prompts, start
from xwam.serving.seen import Cameras, Seen

SEED, PROMPT = 7, "lift the red cube"
FRAME = 7
"""The decoded frame that is compared: the last one, which moves most."""

OBSERVATION, EXPECTED = "nano_observation.safetensors", "nano_expected.safetensors"
NETWORK_LIMIT = 1e-3
"""Largest error of actions, states and latents, in standard deviations: three passes of a network in float32."""

DIFFERENT_FRAC = 0.02
"""Largest share of pixels that may differ by more than `GREY_LEVELS`: where to copy from is rounded to a pixel."""

GREY_LEVELS, METRES = 2.0, 0.005


class Imagined(NamedTuple):
    """Everything that is compared: normalised actions and states, latents, one decoded frame of the static cameras."""

    action_KA: Tensor
    proprio_PS: Tensor
    video_CTVHW: Tensor
    depth_CTVHW: Tensor
    rgb_VCHW: Tensor
    grey_VHW: Tensor


def nano(report: Report) -> None:
    """Compare nano on the device with a CPU."""
    device = torch.device(report.settings.device)
    bundle, observation = _bundle(device), load_file(GOLDENS / OBSERVATION)
    expected = load_file(GOLDENS / EXPECTED)
    found = imagined(bundle, observation)
    for pair in _of_network(found, expected):
        report.check(f"nano, float32: {pair.item}", largest(pair), NETWORK_LIMIT)
    grey = 127.5 * (found.rgb_VCHW.cpu() - expected["rgb_VCHW"].float()).abs()
    report.check("nano: decoded RGB, share of pixels off", _frac(grey > GREY_LEVELS), DIFFERENT_FRAC)
    grey = 127.5 * (found.grey_VHW.cpu() - expected["grey_VHW"].float()).abs()
    report.check("nano: decoded depth, share of pixels off", _frac(grey > GREY_LEVELS), DIFFERENT_FRAC)
    rounds = 2 if report.settings.quick else 5
    report.fact(ms_to_imagine_and_decode=1e3 * fastest(lambda: imagined(bundle, observation), device, rounds))
    if not is_installed("scipy"):
        report.missing("scipy", "nano's whole engine")
    else:
        _engine(report, bundle, observation, expected, rounds)
    for pair in _of_network(imagined(bundle.to(device, torch.bfloat16), observation), expected):
        report.check(f"nano, bfloat16: {pair.item}", root_mean_square(pair), COARSE_LIMIT)


def _of_network(found: Imagined, expected: Tensors) -> list[Pair]:
    names = ("action_KA", "proprio_PS", "video_CTVHW", "depth_CTVHW")
    return [Pair(name, getattr(found, name), expected[name]) for name in names]


def _frac(wrong: Tensor) -> float:
    return wrong.float().mean().item()


def _bundle(device: torch.device) -> Bundle:
    return load_bundle("nano").to(device, torch.float32)


@torch.inference_mode()
def imagined(bundle: Bundle, observation: Tensors) -> Imagined:
    """Return what nano makes of an observation, without the parts of the engine that need scipy."""
    seen = _seen(observation)
    state = sampler.run(bundle.network, _started(bundle, seen))
    latents, states = sampler.latents_of(state), state.proprio.x[0, 1:].cpu().numpy()
    assert latents.depth_BCTVHW is not None, "nano predicts depth"
    rgb_VCHW, grey_VHW = _decoded(bundle, seen, latents.video_BCTVHW, latents.depth_BCTVHW, states)
    return Imagined(
        action_KA=state.action.x[0].cpu(),
        proprio_PS=state.proprio.x[0].cpu(),
        video_CTVHW=latents.video_BCTVHW[0].cpu(),
        depth_CTVHW=latents.depth_BCTVHW[0].cpu(),
        rgb_VCHW=rgb_VCHW,
        grey_VHW=grey_VHW,
    )


def _seen(observation: Tensors) -> Seen:
    """Return the present; robosuite's frames are the model's own."""
    given = {name: tensor.numpy() for name, tensor in observation.items()}
    return Seen(
        given["rgb"],
        given["proprio"],
        PROMPT,
        depth_vhw_m=given["depth_mm"].astype(np.float32) / 1e3,
        cameras=Cameras(given["intrinsics"], given["T_base_cam"]),
    )


def _started(bundle: Bundle, seen: Seen) -> sampler.SamplerState:
    model, bounds = bundle.model, bundle.model.bounds
    proprio = with_quaternions_near(seen.proprio, model.arms, model.quat_side_wxyz)
    proprio_S = torch.from_numpy(normalise(proprio, bounds.proprio_low, bounds.proprio_high))
    observations = Observations(
        seen_BCVHW=BenchImages(model).rgb_to_model(seen.rgb_vhwc_u8),
        proprio_BS=proprio_S[None].float(),
        text=read_prompts(bundle, [seen.instruction]),
    )
    schedule = sampler.Schedule(num_video_steps=model.num_video_steps, num_action_steps=model.num_action_steps)
    return start(bundle, observations, schedule, seed=SEED)


def _decoded(
    bundle: Bundle, seen: Seen, video_BCTVHW: Tensor, depth_BCTVHW: Tensor, states: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Return RGB V,3,H,W and depth video V,H,W of one frame of the static cameras, from the pixel decoder."""
    model, codec, images = bundle.model, bundle.codec, BenchImages(bundle.model)
    assert isinstance(codec, PatchDCT)
    assert bundle.decoder is not None
    assert seen.cameras is not None
    views, arm = model.static_views, ARM_PROPRIO[model.arms[0]]
    states = denormalise(states, model.bounds.proprio_low, model.bounds.proprio_high)
    depth_vhw_m = np.asarray(seen.depth_vhw_m)
    scene = Scene(
        depth_vhw_m=depth_vhw_m[views],
        intrinsics_v33_px=seen.cameras.intrinsics_v33_px[views],
        T_base_cam_v44=seen.cameras.T_base_cam_v44[views],
        T_base_ee=ee_pose_from_proprio(seen.proprio[arm]),
    )
    T_base_ee_144 = ee_pose_from_proprio(_unit_quaternion(states[FRAME, arm]))[None]
    features = torch.from_numpy(gripper_motion_features(scene, T_base_ee_144, [1.0]))[0]
    change = change_of_views(codec, video_BCTVHW[0][:, 1:, views], depth_BCTVHW[0][:, 1:, views])[FRAME]
    present = torch.cat(
        [
            images.rgb_to_model(seen.rgb_vhwc_u8)[0][:, views],
            images.depth_to_model(depth_vhw_m[None])[0, :1, 0][:, views],
        ]
    ).transpose(0, 1)
    device = bundle.network.device
    decoder = PixelDecoder.from_weights(bundle.decoder).to(device)
    rgb_VCHW, grey_VHW = decoder.images(present.to(device), change.to(device), features.to(device))
    return rgb_VCHW.float(), grey_VHW.float()


def _unit_quaternion(state: np.ndarray) -> np.ndarray:
    """Return the state of an arm with a quaternion of length 1."""
    quat = state[3:7] / np.linalg.norm(state[3:7])
    return np.concatenate([state[:3], quat, state[7:]])


# ---- the engine of a run


def _predicted(engine: Any, seen: Seen) -> tuple[np.ndarray, Any]:
    """Return the actions, K,14, and the prediction of a request."""
    actions, request = engine.act(engine.begin(seen, seed=SEED))
    return actions, engine.imagine(request)


def _engine_of(bundle: Bundle) -> Any:
    from xwam.serving.engine import Engine

    model = bundle.model
    schedule = sampler.Schedule(num_video_steps=model.num_video_steps, num_action_steps=model.num_action_steps)
    return Engine(bundle, schedule, choose(model, camera_depth=True, warp=True).finisher(bundle))


def _engine(report: Report, bundle: Bundle, observation: Tensors, expected: Tensors, rounds: int) -> None:
    """Compare what a run would get, and time it."""
    engine, seen, device = _engine_of(bundle), _seen(observation), bundle.network.device
    actions, prediction = _predicted(engine, seen)
    pair = Pair("actions", torch.from_numpy(actions), expected["env_actions"])
    report.check("nano: actions of the engine", largest(pair), NETWORK_LIMIT)
    grey = np.abs(prediction.rgb[FRAME].astype(np.float32) - expected["env_rgb"].numpy())
    report.check("nano: RGB of the engine, share of pixels off", float((grey > GREY_LEVELS).mean()), DIFFERENT_FRAC)
    off_m = np.abs(prediction.depth[FRAME] - expected["env_depth_mm"].numpy() / 1e3)
    report.check("nano: depth of the engine, share of pixels off", float((off_m > METRES).mean()), DIFFERENT_FRAC)
    report.fact(
        engine_ms_to_act=1e3 * fastest(lambda: engine.act(engine.begin(seen, seed=SEED)), device, rounds),
        engine_ms_to_act_and_imagine=1e3 * fastest(lambda: _predicted(engine, seen), device, rounds),
    )


# ---- goldens


def write(folder: Path) -> None:
    """Write what the CPU makes of the observation; the observation is rendered only if it is not there."""
    if not (folder / OBSERVATION).is_file():
        source = GOLDENS / OBSERVATION
        save_file(load_file(source) if source.is_file() else _rendered(), folder / OBSERVATION)
    observation, bundle = load_file(folder / OBSERVATION), _bundle(torch.device("cpu"))
    found = imagined(bundle, observation)._asdict()
    actions, prediction = _predicted(_engine_of(bundle), _seen(observation))
    found |= {"rgb_VCHW": found["rgb_VCHW"].half(), "grey_VHW": found["grey_VHW"].half()}
    found |= {
        "env_actions": torch.from_numpy(actions),
        "env_rgb": torch.from_numpy(prediction.rgb[FRAME].copy()),
        "env_depth_mm": torch.from_numpy(np.rint(1e3 * prediction.depth[FRAME]).astype(np.int16)),
    }
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / EXPECTED)


def _rendered() -> Tensors:
    """Return the first observation of an episode of robosuite's Lift."""
    from envs.robosuite.bench import RobosuiteBench
    from envs.robosuite.env import RobosuiteEnv

    bench = RobosuiteBench()
    env = RobosuiteEnv(**bench.launch(bench.config_type(), task="Lift", setting="default").kwargs)
    env.begin(seed=3, max_steps=1)
    shown = env.observe(render=True)
    env.close()
    return {
        "rgb": torch.from_numpy(shown["rgb"].copy()),
        "depth_mm": torch.from_numpy(np.rint(1e3 * shown["depth"]).astype(np.int16)),
        "intrinsics": torch.from_numpy(np.asarray(shown["intrinsics"], np.float64)),
        "T_base_cam": torch.from_numpy(np.asarray(shown["T_base_cam"], np.float64)),
        "proprio": torch.from_numpy(np.asarray(shown["proprio"], np.float32)),
    }
