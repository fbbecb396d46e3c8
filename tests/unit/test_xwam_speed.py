"""What the GPU table counts, checked against PyTorch's own counter."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.unit.test_xwam_network import ACTIONS, STATES, TINY, inputs_of, network_of
from xwam import speed


@pytest.mark.parametrize("depth", [False, True])
def test_flops_are_those_that_pytorch_counts(depth):
    network, (video, action, proprio, text) = network_of(), inputs_of(batch=1)
    geometry = network.geometry(video, ACTIONS, STATES)
    times = network.timesteps(torch.tensor([700.0]), torch.tensor([300.0]), geometry)
    context = network.with_depth_text(network.encode_text(text))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(video, action, proprio, times, context, depth=depth)
    counted = counter.get_total_flops()
    estimated = speed.step_flops(TINY, geometry, num_text=5, depth=depth)
    assert estimated == pytest.approx(counted, rel=0.15)  # embeddings, time projection and heads are left out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so(capsys):
    assert speed.main([]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err
