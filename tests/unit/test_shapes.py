"""The shape checker is on: without this test, no other one fails when it is off."""

import pytest
import torch
from jaxtyping import TypeCheckError

from xwam.codecs.patch_dct import PatchDCT


def test_a_wrong_shape_raises() -> None:
    codec = PatchDCT(channels=48)
    assert codec.encode(torch.zeros(1, 3, 9, 32, 32)).shape == (1, 48, 3, 2, 2)
    with pytest.raises(TypeCheckError):
        codec.encode(torch.zeros(3, 9, 32, 32))
