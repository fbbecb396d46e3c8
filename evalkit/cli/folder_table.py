"""The table of `score folders --dry-run`: what lies in both folders, and how it is matched.

In: two folders and the user's options. Out: a table and the findings on the screen; nothing is scored.
Read next: `evalkit/score/sources/clip_facts.py`, which decides.
"""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from evalkit.console import out
from evalkit.contracts.errors import BadConfig
from evalkit.score.results.outcome import Modality
from evalkit.score.sources.clip_facts import ClipFacts, clip_facts
from evalkit.score.sources.clip_files import describe
from evalkit.score.sources.folder_options import FolderOptions
from evalkit.score.sources.images import DepthUnits
from evalkit.score.sources.pairs import ClipPair, pair_clips
from evalkit.score.sources.side_facts import SideFacts


def print_folders(pred_dir: Path, true_dir: Path, files: FolderOptions) -> None:
    """Print clips, views, frames, rates, sizes and units of both sides, how they match, and every finding.

    Raises:
        BadConfig: If a folder does not exist, the folders have no clip in common, or every clip is refused or broken.
    """
    pairs = pair_clips(pred_dir, true_dir)
    count = len(pairs.scored)
    table = Table(title=f"{pred_dir} against {true_dir}: {count} clip{'s' * (count != 1)}")
    for column in ("clip", "task/index", "view", "ground truth", "prediction", "compared"):
        table.add_column(column, overflow="fold")
    doubts, is_any_scored = list[str](), False
    for pair in pairs.scored:
        try:
            facts = clip_facts(pair, files)
        except BadConfig as error:
            doubts.append(f"{pair.name}: broken_clip: {error}")
            continue
        is_any_scored |= not facts.refused
        for row in _rows(pair, facts):
            table.add_row(*row)
        doubts += [f"{pair.name}: {finding.verdict}: {finding.check}: {finding.reason}." for finding in facts.findings]
    doubts += [f"{pair.name}: no_truth: {true_dir} holds no clip of this name." for pair in pairs.without_truth]
    out.print(table)
    for doubt in doubts:
        out.print(Text(doubt, style="yellow"), soft_wrap=True)
    if not is_any_scored:
        raise BadConfig("No clip can be scored; the lines above say why.")


def _rows(pair: ClipPair, facts: ClipFacts) -> list[tuple[str, ...]]:
    rows = []
    for camera in facts.cameras.cameras:
        for modality in ("rgb", "depth"):
            key: tuple[Modality, str] = (modality, camera.spec.name)  # type: ignore[assignment]
            if key not in facts.true.sources and key not in facts.pred.sources:
                continue
            cells = [
                _cell(side, key, units) for side, units in ((facts.true, facts.units[1]), (facts.pred, facts.units[0]))
            ]
            where = f"{modality} {camera.spec.name}" + (" (wrist)" if camera.spec.kind == "wrist" else "")
            rows.append((pair.name, f"{pair.task}/{pair.index:04d}", where, *cells, _compared(facts)))
    return rows


def _cell(side: SideFacts, key: tuple[Modality, str], units: DepthUnits) -> str:
    """Return type, frames, rate, size and unit of one view of one side."""
    source = side.sources.get(key)
    if source is None:
        return "-"
    info = source.info
    if info.problem and not info.numbers:
        return info.problem
    parts = [describe(source.stream), f"frames {info.numbers[0]}-{info.numbers[-1]} ({len(info.numbers)})"]
    parts += [f"{float(info.fps):.6g} frames/s"] if info.fps is not None else []
    parts += [f"{info.hw_px[0]}x{info.hw_px[1]}"] if info.hw_px is not None else []
    if key[0] == "depth":
        per_m = units.floating_per_m if info.stored.startswith("float") else units.integer_per_m
        parts.append(f"{info.stored}, {'metres' if per_m == 1 else f'{per_m:.6g} units/m'}")
    return ", ".join(parts)


def _compared(facts: ClipFacts) -> str:
    match = facts.match
    if facts.refused:
        return "refused"
    if not match.true or facts.pred.frames is None:
        return "nothing" if not match.true else match.how
    return (
        f"{len(match.true)} frames {match.how}: {match.true[0]}-{match.true[-1]} with {match.pred[0]}-{match.pred[-1]}"
    )
