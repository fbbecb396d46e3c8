"""The command: which stages there are, in which order, and what the user may choose.

In: arguments. Out: JSON lines on stdout and in a file; the exit status.
Read next: `running.py`, how a stage is run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gpu_check.running import Report, Settings, Stage, run_stages

TOTAL_S = 410.0
"""Seconds for all stages; with the start of Python, the whole takes at most seven minutes."""


def _later(module: str, name: str) -> Callable[[Report], None]:
    """Return a stage's work, whose module is imported in the process of the stage."""

    def work(report: Report) -> None:
        import torch

        from gpu_check import standins

        standins.provide()
        if report.settings.on_gpu and torch.cuda.is_available():
            torch.cuda.set_device(report.settings.device)
        getattr(importlib.import_module(f"gpu_check.{module}"), name)(report)

    return work


STAGES = [
    Stage(
        name="environment", work=_later("machine", "environment"), limit_s=40, least_s=2,
        what="names and versions; a small product on the device",
    ),
    Stage(name="peak", work=_later("machine", "peak"), limit_s=40, what="speed of large matrix products and of a copy"),
    Stage(
        name="parity", work=_later("parity", "parity"), limit_s=90, least_s=10,
        what="network, sampler, losses, VAE and umT5 against reference values, float32 and bfloat16",
    ),
    Stage(
        name="nano", work=_later("nano", "nano"), limit_s=60, least_s=8,
        what="the shipped weights: act, imagine, decode, against a CPU",
    ),
    Stage(
        name="model", work=_later("model", "model"), limit_s=170, least_s=20,
        what="the 5B network with random weights: eager, compiled, graphed, next to the reference; rows in company",
    ),
    Stage(
        name="served", work=_later("served", "served"), limit_s=60, least_s=8,
        what="the shipped weights over a socket, alone and with other requests",
    ),
    Stage(
        name="scoring", work=_later("scoring", "scoring"), limit_s=60, least_s=10,
        what="metrics on the device against the CPU",
    ),
    Stage(
        name="training", work=_later("training", "training"), limit_s=80, least_s=15,
        what="training steps of the largest network that fits",
    ),
    Stage(
        name="codecs", work=_later("codecs", "codecs"), limit_s=80, least_s=15,
        what="VAE and umT5 at the released size",
    ),
]  # fmt: skip

EXAMPLES = """\
examples:
  tools/gpu-check --out gpu.jsonl            every stage on the first GPU, at most seven minutes
  tools/gpu-check --table gpu.jsonl          the table of docs/xwam.md
  tools/gpu-check --stages environment,peak  two of the stages
  tools/gpu-check --device cpu --quick       small sizes on a CPU: does the tool itself work?

stages, in their order:
"""


def main(arguments: Sequence[str]) -> int:
    """Run the stages; return 1 if one failed, 2 if the arguments cannot be used."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.table:
        from gpu_check.table import table

        print(table(Path(given.table)))
        return 0
    unknown = sorted(set(given.stages) - {stage.name for stage in STAGES})
    if unknown:
        parser.error(f"there is no stage {', '.join(unknown)}; choose from {', '.join(s.name for s in STAGES)}")
    try:
        import torch  # noqa: F401  imported once, in the parent, so that a stage starts at once
    except ModuleNotFoundError:
        parser.error("gpu-check needs torch, numpy and safetensors; install them into this Python")
    settings = Settings(
        device="cuda:0" if given.device == "cuda" else given.device,
        quick=given.quick,
        released=given.released or _released_folder(),
        fail=given.fail,
    )
    stages = [stage for stage in STAGES if not given.stages or stage.name in given.stages]
    failed = False
    with Path(given.out or os.devnull).open("w") as file:
        for line in run_stages(stages, settings, given.seconds):
            text = json.dumps(line)
            print(text, flush=True)
            file.write(text + "\n")
            file.flush()
            failed = line["ok"] is False
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    what = "".join(f"  {stage.name:<12} {stage.what} (at most {stage.limit_s:.0f} s)\n" for stage in STAGES)
    parser = argparse.ArgumentParser(
        prog="gpu-check",
        description="Check and time evalkit and X-WAM on a GPU; one JSON line per stage.",
        epilog=EXAMPLES + what,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu (default: cuda)")
    parser.add_argument("--stages", type=lambda text: text.split(","), default=[], help="names, separated by commas")
    parser.add_argument("--out", metavar="FILE", help="also write the lines to this file")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repetitions, nothing compiled")
    parser.add_argument("--seconds", type=float, default=TOTAL_S, help="for all stages (default: %(default)s)")
    parser.add_argument("--released", metavar="DIR", help="reference values of the released code, if you have them")
    parser.add_argument("--table", metavar="FILE", help="print the Markdown table of a file that --out wrote")
    parser.add_argument("--fail", metavar="STAGE", default="", help="let a stage fail, to see that the others go on")
    return parser


def _released_folder() -> str:
    """Return the folder of the released code's reference values next to this checkout, "" without one."""
    shared = os.environ.get("EVALKIT_SHARED") or Path(__file__).resolve().parents[3] / "shared"
    folder = Path(shared) / "golden" / "xwam"
    return str(folder) if (folder / "dit_weights.safetensors").is_file() else ""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
