"""The metadata of a checkpoint, read without a framework and without the weights.

In: a path. Out: a `ModelConfig`, the notes of training.
Read next: `hub.py` for names and downloads, `bundle.py`, which reads the weights.

A checkpoint is one of: a safetensors file of ours; a folder of ours (`model.safetensors`, `xwam.json`, `vae/`,
`text_encoder/`, `tokenizer/`); a released experiment (`config.yaml`, `checkpoints/last.ckpt/`); a folder of
Wan or diffusers with `xwam.json` and `xwam_additions.safetensors` in it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.contracts.spec import OSC_DELTA_BASE
from evalkit.dataset.depth_video import DepthRange
from xwam.config import (
    WAN22_5B,
    CodecConfig,
    DepthMode,
    ModelConfig,
    NetworkConfig,
    TextConfig,
    network_from_release,
)
from xwam.families import model_from_text
from xwam.robots.actions import training_bounds
from xwam.robots.interfaces import INTERFACES

FORMAT = "xwam/1"


MODEL_FILE = "model.safetensors"
RELEASED_WEIGHTS = Path("checkpoints/last.ckpt/checkpoint/mp_rank_00_model_states.pt")

MODEL_JSON = "xwam.json"
"""Our configuration, in a folder with weights in any layout except the released one."""


ADDITIONS_FILE = "xwam_additions.safetensors"
"""The tensors that X-WAM adds to Wan's transformer, in a file of their own."""

TEXT_CONFIG = "text_encoder/config.json"
"""Sizes of the text encoder of a checkpoint of ours, as transformers writes them."""

TOKENIZER_PLACES = ("tokenizer", "google/umt5-xxl")
"""Where a checkpoint of ours, and the folder of Wan2.2, hold the tokenizer of umT5."""

RELEASED_BENCHES: dict[str, dict[str, Any]] = {
    "robocasa": {"views": ("static", "static", "wrist"), "arms": ("left",), "control_hz": 20.0},
    "robotwin": {"views": ("static", "wrist", "wrist"), "arms": ("left", "right"), "control_hz": None},
}
"""Cameras in sorted order of their names, and arms, of the two released models."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one sentence that names what is wrong."""


def read_model(path: Path) -> ModelConfig:
    """Return the configuration in a checkpoint.

    The sizes of a released network may be known only from its weights (see `stated_sizes`); until those are read, it
    counts as the 5B one.

    Raises:
        CheckpointError: If the file is missing, cut off or of another kind.
    """
    if (path / "config.yaml").is_file():
        return released_model(read_yaml(path / "config.yaml"))
    file = path / MODEL_FILE if path.is_dir() else path
    if (path / MODEL_JSON).is_file() and not file.is_file():
        return _model_of((path / MODEL_JSON).read_text(), source=path / MODEL_JSON)
    metadata = read_metadata(file)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{file} holds weights without a configuration of ours (format '{FORMAT}'); convert it with `xwam convert`."
        )
    return _model_of(metadata.get("model", ""), source=file)


def read_notes(path: Path) -> dict[str, str]:
    """Return the notes of training (steps, command, recipe, hash of the data); empty for checkpoints without them.

    Args:
        path: What `locate` returned.

    Raises:
        CheckpointError: If the file is cut off or of another kind.
    """
    file = path / MODEL_FILE if path.is_dir() else path
    return json.loads(read_metadata(file).get("notes", "{}")) if file.is_file() else {}


def network_notes(notes: Mapping[str, str]) -> dict[str, str]:
    """Return the notes on the network, without those on its pixel decoder.

    Example:
        >>> network_notes({"steps": "9000", "decoder_steps": "700"})
        {'steps': '9000'}
    """
    return {name: note for name, note in notes.items() if not name.startswith("decoder_")}


