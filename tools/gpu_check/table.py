"""The Markdown table of docs/xwam.md, from the lines that gpu-check wrote.

In: a file of JSON lines. Out: Markdown.
Read next: `main.py`, which calls it with `--table`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def table(path: Path) -> str:
    """Return the page's section: the machine, the speed of the network, of the other parts, and the checks."""
    lines = {line["stage"]: line for line in map(json.loads, path.read_text().splitlines())}
    return "\n".join([*_machine(lines), *_network(lines), *_parts(lines), *_checks(lines)])


def _machine(lines: dict[str, Line]) -> list[str]:
    here, peak = lines.get("environment", {}), lines.get("peak", {})
    gpu = here.get("gpu", "no GPU")
    memory = f", {here['memory_gib']:.0f} GiB" if "memory_gib" in here else ""
    speeds = ", ".join(
        f"{name} {peak[f'{name}_tflops']:.0f}" for name in ("bfloat16", "tf32", "float32") if f"{name}_tflops" in peak
    )
    text = f"{gpu}{memory}, driver {here.get('driver', '-')}, torch {here.get('torch', '-')}, commit "
    return [f"{text}{here.get('commit', '-')}. Measured matrix peak in TFLOP/s: {speeds or 'not measured'}.", ""]


def _network(lines: dict[str, Line]) -> list[str]:
    line = lines.get("model", {})
    head = ("work", "passes", "batch", "ms", "reference ms", "ratio", "launches", "TFLOP/s", "share of peak")
    rows = [
        (
            row["work"],
            row["passes"],
            row["batch"],
            _number(row["ms"], 1),
            _number(row["reference_ms"], 1),
            _number(row["ratio"], 3),
            _number(row["launches"], 0),
            _number(row["tflops"], 1),
            _number(row["share_of_peak"], 3),
        )
        for row in line.get("rows", [])
    ]
    return [f"The {line.get('size', '')} network in bfloat16:".replace("  ", " "), "", *_grid(head, rows), ""]


def _parts(lines: dict[str, Line]) -> list[str]:
    rows = [(f"{row['part']}: {row['work']}", row["type"], _number(row["ms"], 1)) for row in _rows(lines, "codecs")]
    step = lines.get("training", {})
    if "ms_per_step" in step:
        what = f"training step, {step['samples_per_step']} samples, {step['blocks']}+{step['depth_blocks']} blocks"
        rows.append((what, "bfloat16 passes", _number(step["ms_per_step"], 1)))
    nano = lines.get("nano", {})
    for key, what in (("engine_ms_to_act", "nano: act"), ("engine_ms_to_act_and_imagine", "nano: act and imagine")):
        if key in nano:
            rows.append((what, "float32", _number(nano[key], 1)))
    served = lines.get("served", {})
    for key, what in (("served_ms", "nano: a served request"), ("in_process_ms", "nano: the same in process")):
        if key in served:
            rows.append((what, served["type"], _number(served[key], 1)))
    score = lines.get("scoring", {})
    if "device_ms" in score:
        what = f"scoring, {score['scored']} ({score['cpu_ms']:.0f} ms on the CPU)"
        rows.append((what, "float64", _number(score["device_ms"], 1)))
    return [*_grid(("part", "type", "ms"), rows), ""]


def _checks(lines: dict[str, Line]) -> list[str]:
    rows = []
    for name, line in lines.items():
        checks = line.get("checks", [])
        if name == "summary" or not (checks or "error" in line or "skipped" in line):
            continue
        passed = f"{sum(check['ok'] for check in checks)} of {len(checks)}"
        remarks = [f"failed: {check['name']} {check['error']}" for check in checks if not check["ok"]]
        remarks += [line[key] for key in ("error", "skipped") if key in line]
        remarks += [f"without {part['package']}: {part['left_out']}" for part in line.get("missing", [])]
        rows.append((name, passed, "; ".join(remarks) or "-"))
    return _grid(("stage", "checks passed", "remarks"), rows)


def _rows(lines: dict[str, Line], stage: str) -> list[Line]:
    return lines.get(stage, {}).get("rows", [])  # type: ignore[no-any-return]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _grid(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return a Markdown table; one sentence where it has no row."""
    if not rows:
        return [f"No values for: {', '.join(head)}."]
    numeric = ["---:" if all(_is_number(row[index]) for row in rows) else "---" for index in range(len(head))]
    return ["| " + " | ".join(map(str, row)) + " |" for row in (head, numeric, *rows)]


def _is_number(cell: Any) -> bool:
    return str(cell).replace(".", "").replace("-", "").isdigit() or cell == "-"
