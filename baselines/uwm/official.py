"""The weights of the original UWM, and why they do not load here.

In: a file that WEIRDLabUW/unified-world-model (commit 677560e) wrote. Out: a refusal.
Read next: `docs/baselines.md`, which lists its tensors.

The file is not unpickled: it holds Python objects (normalisers) next to the tensors. The names of its tensors stand in
its pickle as text.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from xwam.checkpoints.metadata import CheckpointError

MARK = b"noise_pred_net.registers"
"""Name of a tensor that only the original UWM has."""

REASON = (
    "its network is another one, so no tensor of it fits UWM on Wan2.2: 12 blocks of width 768 that read no text and "
    "take ResNet features and both timesteps by AdaLN, learned positions, patches of SDXL latents"
)


def is_original(path: Path) -> bool:
    """Return whether a file holds the weights of the original UWM; nothing is unpickled."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(MARK in archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))


def refuse_original(path: Path) -> None:
    """Raise CheckpointError if a file holds the weights of the original UWM."""
    if is_original(path):
        raise CheckpointError(
            f"{path} holds the original UWM: {REASON}. Start from Wan2.2 instead (`xwam convert WAN2.2 TARGET "
            "--model uwm --start BENCH --statistics FILE`), or train `uwm/nano`."
        )
