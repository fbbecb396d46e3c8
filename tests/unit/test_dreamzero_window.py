"""DreamZero's window: when it starts, what enters the cache, what its memory keeps, and what a request then gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.dreamzero.engine import CACHE_BYTES, DreamZeroEngine
from baselines.dreamzero.memory import MAX_EPISODES, EpisodeMemory, Past
from baselines.dreamzero.models import MODELS
from baselines.dreamzero.network import DreamZeroNetwork
from baselines.dreamzero.sampler import BlockSchedule
from baselines.dreamzero.window import Step, Window, Windows
from evalkit.contracts.errors import EpisodeFault
from evalkit.contracts.types import Prediction
from tests.doubles.dreamzero import TINY, network_of
from xwam.checkpoints.bundle import Bundle, load_codec
from xwam.config import NANO, ModelConfig
from xwam.serving.prompts import PromptStore
from xwam.text.encoders import HashedText
from xwam.text.memory import GIB

ROOT = Path(__file__).resolve().parents[2]

NETWORK = replace(TINY, latent_channels=8)
MODEL = replace(
    NANO,
    network=NETWORK,
    codec=replace(NANO.codec, mosaic=(2, 2)),
    image_hw_px=(32, 32),
    num_actions=12,
    num_future_frames=32,
    frame_stride=1,
    num_video_steps=2,
    num_action_steps=2,
)
PROPRIO = np.array([0.5, 0.0, 0.2, 0.0, 1.0, 0.0, 0.0, 1.0] + [0.0] * 8, np.float32)


def bundle_of(model: ModelConfig = MODEL) -> Bundle:
    network = network_of(model.network)  # type: ignore[arg-type]
    text = HashedText(num_tokens=model.network.text_len, width=model.network.text_width)
    return Bundle(model, network, load_codec(model, Path()), text)  # type: ignore[arg-type]


def engine_of(model: ModelConfig = MODEL, **settings: int) -> DreamZeroEngine:
    schedule = BlockSchedule(num_video_steps=model.num_video_steps, num_action_steps=model.num_action_steps)
    return DreamZeroEngine(bundle_of(model), schedule, **settings)


def images(seed: int, count: int | None = None) -> np.ndarray:
    shape = (3, 32, 32, 3) if count is None else (count, 3, 32, 32, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def windows_of(bundle: Bundle, max_bytes: int = 1 << 30) -> Windows:
    return Windows(bundle, PromptStore(bundle), max_bytes=max_bytes)


# ---- when a window starts


def test_a_window_starts_when_the_facts_say_so() -> None:
    windows = windows_of(bundle_of())
    window, reason = windows.after(None, images(0), images(0, 0), "lift")
    assert (window.num_blocks, reason) == (0, "first request")
    reasons = []
    for request in range(1, 7):
        past = images(request, 8)
        window, reason = windows.after(window, past[-1], past, "lift")
        reasons.append((window.num_blocks, reason))
    full = "4 blocks fill the window"
    assert reasons == [(1, None), (2, None), (3, None), (0, full), (1, None), (2, None)]


@pytest.mark.parametrize(
    ("count", "instruction", "expected"),
    [
        (8, "open", "new instruction"),
        (1, "lift", "no frames between requests"),
        (0, "lift", "no frames between requests"),
        (3, "lift", "3 frames between requests are no block of 8"),
        (32, "lift", "32 frames between requests are no block of 8"),
        (8, "lift", None),
        (4, "lift", None),
    ],
)
def test_reasons_to_start_again(count: int, instruction: str, expected: str | None) -> None:
    windows = windows_of(bundle_of())
    window = windows.start(images(0), "lift")
    past = images(1, count)
    now = past[-1] if count else images(2)
    found, reason = windows.after(window, now, past, instruction)
    assert reason == expected
    assert found.num_blocks == (1 if expected is None else 0)
    assert found.instruction == instruction


# ---- what enters it


def test_observed_frames_are_encoded_as_training_encodes_them() -> None:
    bundle = bundle_of()
    windows = windows_of(bundle)
    first, past = images(0), images(1, 16)
    window = windows.extend(windows.extend(windows.start(first, "lift"), past[:8]), past[8:])
    frames = np.concatenate([first[None], past])
    clip = torch.from_numpy(frames).permute(4, 0, 1, 2, 3)[None].float() / 127.5 - 1
    whole = bundle.codec.encode_views(clip)  # type: ignore[attr-defined]
    torch.testing.assert_close(window.latents_BCTVHW, whole)


def test_four_frames_enter_twice_each() -> None:
    windows = windows_of(bundle_of())
    window, past = windows.start(images(0), "lift"), images(1, 4)
    assert torch.equal(
        windows.extend(window, past).latent_BCTVHW, windows.extend(window, np.repeat(past, 2, axis=0)).latent_BCTVHW
    )


def test_a_causal_codec_gets_a_block_that_begins_with_itself() -> None:
    class Recording:
        channels = 8

        def __init__(self) -> None:
            self.videos: list[torch.Tensor] = []

        def encode(self, video_BCTHW: torch.Tensor) -> torch.Tensor:
            self.videos.append(video_BCTHW)
            return video_BCTHW.new_zeros(1, 8, 1 + (video_BCTHW.shape[2] - 1) // 4, 4, 4)

        def decode(self, latent_BCTHW: torch.Tensor, seen_BCHW: torch.Tensor | None = None) -> torch.Tensor:
            raise NotImplementedError

    wan = replace(MODEL, codec=replace(MODEL.codec, kind="wan22"))
    bundle = bundle_of()
    codec = bundle.codec
    codec.codec = Recording()  # type: ignore[attr-defined]
    windows = windows_of(bundle._replace(model=wan))
    windows.extend(windows.start(images(0), "lift"), images(1, 4))
    _, video = codec.codec.videos  # type: ignore[attr-defined]
    expected = codec.join(torch.from_numpy(images(1, 4)).permute(4, 0, 1, 2, 3)[None].float() / 127.5 - 1)  # type: ignore[attr-defined]
    order = [0, 0, 0, 1, 1, 2, 2, 3, 3]
    torch.testing.assert_close(video, expected[:, :, order])


# ---- caches


def test_a_forgotten_cache_is_made_again_with_the_same_values() -> None:
    bundle = bundle_of()
    kept, forgotten = windows_of(bundle), windows_of(bundle, max_bytes=0)
    window = kept.extend(kept.extend(kept.start(images(0), "lift"), images(1, 8)), images(2, 8))
    one, two = kept.context(window).cache, forgotten.context(window).cache
    assert one.num_frames == two.num_frames == 5
    for left, right in zip(one.layers, two.layers, strict=True):
        assert torch.equal(left.key, right.key)
        assert torch.equal(left.value, right.value)
    assert len(forgotten._caches) == 0


def test_each_cache_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundle_of()
    windows, made = windows_of(bundle), []
    remember = DreamZeroNetwork.remember

    def counting(network: DreamZeroNetwork, *inputs: object) -> object:
        made.append(inputs)
        return remember(network, *inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(DreamZeroNetwork, "remember", counting)
    window = windows.start(images(0), "lift")
    for block in range(3):
        windows.context(window)
        windows.context(window)
        assert len(made) == block + 1
        window = windows.extend(window, images(block, 8))


def test_only_the_last_window_of_an_episode_is_cached() -> None:
    windows, sizes = windows_of(bundle_of()), []
    window, _ = windows.after(None, images(0), None, "lift")
    for request in range(1, 6):
        caches = [windows.context(window).cache, windows.context(window, "").cache]
        sizes.append(len(windows._caches))
        assert windows._caches.num_bytes == sum(cache.num_bytes for cache in caches)
        past = images(request, 8)
        window, _ = windows.after(window, past[-1], past, "lift")
    assert sizes == [2] * 5, "one for each prompt"
    past = images(9, 8)
    windows.context(window)
    windows.context(window, "")
    windows.after(window, past[-1], past, "open")
    assert len(windows._caches) == 0, "a new instruction needs none of them"


def cache_bytes(model: ModelConfig, num_frames: int) -> int:
    """Return what latent frames take in bfloat16: a key and a value of 2 bytes a number, in every block."""
    network, (*_, rows, cols) = model.network, model.latent_shape
    tokens = num_frames * (rows // network.patch_hw[0]) * (cols // network.patch_hw[1])
    return tokens * 2 * network.width * 2 * network.num_blocks


def test_the_page_says_what_a_cache_takes_at_5b() -> None:
    bundle = bundle_of()
    windows = windows_of(bundle.to("cpu", torch.bfloat16))
    window = windows.extend(windows.start(images(0), "lift"), images(1, 8))
    assert windows.context(window).cache.num_bytes == cache_bytes(MODEL, 3)
    page, model = (ROOT / "docs/baselines.md").read_text(), MODELS["5b"]
    before, full = cache_bytes(model, 5), cache_bytes(model, 7)
    for size in (full, 2 * full, before):
        assert f"{size / GIB:.2f} GiB" in page
    assert 2 * 2 * full < CACHE_BYTES < 3 * 2 * full, "two episodes with guidance"


# ---- requests


def replies(engine: DreamZeroEngine, window: Window, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    actions, request = engine.act(engine.begin(window, PROPRIO, seed=seed))
    return actions, engine.imagine(request, 8).rgb


def test_a_request_gives_one_block_of_commands_and_images() -> None:
    engine = engine_of()
    actions, rgb = replies(engine, engine.windows.start(images(0), "lift"))
    assert (actions.shape, actions.dtype) == ((3, 14), np.float32)
    assert (rgb.shape, rgb.dtype) == ((8, 3, 32, 32, 3), np.uint8)
    assert not actions[:, 7:].any(), "there is no right arm"
    assert np.abs(actions).max() <= 1


def test_observed_frames_change_the_next_block_alone() -> None:
    engine = engine_of()
    start = engine.windows.start(images(0), "lift")
    before = replies(engine, start)
    one, two = (engine.windows.extend(start, images(seed, 8)) for seed in (1, 2))
    first, second = replies(engine, one), replies(engine, two)
    assert (first[0] != second[0]).any()
    assert (first[1] != second[1]).any()
    for old, new in zip(before, replies(engine, start), strict=True):
        np.testing.assert_array_equal(old, new)


def test_predictions_of_fewer_frames_are_the_first_of_all() -> None:
    engine = engine_of()
    window = engine.windows.extend(engine.windows.start(images(0), "lift"), images(1, 8))
    _, request = engine.act(engine.begin(window, PROPRIO, seed=0))
    np.testing.assert_array_equal(engine.imagine(request, 3).rgb, engine.imagine(request, 8).rgb[:3])


def test_given_actions_change_the_images_of_a_flash_model() -> None:
    engine = engine_of(replace(MODEL, network=replace(NETWORK, independent_levels=True)))
    window = engine.windows.start(images(0), "lift")
    rgb = []
    for size in (-1.0, 1.0):
        given = np.zeros((3, 14), np.float32)
        given[:, :7] = size
        actions, request = engine.act(engine.begin(window, PROPRIO, seed=0, given_actions=given))
        np.testing.assert_allclose(actions, given, atol=1e-6)
        rgb.append(engine.imagine(request, 8).rgb)
    assert (rgb[0] != rgb[1]).any()


# ---- memory


def test_a_repeated_request_continues_the_window_before_it() -> None:
    windows, memory = windows_of(bundle_of()), EpisodeMemory()
    memory.reset("a")
    nothing = memory.before("a", 0)
    assert nothing == Past()
    first = nothing.after(windows.after(None, images(0), None, "lift"), 3)
    memory.remember("a", 0, nothing, first)
    second = first.after(Step(windows.extend(first.window, images(1, 8)), None), 4)  # type: ignore[arg-type]
    for _ in range(2):
        assert memory.before("a", 1) is first
        memory.remember("a", 1, first, second)
    assert memory.before("a", 2) is second
    assert second.details() == {"passes": 7, "window_starts": {"first request": 1}}
    assert memory.before("a", 4) == replace(second, window=None), "frames between are unknown"
    memory.reset("a")
    assert memory.before("a", 1) == Past()


def test_an_episode_that_is_not_remembered_is_named() -> None:
    memory = EpisodeMemory(max_episodes=2)
    for name in "abc":
        memory.reset(name)
    with pytest.raises(EpisodeFault, match=r"dreamzero remembers no episode a: call reset .* at most 2 episodes"):
        memory.before("a", 0)
    assert memory.before("b", 0) == Past()


def test_the_memory_keeps_the_episodes_with_the_latest_requests() -> None:
    memory = EpisodeMemory()
    for index in range(200):
        memory.reset("running")
        memory.reset(f"finished {index}")
        memory.remember("running", index, Past(), Past(passes=index))
    assert memory.before("running", 200).passes == 199
    assert len(memory) == MAX_EPISODES == 64
    assert memory.before("finished 137", 0) == Past()
    with pytest.raises(EpisodeFault, match=r"remembers no episode finished 136: .* at most 64 episodes at once"):
        memory.before("finished 136", 0)


def test_the_codec_alone_gives_a_still_future_back() -> None:
    still = np.repeat(images(0)[None], 5, axis=0)
    back = engine_of().round_trip(Prediction(rgb=still, depth=None, proprio=None))
    np.testing.assert_array_equal(back.rgb, still)
    assert back.depth is None
    assert back.proprio is None
