"""Read vetted episodes that others publish, and add them to a manifest: both harnesses then evaluate the same episodes.

In: files or folders of a foreign list, or manifests. Out: the manifest that holds them all.
Read next: the `read_vetted_list` of a bench, for example in `envs/robotwin/vetted_lists.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.errors import cannot_write
from evalkit.contracts.manifest import FORMAT, BadManifest, Manifest, read_manifest, write_manifest
from evalkit.vet.journal import Journal
from evalkit.vet.run import vettable


def import_lists(bench: BoundBench, paths: Sequence[Path], out: Path) -> Manifest:
    """Add the episodes of several lists to a manifest and return it; the order of the lists makes no difference.

    Args:
        bench: The bench, which reads its foreign lists.
        paths: Files or folders, as the bench takes them, or manifests of evalkit.
        out: File of the manifest, new or to be extended.

    Raises:
        BadManifest: If a list is malformed, or a task has another vetting already; the manifest is not changed.
        UnknownName: For a task or setting that the bench does not have.
        RunFolderError: If the manifest cannot be written, or a vetting is filling it.
    """
    return add_to_manifest(bench, ((str(path), read_vettings(bench, path)) for path in paths), out)


def read_vettings(bench: BoundBench, path: Path) -> Manifest:
    """Return the vettings in a manifest of evalkit or in a list that others publish for a bench.

    Raises:
        BadManifest: If it cannot be read.
        UnknownName: For a task or setting that the bench does not have.
    """
    manifest = read_manifest(path) if _is_manifest(path) else vettable(bench).read_vetted_list(path)
    manifest.check_names(settings=bench.settings, tasks=bench.tasks)
    return manifest


def add_to_manifest(bench: BoundBench, parts: Iterable[tuple[str, Manifest]], out: Path) -> Manifest:
    """Add vettings to a manifest, write it and return it.

    Args:
        bench: The bench.
        parts: Where each part comes from, for error messages, and its vettings.
        out: File of the manifest, new or to be extended.

    Raises:
        BadManifest: If a task has another vetting already; the manifest is not changed.
        RunFolderError: If the manifest cannot be written, or a vetting is filling it.
    """
    with Journal(out):
        manifest = Manifest(bench=bench.name, protocol=vettable(bench).vetting_protocol(bench.config))
        if out.exists():
            manifest = read_manifest(out).merge(manifest)
        for source, part in parts:
            try:
                manifest = manifest.merge(part)
            except BadManifest as error:
                raise BadManifest(
                    f"{source} cannot be added to {out}: {error} Name another file with --out."
                ) from error
        try:
            write_manifest(out, manifest)
        except OSError as error:
            raise cannot_write(out, error) from error
    return manifest


def _is_manifest(path: Path) -> bool:
    """Return whether a file is a manifest of evalkit, of any version; `read_manifest` judges its content."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    name = FORMAT.partition("/")[0]
    return isinstance(content, dict) and str(content.get("format")).partition("/")[0] == name
