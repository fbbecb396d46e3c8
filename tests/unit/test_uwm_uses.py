"""The uses `video` and `inverse_dynamics` of UWM as commands: what they compute, and their scores in closed form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.uwm.engine import noise_of
from baselines.uwm.models import uwm_network
from baselines.uwm.policy import UwmPlugin, UwmPolicyConfig
from baselines.uwm.sampling import begin, run
from baselines.uwm.uses import USES
from evalkit.contracts.errors import BadConfig
from evalkit.dataset.layout import scan
from evalkit.testing import noise_request
from tests.doubles.known import known
from tests.doubles.training import RECIPE, model_of
from xwam.checkpoints.bundle import Bundle, save_checkpoint
from xwam.checkpoints.fresh import fresh_bundle
from xwam.cli import main
from xwam.serving.imagine import read_prompts
from xwam.training.batches import Encoder
from xwam.training.inverse_dynamics import Inferred, check_infers, clips_of, errors_of, infer

QUICK = UwmPolicyConfig(num_steps=2)
DRAWN = replace(RECIPE, noise="decoupled")


# ---- video


def test_video_is_predicted_without_any_actions() -> None:
    video = replace(QUICK, predict="video")
    policies = [UwmPlugin().make(config) for config in (QUICK, video, replace(video, act="marginal"))]
    request = noise_request(policies[1].spec, 0, 0)
    replies = [policy.infer([request])[0] for policy in policies]
    np.testing.assert_array_equal(replies[0].actions, replies[1].actions)
    own, joint, marginal = (known(reply.prediction)() for reply in replies)
    np.testing.assert_array_equal(known(joint.rgb), known(marginal.rgb))
    assert (known(own.rgb) != known(joint.rgb)).any()
    engine = policies[1].engine
    begun = engine.begin(_seen(request), seed=request.noise_seed)
    values = begun.state.values
    alone = begin(
        USES["video"],
        2,
        begun.noise,
        present=(values.video_BCTVHW[:, :, 0], values.proprio_BPS[:, 0]),
        text=begun.state.text,
    )
    with torch.inference_mode():
        states = run(engine.network, alone).values.proprio_BPS[0, 1:]
        np.testing.assert_array_equal(known(joint.proprio), engine.numbers.states(states))


def _seen(request: Any) -> Any:
    from xwam.serving.seen import Seen

    return Seen.of(request.observation)


def test_spec_and_provenance_say_that_it_is_video() -> None:
    video = replace(QUICK, predict="video")
    assert UwmPlugin().spec(video).policy_id == "uwm/uwm-nano-joint-video-random"
    assert UwmPlugin().spec(QUICK).takes_actions
    assert not UwmPlugin().spec(video).takes_actions
    assert UwmPlugin().provenance(video)["predictions"] == "the use `video`: actions held as noise, 2 steps"
    with pytest.raises(BadConfig, match=r"policy\.uwm\.predict must be own or video, got both"):
        UwmPlugin().spec(replace(QUICK, predict="both"))


# ---- inverse dynamics


def inferred_of(recorded_NKA: np.ndarray, guess_NKA: np.ndarray, mask_NKA: np.ndarray | None = None) -> Inferred:
    mask = np.ones_like(recorded_NKA) if mask_NKA is None else mask_NKA
    return Inferred(guess_NKA, recorded_NKA, mask, [f"episode {index // 2}" for index in range(len(recorded_NKA))])


def test_errors_are_those_of_closed_form() -> None:
    recorded = np.random.default_rng(0).normal(size=(8, 5, 14))
    mean = np.broadcast_to(recorded.mean(axis=(0, 1)), recorded.shape)
    assert errors_of(inferred_of(recorded, recorded))["all"].unexplained == 0
    error = errors_of(inferred_of(recorded, mean))["all"]
    assert error.unexplained == pytest.approx(1)
    assert (error.num_episodes, error.interval) == (4, None)
    assert error.rms == error.rms_of_mean == pytest.approx(float(np.sqrt(recorded.var(axis=(0, 1)).mean())))
    shifted = recorded.copy()
    shifted[..., [6, 13]] += 0.5
    errors = errors_of(inferred_of(recorded, shifted))
    assert errors["gripper"].rms == pytest.approx(0.5)
    assert errors["gripper"].unexplained == pytest.approx(0.25 / recorded[..., [6, 13]].var(axis=(0, 1)).mean())
    assert errors["translation"].rms == errors["rotation"].rms == 0
    assert errors["all"].rms == pytest.approx(0.5 * np.sqrt(2 / 14))


def test_intervals_cover_as_often_as_they_say() -> None:
    rng, hits = np.random.default_rng(2), 0
    for _ in range(60):
        scale = rng.uniform(0.5, 1.5, (40, 1, 1)).repeat(2, axis=0)
        recorded = rng.normal(size=(80, 3, 14)) * scale
        guess = recorded + 0.5 * rng.normal(size=recorded.shape) * scale
        low, high = known(errors_of(inferred_of(recorded, guess))["all"].interval)
        hits += low < 0.25 < high
    assert 50 <= hits <= 60


def test_masked_actions_count_nowhere() -> None:
    rng = np.random.default_rng(1)
    recorded, guess = rng.normal(size=(2, 6, 4, 14))
    mask = (np.arange(14) < 7) * np.ones((6, 4, 1))
    mask[0, 0] = 0
    wild = np.where(mask == 0, 99.0, recorded), np.where(mask == 0, -99.0, guess)
    assert errors_of(inferred_of(*wild, mask)) == errors_of(inferred_of(recorded, guess, mask))


def tiny(root: Path) -> Bundle:
    base = model_of(root)
    network = uwm_network(base.network)
    return fresh_bundle(replace(base, name="uwm-tiny", family="uwm", network=network), seed=0)


def test_inferred_actions_depend_on_what_followed(shared_root: Path) -> None:
    bundle = tiny(shared_root)
    clips = clips_of(shared_root, scan(shared_root), bundle, DRAWN)
    batch = Encoder(bundle, DRAWN, torch.device("cpu")).batch([clips[0], clips[3]])
    text, family = read_prompts(bundle, ["lift"] * 2), check_infers(bundle)

    def inferred(**changes: torch.Tensor) -> torch.Tensor:
        return family.infer_actions(bundle, replace(batch, **changes), text, num_steps=2, seed=0)

    with torch.no_grad():  # fresh networks predict zeros
        for weight in bundle.network.parameters():
            weight.add_(0.05)
    actions = inferred()
    assert actions.equal(inferred(action_BKA=torch.zeros_like(batch.action_BKA)))
    assert not actions.equal(inferred(video_BCTVHW=batch.video_BCTVHW.flip(0)))
    assert not actions.equal(inferred(proprio_BPS=batch.proprio_BPS.flip(0)))
    assert not actions.equal(noise_of(bundle, 0, 2).action_BKA)


def test_clips_lie_evenly_and_hold_executed_actions(shared_root: Path) -> None:
    bundle = tiny(shared_root)
    clips = clips_of(shared_root, scan(shared_root), bundle, DRAWN)
    assert len(clips) == 3 * (40 - 32)
    found = infer(clips, bundle, DRAWN, num_clips=6, num_steps=1)
    assert [found.episodes.count(name) for name in dict.fromkeys(found.episodes)] == [2, 2, 2]
    np.testing.assert_array_equal(found.recorded_NKA[0], clips[0].executed_KA.double().numpy())
    with pytest.raises(ValueError, match=r"no episode longer than a clip of 32 steps"):
        clips_of(shared_root, scan(shared_root)._replace(lengths={"chunk-0000/episode_0000000": 32}), bundle, DRAWN)


def test_the_command_prints_and_writes_errors(
    shared_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, path = tiny(shared_root), tmp_path / "uwm.safetensors"
    save_checkpoint(path, bundle.network, bundle.model)
    options = ["--clips", "4", "--steps", "1", "--out", str(tmp_path / "errors.json")]
    assert main(["infer-actions", str(shared_root), str(path), *options]) == 0
    printed = capsys.readouterr().out
    assert f"uwm-tiny: 4 clips of 3 episodes in {shared_root}" in printed
    assert "unexplained (95 % interval)" in printed
    written = json.loads((tmp_path / "errors.json").read_text())
    assert (written["clips"], written["steps"], set(written["errors"])) == (
        4,
        1,
        {"all", "translation", "rotation", "gripper"},
    )
    assert main(["infer-actions", str(shared_root), "nano"]) == 2
    assert "xwam-nano cannot infer actions: its family 'xwam' was not trained to" in capsys.readouterr().err
