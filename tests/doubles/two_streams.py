"""Small networks with two streams of tokens, and X-WAM's weights in both of their streams.

In: nothing. Out: networks with random weights.
Read next: `networks.py` for X-WAM's and for inputs; `tests/unit/test_joint_attention.py`.
"""

import torch

from baselines.joint_attention.config import TwoStreamConfig, two_streams
from baselines.joint_attention.network import TwoStreamNetwork
from tests.doubles.networks import TINY, network_of
from xwam.config import NetworkConfig
from xwam.network.transformer import XwamNetwork

TINY_STREAMS = two_streams(TINY, action_width=20, action_ffn_width=24)


def two_streams_of(config: TwoStreamConfig = TINY_STREAMS, seed: int = 0) -> TwoStreamNetwork:
    torch.manual_seed(seed)
    network = TwoStreamNetwork(config).eval().requires_grad_(False)
    for weight in network.parameters():
        weight.normal_(0, 0.2)
    return network


def tied(config: NetworkConfig = TINY, *, sees_future: bool = True) -> tuple[TwoStreamNetwork, XwamNetwork]:
    """Return a network whose two streams have the same weights, and X-WAM's network with those weights."""
    single = network_of(config)
    both = TwoStreamNetwork(
        two_streams(
            config,
            action_width=config.width,
            action_ffn_width=config.ffn_width,
            actions_see_future=sees_future,
        )
    )
    weights = single.state_dict()
    names = both.state_dict()
    sources = {name: name.replace(".action.", ".").removeprefix("action_") for name in names if name not in weights}
    both.load_state_dict({name: weights[sources.get(name, name)] for name in names})
    return both.eval().requires_grad_(False), single
