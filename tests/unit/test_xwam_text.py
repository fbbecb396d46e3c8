"""The text path: umT5's raw output at all places, equal rows merged exactly, stored prompts bounded by their memory."""

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from evalkit.dataset.layout import scan
from tests.doubles.checkpoints import tiny_bundle
from tests.doubles.networks import ACTIONS, STATES, TINY, inputs_of, network_of
from tests.doubles.training import RECIPE, model_of
from xwam.checkpoints.bundle import Bundle
from xwam.checkpoints.fresh import fresh_bundle
from xwam.config import NANO, WAN22_5B, Geometry
from xwam.flow.sampler import Schedule, begin, run
from xwam.network.attention import KeyValue
from xwam.network.reference import ReferenceNetwork
from xwam.network.transformer import TextContext, XwamNetwork, context_bytes
from xwam.serving.engine import Engine
from xwam.serving.prompts import PROMPT_BYTES, PromptStore, peak_prompt_bytes
from xwam.serving.seen import Seen
from xwam.text.encoders import StoredText
from xwam.text.memory import GIB, Recent
from xwam.text.tokens import TextTokens, read_rows
from xwam.text.umt5 import UmT5Text, clean, encode_ids, padding_counts
from xwam.training.batches import Encoder, slots
from xwam.training.trainer import prepare_data

NUM_PLACES = 512
LONG = replace(TINY, text_len=NUM_PLACES, text_width=32)


