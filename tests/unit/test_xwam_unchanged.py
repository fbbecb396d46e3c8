"""X-WAM acts, imagines, trains and writes as before it became one family among several.

In: seeds. Out: a comparison with numbers of the version before. They were equal to the bit on one machine; other
processors round otherwise, hence the tolerances.
Read next: `tests/unit/test_xwam_families.py`.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.doubles.known import known
from tests.doubles.xwam import request_of
from xwam.config import NANO
from xwam.policy import XwamPlugin, XwamPolicyConfig

FIRST_ACTIONS = {
    "random-nano": [0.51498, -0.39104, -0.74588, 0.21639, -1.0, -0.77572, 0.72177],
    "nano": [-0.1669, -0.68855, -0.88246, -0.04008, 0.00528, -0.12296, 0.82925],
}
MEAN_RGB = {"random-nano": [127.4858, 127.46, 127.6109], "nano": [127.5284, 127.4436, 112.8139]}
MEAN_DEPTH_M = {"random-nano": [1.25, 1.25, 2.7723], "nano": [1.25, 1.25, 7.95265]}
LAST_STATE = {
    "random-nano": [0.50151, 0.09561, 0.20136, 0.00442, 0.99998, 0.00125, -0.00349, 0.99862],
    "nano": [0.45462, -0.08712, 0.08287, 0.14565, 0.9673, -0.09071, -0.1868, 1.03837],
}
CONFIGURATION_SHA256 = "1d090ab3b97cc7547e1325717a9e28d33313962e08ee107932de4330904bf82e"
RECIPE_SHA256 = "768c534d926228d160e096103fb8b2fbafa0d42922da451042073be57be75ed1"
NORMS = {
    "blocks.0.ffn.0.weight": 4.482696,
    "action_decoder.2.weight": 0.328518,
    "extra_heads.0.head.weight": 1.085478,
    "proprio_encoder.0.weight": 0.326727,
}
"""Of some weights after a training of seven steps."""


@pytest.mark.parametrize("checkpoint", FIRST_ACTIONS)
def test_a_seed_gives_the_same_chunk(checkpoint: str) -> None:
    (reply,) = XwamPlugin().make(XwamPolicyConfig(checkpoint)).infer([request_of(3, num_predicted_frames=8)])
    prediction = known(reply.prediction)()
    np.testing.assert_allclose(reply.actions[0, :7], FIRST_ACTIONS[checkpoint], atol=1e-3)
    np.testing.assert_allclose(prediction.rgb.mean(axis=(0, 2, 3, 4)), MEAN_RGB[checkpoint], atol=0.05)
    np.testing.assert_allclose(known(prediction.depth).mean(axis=(0, 2, 3)), MEAN_DEPTH_M[checkpoint], rtol=0.01)
    np.testing.assert_allclose(known(prediction.proprio)[-1, :8], LAST_STATE[checkpoint], atol=1e-3)


def test_a_configuration_is_written_as_before() -> None:
    assert hashlib.sha256(json.dumps(NANO.to_json()).encode()).hexdigest() == CONFIGURATION_SHA256


def test_a_training_takes_the_same_steps(shared_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="training needs Accelerate: pip install 'evalkit[train]'")
    from tests.doubles.training import trainer_of, weights_of

    trainer_of(shared_root, tmp_path).run()
    weights = weights_of(tmp_path)
    assert {name: float(weights[name].double().norm()) for name in NORMS} == pytest.approx(NORMS, rel=1e-3)
    recipe = json.loads((tmp_path / "run.json").read_text())["recipe"]
    assert hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest() == RECIPE_SHA256