def stated_sizes(settings: Mapping[str, Any]) -> NetworkConfig | None:
    """Return the sizes in a released `config.yaml`, or None; `xwam convert` writes them, the authors do not.

    Raises:
        CheckpointError: If this code cannot build such a network.
    """
    if "network" not in settings:
        return None
    try:
        return network_from_release(settings["network"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"The released config.yaml states a network that cannot be built: {error}.") from error


def released_model(settings: Mapping[str, Any]) -> ModelConfig:
    """Return the configuration behind the `config.yaml` of a released experiment.

    Raises:
        CheckpointError: If a setting that is needed is missing.
    """
    try:
        data = settings["dataset"]
        num_frames, stride = data["sequence_length"] - 1, data["frame_skip"]
        model = start_model(
            _released_sizes(settings),
            bench=_bench(data),
            statistics=data["statistics"],
            num_depth_blocks=settings["num_extra_layers"],
        )
        height, width = data["video_size"]
        video_steps = settings.get("sample_steps", 50)
        together = not settings.get("use_decoupled_inference", True)
        num_actions = num_frames * stride // data["action_skip"]
        return replace(
            model,
            name=settings.get("exp_name", model.name),
            image_hw_px=(height, width),
            num_actions=num_actions,
            num_future_frames=num_frames,
            frame_stride=stride,
            num_video_steps=video_steps,
            num_action_steps=video_steps if together else settings.get("action_denoise_steps", 10),
            execute_steps=settings.get("execute_steps", num_actions),
            depth_range=DepthRange(**settings.get("depth_range", {})),
            depth_known="depth_range" in settings,
        )
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"The released config.yaml has no setting {error}.") from error
    except (AttributeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"The released config.yaml cannot be used: {str(error).rstrip('.')}.") from error


def _released_sizes(settings: Mapping[str, Any]) -> NetworkConfig:
    """Return the sizes behind a released `config.yaml`; those that it does not state are the 5B ones.

    Raises:
        CheckpointError: If actions or states are not those of two arms, or actions do not divide among frames.
    """
    depth: DepthMode = "interleaved" if settings.get("use_depth", True) else "none"
    dims = settings.get("action_dim", 14), settings.get("proprio_dim", 16)
    if dims != (14, 16):
        raise CheckpointError(f"Actions and states must have 14 and 16 numbers, the config.yaml says {dims}.")
    frames, actions = settings["dataset"]["frame_skip"], settings["dataset"]["action_skip"]
    if actions < 1 or frames < 1 or frames % actions:
        raise CheckpointError(f"frame_skip {frames} must be a multiple of action_skip {actions} in the config.yaml.")
    return replace(
        stated_sizes(settings) or WAN22_5B,
        text_len=settings["text_len"],
        depth=depth,
        action_dim=dims[0],
        proprio_dim=dims[1],
        actions_per_frame=frames // actions,
    )


def start_model(
    sizes: NetworkConfig, *, bench: str, statistics: Mapping[str, Any], num_depth_blocks: int
) -> ModelConfig:
    """Return the configuration of a Wan-sized model for one of the two released benches.

    Args:
        sizes: The transformer.
        bench: `robocasa` or `robotwin`.
        statistics: Quantiles of its data, in the released layout.
        num_depth_blocks: M, blocks copied for depth.

    Raises:
        CheckpointError: If the bench is another one, or the statistics do not fit it.
    """
    if bench not in RELEASED_BENCHES:
        raise CheckpointError(f"X-WAM was trained for {' and '.join(RELEASED_BENCHES)}, not for '{bench}'.")
    traits = RELEASED_BENCHES[bench]
    try:
        bounds = training_bounds(statistics, traits["arms"], raw=INTERFACES[bench].layout == OSC_DELTA_BASE)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    return ModelConfig(
        name=f"xwam-{bench}",
        bench=bench,
        network=replace(sizes, num_depth_blocks=num_depth_blocks, num_views=len(traits["views"])),
        codec=CodecConfig(kind="wan22"),
        text=TextConfig(kind="umt5"),
        depth_range=DepthRange(),
        bounds=bounds,
        image_hw_px=(256, 320),
        num_video_steps=50,
        num_action_steps=10,
        execute_steps=32,
        **traits,
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file, which may hold only plain values."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no plain YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold settings by name.")
    return content


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts in the header of a safetensors file.

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


def _bench(data: Mapping[str, Any]) -> str:
    path = str(data.get("dataset_path", "")).lower()
    for bench in RELEASED_BENCHES:
        if bench in path:
            return bench
    return "robotwin" if "proprio_right_ee_xyz" in data["statistics"]["q01"] else "robocasa"


def _model_of(text: str, *, source: Path) -> ModelConfig:
    try:
        return model_from_text(text)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"The configuration in {source} cannot be used: {error}.") from error