def umt5(dtype: torch.dtype = torch.float32, width: int = 32) -> Any:
    """Return a small umT5 of transformers with random weights."""
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    config = UMT5Config(
        vocab_size=99, d_model=width, d_kv=8, d_ff=48, num_heads=4, num_layers=3, dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return UMT5EncoderModel(config).eval().requires_grad_(False).to(dtype)


def with_umt5(bundle: Bundle) -> Bundle:
    """Return a model that reads the small umT5 in place of hashed words."""
    network = bundle.model.network
    text = UmT5Text(umt5(width=network.text_width), FakeTokenizer(), num_tokens=network.text_len)
    return bundle._replace(text_encoder=text)


def places_of(model: Any, *num_words: int) -> torch.Tensor:
    """Return umT5's output at all places of random prompts, B,N,W."""
    mask = (torch.arange(NUM_PLACES) < torch.tensor(num_words)[:, None]).long()
    words = torch.randint(3, 99, mask.shape, generator=torch.Generator().manual_seed(1))
    return encode_ids(model, words * mask, mask)


# ---- umT5


def test_places_behind_a_prompt_are_umt5s_own_output() -> None:
    text = UmT5Text(umt5(), FakeTokenizer(), num_tokens=NUM_PLACES).encode("open the drawer")
    assert text.num_places == (NUM_PLACES,)
    rows, counts = text.rows_BMW[0], text.counts()[0]
    assert rows.any(1).all()
    assert counts.tolist() == [1] * 4 + padding_counts(4, NUM_PLACES)
    empty = UmT5Text(umt5(), FakeTokenizer(), num_tokens=NUM_PLACES).encode("")
    assert empty.counts().tolist() == [[1, NUM_PLACES - 1]]
    assert empty.rows_BMW.any(2).all()


class FakeTokenizer:
    """Three letters a token, then the end token; padded with 0."""

    def __call__(self, prompts: list[str], *, max_length: int, **_: Any) -> Any:
        ids = [*(3 + len(word) for prompt in prompts for word in prompt.split()), 1]
        padded = torch.tensor([ids + [0] * (max_length - len(ids))])
        return type("Tokens", (), {"input_ids": padded, "attention_mask": (padded > 0).long()})


@pytest.mark.parametrize("num_words", [1, 2, 6, 13, 31, 200, 511])
def test_equal_places_follow_from_umt5s_buckets(num_words: int) -> None:
    attention: Any = umt5().encoder.block[0].layer[0].SelfAttention
    places = torch.arange(NUM_PLACES)
    buckets = attention._relative_position_bucket(places[None, :num_words] - places[num_words:, None])
    changes = (buckets[1:] != buckets[:-1]).any(1).nonzero()[:, 0] + 1
    edges = [0, *(changes.tolist() if num_words > 1 else []), NUM_PLACES - num_words]
    assert padding_counts(num_words, NUM_PLACES) == [b - a for a, b in pairwise(edges)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_words", [1, 6, 13, 31])
def test_rows_of_umt5_are_merged_to_the_bit(dtype: torch.dtype, num_words: int) -> None:
    raw_BNW = places_of(umt5(dtype), num_words)
    text = TextTokens.merged(raw_BNW)
    assert text.rows_BMW.shape[1] <= num_words + len(padding_counts(num_words, NUM_PLACES))
    as_bits = [sorted(row.numpy().tobytes() for row in places) for places in (raw_BNW[0], text.places()[0])]
    assert as_bits[0] == as_bits[1]


def test_prompts_are_cleaned_as_released() -> None:
    assert clean("  close\tthe&nbsp;&amp;quot;left&amp;quot;\n drawer ") == 'close the "left" drawer'
    assert clean("lâ\u20ac\u2122armoire \ufb01ne") == "l'armoire fine"


# ---- merged rows in the network


def both(network: XwamNetwork, raw_BNW: torch.Tensor, text: TextContext) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the outputs of a network with a text and those of the reference network, which reads every place."""
    video, action, proprio, _ = inputs_of(batch=len(raw_BNW))
    geometry = network.geometry(video, ACTIONS, STATES)
    t_B = torch.linspace(200, 900, len(raw_BNW))
    times, reference = network.timesteps(t_B, t_B / 2, geometry), ReferenceNetwork(network, geometry)
    ours = network(video, action, proprio, times, text, depth=True)
    theirs = reference(video, action, proprio, times, reference.encode_text(raw_BNW), depth=True)
    return [(one, two) for one, two in zip(ours, theirs, strict=True) if one is not None and two is not None]


def test_merged_rows_give_the_same_as_all_places() -> None:
    network, raw_BNW = network_of(LONG), places_of(umt5(), 1, 6, 31)
    parts = [network.encode_text(raw_NW[None]) for raw_NW in raw_BNW]
    assert len({part.num_tokens for part in parts}) == 3
    for text in (network.encode_text(raw_BNW), TextContext.cat(parts)):
        for got, expected in both(network, raw_BNW, text):
            torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_guidance_reads_the_empty_prompts_own_rows() -> None:
    network, raw_BNW = network_of(LONG), places_of(umt5(), 13, 1)
    video, action, proprio, _ = inputs_of(batch=1)

    def walked(model: Any) -> torch.Tensor:
        state = begin(
            Schedule(num_video_steps=3, num_action_steps=2, guidance=2.0),
            noise_video_BCTVHW=video,
            noise_action_BKA=action,
            noise_proprio_BPS=proprio,
            seen_latent_BCVHW=video[:, :, 0],
            seen_proprio_BS=proprio[:, 0],
            text=model.encode_text(raw_BNW[:1]),
            null_text=model.encode_text(raw_BNW[1:]),
        )
        return run(model, state).video.x

    reference = ReferenceNetwork(network, network.geometry(video, ACTIONS, STATES))
    torch.testing.assert_close(walked(network), walked(reference), atol=1e-4, rtol=1e-4)


def test_gradients_are_those_of_all_places() -> None:
    raw_BNW = places_of(umt5(), 6, 31)
    gradients = []
    for merge in (True, False):
        network = network_of(LONG).requires_grad_(True)
        plain = TextTokens(raw_BNW)
        text = network.encode_text(TextTokens.merged(raw_BNW) if merge else plain)
        video, action, proprio, _ = inputs_of()
        geometry: Geometry = network.geometry(video, ACTIONS, STATES)
        t_B = torch.tensor([700.0, 300.0])
        out = network(video, action, proprio, network.timesteps(t_B, t_B, geometry), text, depth=True)
        sum(part.square().mean() for part in out if part is not None).backward()  # type: ignore[union-attr]
        gradients.append(network.blocks[0].cross_attn.k.weight.grad)  # type: ignore[union-attr]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_of_merged_rows_are_exact_in_every_type(dtype: torch.dtype) -> None:
    counts_BM = torch.tensor([[1, 2, 3, 7, 40, 130, 329, 0], [500, 1, 1, 1, 1, 1, 6, 1]])
    rows_BMW = torch.arange(16.0).reshape(2, 8, 1)
    read = read_rows(TextTokens(rows_BMW, counts_BM), dtype)
    assert read.logits_BM is not None
    assert torch.equal(read.logits_BM.to(dtype).float(), read.logits_BM)
    weights_BM = read.logits_BM.double().exp()
    for prompt in range(2):
        for row, count in zip(rows_BMW[prompt], counts_BM[prompt].tolist(), strict=True):
            weight = weights_BM[prompt][(read.rows_BMW[prompt] == row)[:, 0]].sum().item()
            assert weight == pytest.approx(count, rel=1e-3)


@pytest.mark.parametrize("gradients", [False, True])
def test_counts_are_exact_under_autocast(gradients: bool) -> None:
    network = network_of(LONG)
    text = TextTokens(torch.randn(1, 2, 32), torch.tensor([[1, 511]]))
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(gradients):
        context = network.encode_text(text)
        assert context.bias_BN is not None
        assert torch.equal(context.bias_BN.bfloat16().float(), context.bias_BN)
        assert context.bias_BN[0, 1:].double().exp().sum().item() == pytest.approx(511, rel=1e-3)
        attention = network.blocks[0].cross_attn
        attention.o = torch.nn.Identity()  # type: ignore[assignment,union-attr]
        key, value = context.main[0]
        value = torch.zeros_like(value)
        value[:, :, 0] = 1
        query = torch.zeros_like(key[:, :, :1])
        read = attention.read(query, KeyValue(key, value), context.bias_BN)  # type: ignore[operator,union-attr]
    torch.testing.assert_close(read.double(), torch.full_like(read, 1 / 512).double(), rtol=1e-3, atol=0)


def test_text_without_equal_rows_has_no_logits() -> None:
    text = TextTokens.merged(torch.randn(2, 5, 3))
    assert text.counts_BM is None
    assert read_rows(text, torch.float32).logits_BM is None
    joined = TextTokens.cat([text, TextTokens.merged(torch.ones(1, 5, 3))])
    assert joined.counts().tolist() == [[1] * 5, [1] * 5, [5, 0, 0, 0, 0]]
    assert torch.equal(joined.places()[2], torch.ones(5, 3))


# ---- dropped and missing prompts


def test_a_dropped_prompt_is_the_empty_prompt_encoded(shared_root: Path) -> None:
    model = model_of(shared_root)
    bundle = with_umt5(fresh_bundle(model, seed=0))
    recipe = replace(RECIPE, text_drop=1.0, noise_draws=1)
    encoder = Encoder(bundle, recipe, torch.device("cpu"))
    sample = prepare_data(shared_root, scan(shared_root), bundle, recipe).training[0]
    drawn = encoder.draws(encoder.batch([sample] * 2), [sample] * 2, slots(recipe, 9, 0)[:2]).text
    expected = bundle.text_encoder.encode("").places()
    assert expected.any(2).all()
    assert torch.equal(drawn.places(), torch.cat([expected, expected]))


def test_guidance_of_a_request_reads_the_empty_prompt() -> None:
    bundle = with_umt5(fresh_bundle(NANO, seed=0))
    engine = Engine(bundle, Schedule(num_video_steps=2, num_action_steps=1, guidance=2.0))
    height, width = engine.numbers.interface.env_image_hw_px(NANO)
    seen = Seen(np.zeros((len(NANO.views), height, width, 3), np.uint8), np.eye(16)[3] + np.eye(16)[11], "open it")
    found = engine.begin(seen, seed=0).state.null_text
    expected = bundle.network.encode_text(bundle.text_encoder.encode(""))
    assert found is not None
    assert torch.equal(found.embedded_BND, expected.embedded_BND)
    assert found.embedded_BND.shape[1] < NANO.network.text_len


# ---- stored prompts


def test_stored_prompts_hold_all_places_and_ignore_older_files(tmp_path: Path) -> None:
    model, asked = umt5(), []

    class Encoder:
        def encode(self, prompt: str) -> TextTokens:
            asked.append(prompt)
            return TextTokens.merged(places_of(model, 6))

    def stored() -> StoredText:
        return StoredText(tmp_path, identity="a", make=Encoder, shape=(NUM_PLACES, 32))

    name_of_version_1 = hashlib.sha256(f"a\0{(NUM_PLACES, 32)}\0open it".encode()).hexdigest()
    save_file({"tokens": torch.zeros(3, 32)}, tmp_path / f"{name_of_version_1}.safetensors")
    first, second = stored().encode("open it"), stored().encode("open it")
    assert asked == ["open it"]
    assert torch.equal(first.places(), second.places())
    assert second.num_places == (NUM_PLACES,)


class Block:
    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes


def test_recent_values_stay_within_their_memory() -> None:
    recent: Recent[Block] = Recent(10)
    kept = [recent.get(name, lambda: Block(4)) for name in "aabcab"]
    assert kept[0] is kept[1]
    assert kept[4] is not kept[0]  # it left when c came
    assert (len(recent), recent.num_bytes) == (2, 8)
    recent.get("large", lambda: Block(11))
    assert (len(recent), recent.num_bytes) == (0, 0)


def test_a_full_store_of_prompts_takes_what_was_computed() -> None:
    bundle, places = tiny_bundle(), 64
    config = replace(bundle.model.network, text_len=places, text_width=16)
    network = network_of(config)
    encoder = UmT5Text(umt5(width=16), FakeTokenizer(), num_tokens=places)
    bundle = bundle._replace(network=network, text_encoder=encoder)
    prompts = ["move " * (count % 9) + "a" * (count // 9) for count in range(64)]
    alone = PromptStore(bundle, max_bytes=1 << 40)
    sizes = [alone.read(prompt).num_bytes for prompt in prompts]
    rows = [alone.read(prompt).num_tokens for prompt in prompts]
    assert sizes == [context_bytes(config, num_rows, torch.float32) for num_rows in rows]

    bound = sum(sizes) // 4
    store, most = PromptStore(bundle, max_bytes=bound), 0
    for prompt in (*prompts, *prompts[::-1]):
        before = store.num_bytes
        made = store.read(prompt)
        most = max(most, before + made.num_bytes)
        assert store.num_bytes <= bound
        assert torch.equal(made.embedded_BND, alone.read(prompt).embedded_BND)
    computed = peak_prompt_bytes(config, torch.float32, num_prompts=64, num_rows=max(rows), max_bytes=bound)
    assert bound / 2 < most <= computed


def test_64_prompts_of_the_released_size_take_less_than_2_gib() -> None:
    for num_rows in (12 + len(padding_counts(12, NUM_PLACES)), NUM_PLACES):
        for dtype in (torch.bfloat16, torch.float32):
            assert peak_prompt_bytes(WAN22_5B, dtype, num_prompts=64, num_rows=num_rows) < 2 * GIB
    assert peak_prompt_bytes(WAN22_5B, torch.bfloat16, num_prompts=1, num_rows=NUM_PLACES) < PROMPT_BYTES
    assert 64 * context_bytes(WAN22_5B, NUM_PLACES, torch.bfloat16) > 15 * GIB  # unbounded and unmerged
