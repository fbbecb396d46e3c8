"""How the files of two folders are to be understood, as the user says it.

In: texts of the command line. Out: `FolderOptions`, which also goes into the result file.
Read next: `evalkit/score/folder_clip.py`, which applies them; `matching.py`, for frames and rates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, get_args

from evalkit.contracts.errors import BadConfig
from evalkit.score.sources.camera_files import Convention
from evalkit.score.sources.images import DepthUnits
from evalkit.score.sources.matching import MatchOptions

Resized = Literal["pred", "gt", "depth"]


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """Options of `score folders`.

    Attributes:
        match: Which frames belong together.
        convention: Of camera poses; None takes what the file states, or evalkit's own.
        depth: Stored units of predicted and true depth; None takes what a camera file states, or the default.
        resize: What is scaled: the images of one side to the size of the other, or the depth of both sides to the size
            of the ground truth's colours; None refuses images of different size.
    """

    match: MatchOptions = field(default_factory=MatchOptions)
    convention: Convention | None = None
    depth: tuple[DepthUnits, DepthUnits] | None = None
    resize: Resized | None = None

    @classmethod
    def parse(
        cls,
        *,
        depth_scale: str | None = None,
        camera_convention: str | None = None,
        fps: str | None = None,
        offset: int | None = None,
        gt_offset: int | None = None,
        resize: str | None = None,
    ) -> FolderOptions:
        """Return the options that these texts mean.

        Raises:
            BadConfig: If one has no meaning.

        Example:
            >>> FolderOptions.parse(fps="5,10", depth_scale="1000").match.fps
            (Fraction(5, 1), Fraction(10, 1))
        """
        for name, count in (("--offset", offset), ("--gt-offset", gt_offset)):
            if count is not None and count < 0:
                raise BadConfig(f"{name} takes a number of frames to skip, 0 or more; got {count}.")
        _check_choice("--camera-convention", camera_convention, get_args(Convention))
        _check_choice("--resize", resize, get_args(Resized))
        rates = None if fps is None else _numbers("--fps", fps, "frames per second")
        return cls(
            match=MatchOptions(
                offset=offset, true_offset=gt_offset, fps=None if rates is None else (rates[0], rates[-1])
            ),
            convention=camera_convention,  # type: ignore[arg-type]
            depth=None if depth_scale is None else _units(_numbers("--depth-scale", depth_scale, "units per metre")),
            resize=resize,  # type: ignore[arg-type]
        )

    def described(self) -> dict[str, str]:
        """Return what the user set, in words, for the result file."""
        match, said = self.match, {}
        if match.offset is not None:
            said["offset"] = f"first {match.offset} predicted frames skipped"
        if match.true_offset is not None:
            said["gt_offset"] = f"first {match.true_offset} ground-truth frames skipped"
        if match.fps is not None:
            said["fps"] = f"prediction {float(match.fps[0]):.6g}, ground truth {float(match.fps[1]):.6g} frames/s"
        if self.convention is not None:
            said["camera_convention"] = self.convention
        if self.depth is not None:
            said["depth_scale"] = "; ".join(
                f"{side}: {units.integer_per_m:.6g} units/m in integer files, {units.floating_per_m:.6g} in others"
                for side, units in zip(("prediction", "ground truth"), self.depth, strict=True)
            )
        if self.resize is not None:
            said["resize"] = f"{RESIZED[self.resize]}; {RESIZE_FILTERS}"
        return said


RESIZED: dict[Resized, str] = {
    "pred": "prediction scaled to the size of the ground truth",
    "gt": "ground truth scaled to the size of the prediction",
    "depth": "depth of both sides scaled to the size of the ground truth's colours",
}

RESIZE_FILTERS = (
    "colours by area average where the image shrinks, else bicubic (OpenCV INTER_AREA, INTER_CUBIC); depth by nearest "
    "neighbour (INTER_NEAREST_EXACT); intrinsics with the image, pixel centres at integers"
)


EXAMPLES = {"--fps": "30 or 5,10", "--depth-scale": "1000 or 1000,5000"}


def _check_choice(option: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise BadConfig(f"{option} takes {', '.join(choices[:-1])} or {choices[-1]}; got '{value}'.")


def _numbers(option: str, text: str, unit: str) -> list[Fraction]:
    """Return one or two positive numbers."""
    try:
        numbers = [Fraction(part.strip()) for part in text.split(",")]
    except (ValueError, ZeroDivisionError) as error:
        raise BadConfig(
            f"{option} takes one number or PRED,GT ({unit}), for example {EXAMPLES[option]}; got '{text}'."
        ) from error
    if len(numbers) not in (1, 2) or min(numbers) <= 0:
        raise BadConfig(f"{option} takes one positive number or two, PRED,GT ({unit}); got '{text}'.")
    return numbers


def _units(per_m: list[Fraction]) -> tuple[DepthUnits, DepthUnits]:
    """Return the units of both sides: one number is for integer files, two are for every file of their side."""
    if small := next((number for number in per_m if number < 1), None):
        raise BadConfig(
            f"--depth-scale takes stored units per metre, for example 1000 for millimetres; {float(small):.6g} looks "
            f"like metres per unit. Write {float(1 / small):.6g}."
        )
    if len(per_m) == 1:
        both = DepthUnits(integer_per_m=float(per_m[0]))
        return both, both
    pred, true = (DepthUnits(integer_per_m=float(n), floating_per_m=float(n)) for n in per_m)
    return pred, true
