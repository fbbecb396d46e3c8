"""Writes the log of a training, one JSON line per logged step, and draws the loss curve.

In: losses by name. Out: `log.jsonl`, `curve.png`.
Read next: `trainer.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.contracts.files import whole_file, write_whole


class Log:
    """A file of JSON lines; a resumed training drops the lines after its first step."""

    def __init__(self, path: Path, *, first_step: int = 0) -> None:
        self.path = path
        lines = [line for line in read_log(path) if line["step"] <= first_step]
        write_whole(path, "".join(json.dumps(line) + "\n" for line in lines))

    def add(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Append one line."""
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "kind": kind, **rounded}) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, without a last line that is cut off."""
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def draw_curve(log: Path, image: Path) -> None:
    """Draw smoothed training losses and validation losses over steps; an empty log gives no image."""
    lines = read_log(log)
    training = [line for line in lines if line["kind"] == "train"]
    if not training:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    validation = [line for line in lines if line["kind"] == "validation"]
    names = [name for name in ("total", "video", "action", "proprio", "depth") if name in training[0]]
    for index, name in enumerate(names):
        steps, values = [line["step"] for line in training], [line[name] for line in training]
        axes.plot(steps, smoothed(values), color=f"C{index}", label=name)
        if validation:
            positions, held_out = [line["step"] for line in validation], [line[name] for line in validation]
            axes.plot(positions, held_out, "o", markersize=3, color=f"C{index}")
    axes.set(xlabel="step", ylabel="loss (dots: held out)", yscale="log")
    figure.legend(ncols=5, loc="outside upper center", fontsize="small")
    axes.grid(alpha=0.3)
    with whole_file(image) as partial:
        figure.savefig(partial, format="png", dpi=120)


def smoothed(values: list[float], over: int = 5) -> list[float]:
    """Return the running mean of each value and the values before it.

    Example:
        >>> smoothed([4.0, 2.0, 0.0], over=2)
        [4.0, 3.0, 1.0]
    """
    sums = np.cumsum([0.0, *values])
    starts = np.maximum(0, np.arange(1, len(values) + 1) - over)
    return ((sums[1:] - sums[starts]) / (np.arange(1, len(values) + 1) - starts)).tolist()
