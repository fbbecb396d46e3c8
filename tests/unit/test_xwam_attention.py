"""Attention as a CPU computes it fast: spelt out in bfloat16, and queries, keys and values of one product.

In: random tokens and weights. Out: a comparison with float64, with three products, and of rows in other company.
Read next: `xwam/network/attention.py`.
"""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.doubles.networks import ACTIONS, STATES, inputs_of, network_of
from xwam.checkpoints.bundle import save_checkpoint
from xwam.checkpoints.fresh import fresh_network
from xwam.config import NANO
from xwam.network import attention, processor
from xwam.network.attention import Attention, KeyValue, attend
from xwam.network.processor import linear_gelu
from xwam.network.rope import Rope
from xwam.network.transformer import Denoised, TextContext, XwamNetwork

BFLOAT16_ERROR = 0.02


@pytest.fixture
def fast_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention takes the path of a CPU with AVX512-BF16, on any CPU."""
    monkeypatch.setattr(attention, "multiplies_bfloat16", lambda: True)


def tokens_of(batch: int, queries: int, keys: int, kind: torch.dtype, seed: int = 0) -> tuple[Tensor, KeyValue]:
    generator = torch.Generator().manual_seed(seed)
    sizes = [(batch, 2, queries, 32), (batch, 2, keys, 32), (batch, 2, keys, 32)]
    query, key, value = (torch.randn(size, generator=generator).to(kind) for size in sizes)
    return query, KeyValue(key, value)


def exact(query: Tensor, memory: KeyValue, bias_BN: Tensor | None) -> Tensor:
    """Return attention in float64."""
    logits = query.double() @ memory.key.double().transpose(2, 3) * query.shape[-1] ** -0.5
    if bias_BN is not None:
        logits = logits + bias_BN[:, None, None].double()
    return logits.softmax(-1) @ memory.value.double()


@pytest.mark.parametrize("biased", [False, True])
@torch.inference_mode()
def test_attention_spelt_out_is_attention(biased: bool, fast_bfloat16: None, monkeypatch: pytest.MonkeyPatch) -> None:
    query, memory = tokens_of(2, 150, 90, torch.bfloat16)
    bias_BN = None
    if biased:  # the second prompt has ten tokens less
        bias_BN = torch.randn(2, 90)
        bias_BN[1, 80:] = -math.inf
    assert attention._is_faster_spelt_out(query, memory)
    found, expected = attend(query, memory, bias_BN), exact(query, memory, bias_BN)
    assert found.dtype == torch.bfloat16
    assert (found - expected).square().mean().sqrt() < BFLOAT16_ERROR * expected.std()
    monkeypatch.setattr(attention, "MOST_LOGITS", 2 * 2 * 90 * 40)  # 40 queries at once
    torch.testing.assert_close(attend(query, memory, bias_BN), found, atol=0.01, rtol=0.01)


@torch.inference_mode()
def test_fused_attention_stays_where_it_is_as_fast(fast_bfloat16: None) -> None:
    sizes = {(150, 90): True, (150, 20): False, (60, 60): False}
    for (queries, keys), spelt_out in sizes.items():
        query, memory = tokens_of(1, queries, keys, torch.bfloat16)
        assert attention._is_faster_spelt_out(query, memory) == spelt_out
        assert not attention._is_faster_spelt_out(query.float(), memory)
    with torch.inference_mode(False), torch.enable_grad():
        assert not attention._is_faster_spelt_out(*tokens_of(1, 150, 90, torch.bfloat16))


@pytest.mark.parametrize("neighbour", [1.0, 1e30, math.nan])
@torch.inference_mode()
def test_a_row_reads_the_same_in_any_company(neighbour: float, fast_bfloat16: None) -> None:
    (query, memory), (other, others) = (tokens_of(4, 150, 90, torch.bfloat16, seed) for seed in (0, 1))
    expected = attend(query, memory)
    for row in range(4):
        for slot in range(4):
            mixed = [part * neighbour for part in (other, *others)]
            for part, own in zip(mixed, (query, *memory), strict=True):
                part[slot] = own[row]
            assert torch.equal(attend(mixed[0], KeyValue(*mixed[1:]))[slot], expected[row])


# ---- one product


def attention_of(kind: torch.dtype = torch.float32) -> Attention:
    torch.manual_seed(0)
    made: Attention = Attention(NANO.network).to(kind).requires_grad_(False)
    for weight in made.parameters():
        weight.normal_(0.0 if weight.dim() > 1 else 1.0, 0.1)
    return made


def rope_of(tokens: int) -> Rope:
    angle = torch.rand(tokens, 1, NANO.network.head_width // 2)
    return Rope(angle.cos(), angle.sin())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_one_product_makes_what_three_make(kind: torch.dtype) -> None:
    module, x, rope = attention_of(kind), torch.randn(3, 40, NANO.network.width).to(kind), rope_of(40)
    apart = module.query_key_value(x, rope)
    module.join()
    together = module.query_key_value(x, rope)
    limit = 2e-6 if kind == torch.float32 else 0.02
    for found, expected in zip((together[0], *together[1]), (apart[0], *apart[1]), strict=True):
        assert found.dtype == kind
        assert found.is_contiguous()
        assert (found - expected).abs().max() < limit * expected.abs().max()


def test_a_joined_weight_is_never_out_of_date() -> None:
    module, x, rope = attention_of(), torch.randn(1, 40, NANO.network.width), rope_of(40)
    module.join()
    with torch.inference_mode():
        module.k.weight.data.mul_(2)
        module.v.bias.data.add_(1)
        found = module.query_key_value(x, rope)
        assert module._in_one_piece() is not None
        apart = copy.deepcopy(module)
        assert apart._in_one_piece() is None
        expected = apart.query_key_value(x, rope)
        torch.testing.assert_close(found[1].key, expected[1].key, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[1].value, expected[1].value, atol=1e-5, rtol=1e-5)
    module.q.weight = nn.Parameter(torch.zeros_like(module.q.weight))
    assert module._in_one_piece() is None


def test_another_type_takes_joined_weights_apart() -> None:
    network = fresh_network(NANO.network, seed=0).join_projections()
    blocks = [block.self_attn for block in network.main_blocks()]
    assert all(block._in_one_piece() is not None for block in blocks)
    network.cast(torch.bfloat16)
    assert all(block._in_one_piece() is None for block in blocks)
    network.join_projections()
    assert all(block._in_one_piece() is not None for block in blocks)


def test_a_checkpoint_of_joined_weights_has_the_same_bytes(tmp_path: Path) -> None:
    network = fresh_network(NANO.network, seed=0)
    save_checkpoint(tmp_path / "apart", network, NANO)
    names = list(network.state_dict())
    network.join_projections()
    assert list(network.state_dict()) == names
    save_checkpoint(tmp_path / "together", network, NANO)
    assert (tmp_path / "apart").read_bytes() == (tmp_path / "together").read_bytes()


def test_gradients_do_not_depend_on_joined_weights() -> None:
    gradients = []
    for joined in (False, True):
        network = network_of()
        network = (network.join_projections() if joined else network).requires_grad_(True)
        sum(part.square().sum() for part in passed(network, inputs_of()) if part is not None).backward()  # type: ignore[union-attr]
        gradients.append({name: weight.grad for name, weight in network.named_parameters()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])  # type: ignore[arg-type]


# ---- the whole network


def passed(network: XwamNetwork, inputs: list[Tensor], text: TextContext | None = None) -> Denoised:
    video, action, proprio, prompt = inputs
    level = torch.full((len(video),), 700.0)
    times = network.timesteps(level, level / 2, network.geometry(video, ACTIONS, STATES))
    return network(video, action, proprio, times, text or network.encode_text(prompt), depth=True)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 2])
@torch.inference_mode()
def test_a_pass_of_fixed_width_ignores_its_company(threads: int, kind: torch.dtype, fast_bfloat16: None) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        network, inputs, others = network_of().cast(kind).join_projections(), inputs_of(4), inputs_of(4, seed=2)
        texts = [
            [network.with_depth_text(network.encode_text(row[None])) for row in part[3]] for part in (inputs, others)
        ]
        alone = passed(network, inputs, TextContext.cat(texts[0]))
        for slot in range(4):
            mixed = [torch.full_like(other, math.nan) if slot == 3 else other.clone() for other in others]
            for part, own in zip(mixed, inputs, strict=True):
                part[slot] = own[1]
            rows = [texts[0][1] if row == slot else text for row, text in enumerate(texts[1])]
            whole = passed(network, mixed, TextContext.cat(rows))
            for found, expected in zip(whole, alone, strict=True):
                assert found is not None
                assert expected is not None
                assert torch.equal(found[slot], expected[1])
    finally:
        torch.set_num_threads(before)


# ---- GELU


@torch.inference_mode()
def test_gelu_within_the_product_is_gelu() -> None:
    if not processor._fuses_gelu():
        pytest.skip("this CPU does not multiply bfloat16, or PyTorch has no oneDNN product with GELU")
    torch.manual_seed(0)
    linear, x = nn.Linear(192, 576).bfloat16(), torch.randn(2, 40, 192).bfloat16()
    exact = F.gelu(F.linear(x.double(), linear.weight.double(), linear.bias.double()), approximate="tanh")
    found, two_steps = linear_gelu(x, linear), F.gelu(linear(x), approximate="tanh")
    assert not torch.equal(found, two_steps), "the fused path was not taken"
    assert (found - exact).abs().max() <= 1.5 * (two_steps - exact).abs().max()


def test_gelu_keeps_its_gradient() -> None:
    linear, x = nn.Linear(192, 576), torch.randn(2, 40, 192)
    assert torch.equal(linear_gelu(x, linear), F.gelu(linear(x), approximate="tanh"))
    linear_gelu(x, linear).sum().backward()  # type: ignore[no-untyped-call]
    assert linear.weight.grad is not None


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_gelu_of_a_row_ignores_its_company(kind: torch.dtype) -> None:
    linear, x = nn.Linear(192, 576).to(kind), torch.randn(4, 77, 192).to(kind)
    expected = linear_gelu(x, linear)
    for slot in range(4):
        mixed = torch.full_like(x, math.nan)
        mixed[slot] = x[1]
        assert torch.equal(linear_gelu(mixed, linear)[slot], expected[1])
