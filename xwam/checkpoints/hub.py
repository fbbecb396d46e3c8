"""From the name of a checkpoint to its path: shipped weights, files and folders, ids on the Hugging Face hub.

In: a name. Out: a path; files from the hub are fetched first.
Read next: `metadata.py` for what lies there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from xwam.checkpoints.metadata import MODEL_FILE, MODEL_JSON, CheckpointError

SHIPPED = {"nano": Path(__file__).parents[1] / "nano" / "weights" / "nano.safetensors"}
"""Shipped weights by name; `xwam/nano/weights/README.md` tells how they were trained."""


WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".json", ".yaml")
"""A name with one of these endings is a file on this machine, not an id on the hub."""


def locate(name: str, *, header_only: bool = False) -> Path:
    """Return the path of a checkpoint; an id on the hub (`owner/name`, or `owner/name/folder`) is downloaded first.

    The files of the repository are listed first, and only one experiment is downloaded.

    Args:
        name: A name in `SHIPPED`, a path or an id.
        header_only: Download only the files that `read_model` needs.

    Raises:
        CheckpointError: If there is neither a path nor a hub that answers, or the id holds several experiments.
    """
    if name in SHIPPED:
        return SHIPPED[name]
    if Path(name).exists():
        return Path(name)
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:/([\w./-]+?))?/?", name)
    if match is None or name.startswith((".", "/")) or name.endswith(WEIGHT_SUFFIXES):
        raise CheckpointError(f"There is no checkpoint at {name}.")
    repo, folder = match[1], match[2] or ""
    try:
        files = _listed(repo)
        inside = _only_experiment(files, folder, name)
        prefix = f"{inside}/" if inside else ""
        wanted = [f"{prefix}*"]
        if header_only:
            light = [file for file in ("config.yaml", MODEL_JSON) if prefix + file in files]
            wanted = [prefix + file for file in light or [MODEL_FILE]]
        return _fetched(repo, wanted) / inside
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"'{name}' is no path on this machine, and as an id on the Hugging Face hub it could not be fetched "
            f"({type(error).__name__}); without a network, download {repo} elsewhere and give the folder's path."
        ) from error


def _listed(repo: str) -> list[str]:
    """Return the files of a repository on the hub; without a network, those that were downloaded before."""
    import huggingface_hub

    try:
        return list(huggingface_hub.list_repo_files(repo))
    except Exception:
        try:
            cached = Path(huggingface_hub.snapshot_download(repo, local_files_only=True))
        except Exception:
            cached = None
        if cached is None:
            raise
        return [file.relative_to(cached).as_posix() for file in cached.rglob("*") if file.is_file()]


def _fetched(repo: str, patterns: list[str]) -> Path:
    import huggingface_hub

    return Path(huggingface_hub.snapshot_download(repo, allow_patterns=patterns))


def _only_experiment(files: Sequence[str], folder: str, name: str) -> str:
    """Return the folder of the one checkpoint in or under a folder of a repository, "" for its root."""
    headers = ("config.yaml", MODEL_FILE, MODEL_JSON)
    folders = {file.rpartition("/")[0] for file in files if file.rpartition("/")[2] in headers}
    if folder in folders:
        return folder
    below = sorted(path for path in folders if not folder or path.startswith(f"{folder}/"))
    if len(below) == 1:
        return below[0]
    owner_and_name = name.rstrip("/").removesuffix(f"/{folder}") if folder else name.rstrip("/")
    choices = ", ".join(f"'{owner_and_name}/{path}'" for path in below) or "none"
    raise CheckpointError(f"'{name}' holds {len(below)} experiments; name one of them: {choices}.")
