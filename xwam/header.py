"""What a checkpoint of ours says about itself, read without a framework and without its weights.

In: a path to a safetensors file. Out: its metadata and its `ModelConfig`.
Read next: `checkpoints.py`, which reads the weights.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from xwam.config import ModelConfig

FORMAT = "xwam/1"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one sentence that names what is wrong."""


def read_model(path: Path) -> ModelConfig:
    """Return the configuration in a checkpoint of our own.

    Raises:
        CheckpointError: If the file is missing, cut off or of another kind.
    """
    metadata = read_metadata(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file without a configuration of ours (format '{FORMAT}'); convert it first."
        )
    return ModelConfig.from_json(json.loads(metadata["model"]))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the text stored beside the weights of a safetensors file.

    Raises:
        CheckpointError: If the file is missing, cut off or of another kind.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at {path}.")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise CheckpointError(f"{path} is cut off or no safetensors file: {size} bytes are too few for its header.")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise CheckpointError(f"{path} is no safetensors file: its header is not JSON.") from error
    end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    if size != 8 + length + end:
        raise CheckpointError(f"{path} is cut off: {8 + length + end} bytes were written, {size} are there.")
    return header.get("__metadata__", {})
