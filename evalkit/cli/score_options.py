"""Options of the verb `score`, as types of its arguments.

In: nothing. Out: one annotated type per option.
Read next: `score.py`, whose commands take them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Workers = Annotated[
    int, typer.Option("--workers", metavar="N", help="Processes; 0 uses every core (on a GPU, one process).")
]
Device = Annotated[
    str,
    typer.Option(
        "--device", help="Device of SSIM, point clouds and LPIPS: cpu, cuda or cuda:1. The scores are the same."
    ),
]
LpipsNets = Annotated[
    str,
    typer.Option(
        "--lpips", metavar="NET,NET", help="Networks of LPIPS: alex, squeeze, vgg, separated by commas; or none."
    ),
]
LpipsWeights = Annotated[
    Path | None,
    typer.Option(
        "--lpips-weights",
        metavar="DIR",
        help="Folder of other LPIPS weights. [default: those of evalkit; for vgg, the torch hub cache]",
        show_default=False,
    ),
]
References = Annotated[
    bool,
    typer.Option(
        help="Also score reference predictions: repeated last frame (floor), codec round trip (ceiling), "
        "ground truth (sanity check)."
    ),
]
DepthEstimator = Annotated[
    str | None,
    typer.Option(
        "--depth-estimator",
        metavar="NAME/ALIGNMENT",
        help="Estimate depth from predicted RGB, for policies that predict no depth; for example plane/median.",
    ),
]
Extras = Annotated[
    str,
    typer.Option(
        "--extra",
        metavar="NAME,NAME",
        help="Metrics that take longer: wrist (SSIM and LPIPS of wrist cameras), flow (optical flow of moving pixels), "
        "distribution (distance between the sets of predicted and true frames); or none.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Exit with 3 if a check warns or refuses (check/... rows), or if a clip could not be scored."
    ),
]

ScoresFolder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of scores.parquet and the report.")]
DepthScale = Annotated[
    str | None,
    typer.Option(
        "--depth-scale",
        metavar="UNITS_PER_METRE",
        help="Stored units of depth per metre, for example 1000 for millimetres: one number for files of integers, or "
        "PRED,GT for every depth file of each side. [default: 1000 for integers, 1 (metres) for floating point]",
        show_default=False,
    ),
]
CameraConvention = Annotated[
    str | None,
    typer.Option(
        "--camera-convention",
        metavar="NAME",
        help="Poses of the camera file: opencv (camera-to-base; x right, y down, z forward), opengl (camera-to-base; x "
        "right, y up, z backward) or colmap (base-to-camera, axes of opencv). Only T_base_cam and T_cam_base may "
        "leave it open; they are opencv. [default: what the file states]",
        show_default=False,
    ),
]
Fps = Annotated[
    str | None,
    typer.Option(
        "--fps",
        metavar="PRED,GT",
        help="Frames per second of both sides, to match frames by time; one number for equal rates. [default: what "
        "videos state]",
        show_default=False,
    ),
]
Offset = Annotated[
    int | None,
    typer.Option(
        "--offset",
        metavar="N",
        help="Skip the first N predicted frames, for example conditioning frames. 0 says that the first frames belong "
        "together.",
        show_default=False,
    ),
]
TrueOffset = Annotated[
    int | None,
    typer.Option(
        "--gt-offset",
        metavar="N",
        help="Skip the first N ground-truth frames; the last of them is the floor's frame.",
        show_default=False,
    ),
]
Resize = Annotated[
    str | None,
    typer.Option(
        "--resize",
        metavar="pred|gt|depth",
        help="Scale the images of one side, pred or gt, to the size of the other, or depth to the size of the colours: "
        "colours by area average or bicubic, depth by nearest neighbour; intrinsics follow. [default: refuse images of "
        "different size]",
        show_default=False,
    ),
]
ControlNames = Annotated[
    str,
    typer.Option(
        "--controls",
        metavar="NAME,NAME",
        help="Also score predictions for something that was not done, of policies that take actions: other_branch "
        "(actions of another chunk of the task), mirrored_action (the motion mirrored left to right), "
        "wrong_instruction (of another task); or none. A model that ignores its actions scores the same in all of "
        "them.",
    ),
]
Branches = Annotated[
    Path | None,
    typer.Option(
        "--branches",
        metavar="DIR",
        help="With --controls: folder with the ground truth of other_branch and mirrored_action, for the scores of "
        "action dependence; what is missing in it is executed in the recording's simulator.",
        show_default=False,
    ),
]
DryRunDataset = Annotated[
    bool,
    typer.Option("--dry-run", help="Only print episodes, chunks, predictions and missing branches; load no policy."),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Only print the clips, views, frames, rates, sizes and units, and how they match."),
]
