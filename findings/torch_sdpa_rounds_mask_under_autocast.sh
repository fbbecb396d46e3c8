#!/usr/bin/env bash
# What surprises: under bfloat16 autocast, torch's scaled_dot_product_attention also rounds a float32 `attn_mask` to
# bfloat16. A mask that holds more than 0 and -inf (log counts of merged tokens, relative positions) then shifts the
# weights. Guess: the mask stays float32, because softmax is on autocast's list of float32 operations. log 511 becomes
# log 518: one token next to 511 equal ones that are merged into a single key with log 511 on its logit loses 1.2 % of
# its weight. Nothing warns, with gradients or without. Counts up to 512 are off by up to 1.6 %.
#
# Versions: torch 2.13.0, numpy 1.26.4 (Python 3.11), CPU.
# Seen: weight of the single token 0.0019302 (exact: 1/512 = 0.0019531) with gradients and without; log 511 in bfloat16
# is the logarithm of 518.01; largest error of a count from 1 to 512: 1.57 %.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==1.26.4
"$work/venv/bin/python" - <<'PY'
import math

import torch
from torch.nn.functional import scaled_dot_product_attention as attention

keys = torch.zeros(1, 1, 2, 64)  # equal logits: the mask alone decides the weights
values = torch.tensor([1.0, 0.0])[None, None, :, None].expand(1, 1, 2, 64)
mask = torch.tensor([0.0, math.log(511)])[None, None, None]


def weight(*, gradients: bool, autocast: bool) -> float:
    query = torch.zeros(1, 1, 1, 64, requires_grad=gradients)
    with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return attention(query, keys, values, attn_mask=mask)[0, 0, 0, 0].item()


exact = 1 / 512
seen = {grad: weight(gradients=grad, autocast=True) for grad in (True, False)}
plain = weight(gradients=False, autocast=False)
counts = torch.arange(1, 513).double()
rounded = counts.log().bfloat16().double().exp()
worst = ((rounded - counts).abs() / counts).max().item()
print(f"weight of the single token: exact {exact:.7f}, float32 {plain:.7f}, autocast {seen[True]:.7f} with gradients, "
      f"{seen[False]:.7f} without")
print(f"log 511 in bfloat16 is the logarithm of {rounded[510].item():.2f}; largest error of a count: {100 * worst:.2f} %")
assert abs(plain - exact) < 1e-9
assert all(abs(value / exact - 1 + 0.0117) < 0.003 for value in seen.values()), seen
assert abs(rounded[510].item() - 518.01) < 0.01 and abs(worst - 0.0157) < 0.0005
PY
