"""What a checkpoint says about itself, read without a framework and without its weights.

In: a path, or an id on the Hugging Face hub. Out: its `ModelConfig`.
Read next: `checkpoints.py`, which reads the weights.

A checkpoint is one of: a safetensors file of ours; a folder of ours (`model.safetensors` beside `vae/`,
`text_encoder/` and `tokenizer/`); a released experiment (`config.yaml` beside `checkpoints/last.ckpt/`); a folder of
Wan or diffusers with `xwam.json` and `xwam_additions.safetensors` in it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from xwam.actions import bounds_from_release
from xwam.config import WAN22_5B, CodecConfig, DepthMode, DepthRange, ModelConfig, NetworkConfig, TextConfig

FORMAT = "xwam/1"
MODEL_FILE = "model.safetensors"
RELEASED_WEIGHTS = Path("checkpoints/last.ckpt/checkpoint/mp_rank_00_model_states.pt")

MODEL_JSON = "xwam.json"
"""Our configuration beside weights in the layout of Wan or diffusers."""

ADDITIONS_FILE = "xwam_additions.safetensors"
"""What X-WAM adds to Wan's transformer, beside it."""

RELEASED_BENCHES: dict[str, dict[str, Any]] = {
    "robocasa": {"views": ("static", "static", "wrist"), "arms": ("left",), "control_hz": 20.0},
    "robotwin": {"views": ("static", "wrist", "wrist"), "arms": ("left", "right"), "control_hz": None},
}
"""Cameras in sorted order of their names, and arms, of the two released models."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one sentence that names what is wrong."""


def locate(name: str, *, header_only: bool = False) -> Path:
    """Return the path of a checkpoint; an id on the hub (`owner/name`, or `owner/name/folder`) is fetched first.

    Args:
        name: A path or an id.
        header_only: Fetch only what `read_model` needs.

    Raises:
        CheckpointError: If there is neither a path nor a hub that answers.
    """
    if Path(name).exists():
        return Path(name)
    match = re.fullmatch(r"([\w.-]+/[\w.-]+?)(?:/([\w./-]+))?", name)
    if match is None or name.startswith((".", "/")) or Path(name).suffix:
        raise CheckpointError(f"There is no checkpoint at {name}.")
    repo, folder = match[1], match[2]
    inside = f"{folder}/" if folder else ""
    try:
        from huggingface_hub import snapshot_download

        patterns = [f"{inside}*config.yaml"] if header_only else [f"{inside}*"]
        fetched = Path(snapshot_download(repo, allow_patterns=patterns)) / (folder or "")
    except Exception as error:
        raise CheckpointError(
            f"'{name}' is no path on this machine, and as an id on the Hugging Face hub it could not be fetched "
            f"({type(error).__name__}); without a network, download {repo} elsewhere and give the folder's path."
        ) from error
    return _only_experiment(fetched, name)


def read_model(path: Path) -> ModelConfig:
    """Return the configuration in a checkpoint.

    The sizes of a released network stand in its weights alone: until those are read it counts as the 5B one.

    Raises:
        CheckpointError: If the file is missing, cut off or of another kind.
    """
    if (path / "config.yaml").is_file():
        return released_model(read_yaml(path / "config.yaml"))
    if (path / MODEL_JSON).is_file():
        return ModelConfig.from_json(json.loads((path / MODEL_JSON).read_text()))
    file = path / MODEL_FILE if path.is_dir() else path
    metadata = read_metadata(file)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{file} holds weights without a configuration of ours (format '{FORMAT}'); convert it with `xwam convert`."
        )
    return ModelConfig.from_json(json.loads(metadata["model"]))


def released_model(settings: Mapping[str, Any]) -> ModelConfig:
    """Return the configuration behind the `config.yaml` of a released experiment.

    Raises:
        CheckpointError: If a setting that is needed is missing.
    """
    try:
        data = settings["dataset"]
        depth: DepthMode = "interleaved" if settings.get("use_depth", True) else "none"
        sizes = replace(WAN22_5B, text_len=settings["text_len"], depth=depth)
        model = start_model(
            sizes,
            bench=_bench(data),
            statistics=data["statistics"],
            num_depth_blocks=settings["num_extra_layers"],
        )
        height, width = data["video_size"]
        return replace(
            model,
            name=settings.get("exp_name", model.name),
            image_hw_px=(height, width),
            num_actions=(data["sequence_length"] - 1) * data["frame_skip"] // data["action_skip"],
            num_future_frames=data["sequence_length"] - 1,
            frame_stride=data["frame_skip"],
        )
    except KeyError as error:
        raise CheckpointError(f"The released config.yaml has no setting {error}.") from error


def start_model(
    sizes: NetworkConfig, *, bench: str, statistics: Mapping[str, Any], num_depth_blocks: int
) -> ModelConfig:
    """Return the configuration of a Wan-sized model for one of the two released benches.

    Args:
        sizes: The transformer.
        bench: `robocasa` or `robotwin`.
        statistics: Quantiles of its data, in the released layout.
        num_depth_blocks: M, blocks doubled for depth.

    Raises:
        CheckpointError: If the bench is another one.
    """
    if bench not in RELEASED_BENCHES:
        raise CheckpointError(f"X-WAM was trained for {' and '.join(RELEASED_BENCHES)}, not for '{bench}'.")
    traits = RELEASED_BENCHES[bench]
    return ModelConfig(
        name=f"xwam-{bench}",
        bench=bench,
        network=replace(sizes, num_depth_blocks=num_depth_blocks, num_views=len(traits["views"])),
        codec=CodecConfig(kind="wan22"),
        text=TextConfig(kind="umt5"),
        depth_range=DepthRange(),
        bounds=bounds_from_release(statistics, traits["arms"]),
        image_hw_px=(256, 320),
        **traits,
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file; only plain values are read."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise CheckpointError(f"{path} is no plain YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold settings by name.")
    return content


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


def _bench(data: Mapping[str, Any]) -> str:
    path = str(data.get("dataset_path", "")).lower()
    for bench in RELEASED_BENCHES:
        if bench in path:
            return bench
    return "robotwin" if "proprio_right_ee_xyz" in data["statistics"]["q01"] else "robocasa"


def _only_experiment(folder: Path, name: str) -> Path:
    """Return the folder itself, or the one experiment in it."""
    if any((folder / file).is_file() for file in ("config.yaml", MODEL_FILE, MODEL_JSON)):
        return folder
    found = sorted(path.parent for path in folder.glob("*/config.yaml"))
    if len(found) == 1:
        return found[0]
    choices = ", ".join(f"'{name}/{path.name}'" for path in found) or "none"
    raise CheckpointError(f"'{name}' holds {len(found)} experiments; name one of them: {choices}.")
