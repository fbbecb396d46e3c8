"""Turns a decoded frame into an array: 8-bit RGB by the frame's own colour tags, or the numbers of a grey frame.

In: a frame of PyAV. Out: H,W,3 uint8 or H,W uint16, turned as the file asks.
Read next: `yuv.py` for the conversion; `videos.py`, which decodes the frames.

Rules, where a file does not say more (the usual ones, see `docs/data.md`):
- Matrix: BT.601, as FFmpeg, OpenCV and imageio write it. Players take BT.709 from 720 rows on; `colour_notes` says so.
- Range: limited (16 to 235); full in JPEG frames. Grey frames are always full range, as in FFmpeg.
- Chroma samples: on the left pixel of two and between two rows (H.264, HEVC, AV1); in the middle for JPEG. PyAV does
  not pass on a tag that says otherwise.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideData

from evalkit.contracts.errors import EvalkitError

PixelFormat = Literal["rgb24", "gray16le"]
"""8-bit RGB; or the numbers of a grey video as they are stored, without a change of scale."""

BT601, UNKNOWN = "BT.601", 2

MATRICES: dict[int, tuple[str, float, float]] = {
    1: ("BT.709", 0.2126, 0.0722),
    4: ("FCC", 0.30, 0.11),
    5: (BT601, 0.299, 0.114),
    6: (BT601, 0.299, 0.114),
    7: ("SMPTE 240M", 0.212, 0.087),
    9: ("BT.2020", 0.2627, 0.0593),
}
"""Name, share of red and share of blue in luma, by MatrixCoefficients of ITU-T H.273, table 4."""

FULL = 2
"""Full range, of `AVColorRange`."""

CENTRED_CODECS = ("mjpeg", "mpeg1video")
"""Codecs whose chroma samples lie in the middle of their pixels."""

NOT_SHOWN_AS_STORED = {16: "PQ (HDR)", 18: "HLG (HDR)", 8: "linear light"}
"""Transfer functions of ITU-T H.273, table 3, under which 8-bit RGB does not look as on other screens."""


class UnreadablePixels(EvalkitError, ValueError):
    """A frame whose colours or rotation cannot be read as intended; the message names the reason."""


class Colour(NamedTuple):
    """How the colours of a YUV frame are coded.

    Attributes:
        matrix: Name of the matrix.
        red: Share of red in luma.
        blue: Share of blue in luma.
        full_range: Whether luma runs from 0 to the largest value.
        stated: Whether the file states the matrix.
    """

    matrix: str
    red: float
    blue: float
    full_range: bool
    stated: bool


def to_array(frame: av.VideoFrame, pixels: PixelFormat, *, codec: str) -> np.ndarray:
    """Return a frame as H,W,3 uint8 or H,W uint16, turned as the file asks.

    Args:
        frame: The frame.
        pixels: Format of a pixel.
        codec: Name of the codec, which decides where chroma samples lie.

    Raises:
        UnreadablePixels: If its colours, its pixel format or its rotation are not understood.
    """
    image = _numbers(frame) if pixels == "gray16le" else _rgb(frame, codec)
    turned = orientation(frame)
    return image if turned is None else np.ascontiguousarray(turned(image))


def colour_of(frame: av.VideoFrame) -> Colour | None:
    """Return how the colours of a frame are coded; None unless it is YUV.

    Raises:
        UnreadablePixels: If its matrix is unknown here.
    """
    if not frame.format.name.startswith("yuv"):
        return None
    matrix = int(frame.colorspace)
    full_range = frame.format.name.startswith("yuvj") or int(frame.color_range) == FULL
    if matrix == UNKNOWN:
        return Colour(*MATRICES[5], full_range, stated=False)
    if matrix not in MATRICES:
        known = ", ".join(sorted({name for name, _, _ in MATRICES.values()}))
        raise UnreadablePixels(f"its colours use matrix {matrix} of ITU-T H.273; {known} can be read")
    return Colour(*MATRICES[matrix], full_range, stated=True)


def colour_notes(frame: av.VideoFrame, *, transfer: int) -> tuple[str, ...]:
    """Return what a reader should know about the colours of a frame, one sentence each.

    Args:
        frame: The frame.
        transfer: Transfer function of its stream, by ITU-T H.273, table 3.
    """
    notes, colour = list[str](), colour_of(frame)
    if colour is not None and not colour.stated and frame.height >= 720:
        notes.append("It does not state its colour matrix; BT.601 is used, players take BT.709 from 720 rows on.")
    if transfer in NOT_SHOWN_AS_STORED:
        notes.append(f"Its brightness is coded as {NOT_SHOWN_AS_STORED[transfer]}; the stored values are used.")
    if frame.interlaced_frame:
        notes.append("It is interlaced: odd and even rows are from different times.")
    if any(part.is_alpha for part in frame.format.components):
        notes.append("It is transparent in places; transparency is ignored.")
    return tuple(notes)


def _rgb(frame: av.VideoFrame, codec: str) -> np.ndarray:
    name, colour = frame.format.name, colour_of(frame)
    if colour is not None:
        return _from_yuv(frame, colour, codec)
    if name.startswith("gbr"):
        green, blue, red = (_eight_bits(frame, index) for index in range(3))
        return np.asarray(cv2.merge([red, green, blue]))
    if name.startswith("gray"):
        return np.repeat(_eight_bits(frame, 0)[..., None], 3, axis=-1)
    if frame.format.is_rgb and max(part.bits for part in frame.format.components) <= 8:
        return np.asarray(frame.to_ndarray(format="rgb24"))  # only moves bytes
    raise UnreadablePixels(f"its pixel format {name} is not read; write it as yuv444p, gbrp or gray")


def _numbers(frame: av.VideoFrame) -> np.ndarray:
    name = frame.format.name
    if not name.startswith("gray") or name.startswith("grayf") or len(frame.planes) != 1:
        raise UnreadablePixels(f"its pixel format is {name}, a grey one (for example gray16le or gray12le) is needed")
    return plane(frame, 0).astype(np.uint16)


def plane(frame: av.VideoFrame, index: int) -> np.ndarray:
    """Return one plane of a frame as it is stored, rows and columns; the array does not own its memory."""
    stored, part = frame.planes[index], frame.format.components[0]
    order = ">" if frame.format.is_big_endian else "<"
    lines = np.frombuffer(memoryview(stored), np.uint8).reshape(-1, stored.line_size)
    return lines.view("u1" if part.bits <= 8 else f"{order}u2")[: stored.height, : stored.width]


def _eight_bits(frame: av.VideoFrame, index: int) -> np.ndarray:
    """Return a plane of 8 to 16 bits as 8 bits, full range."""
    stored, bits = plane(frame, index), frame.format.components[0].bits
    if bits == 8:
        return stored
    largest = 2**bits - 1
    return ((stored.astype(np.uint32) * 255 + largest // 2) // largest).astype(np.uint8)


def _from_yuv(frame: av.VideoFrame, colour: Colour, codec: str) -> np.ndarray:
    from evalkit.dataset import yuv  # compiles its loops, which other videos do not need

    parts = frame.format.components
    if len(frame.planes) < 3 or not all(8 <= part.bits <= 16 for part in parts):
        raise UnreadablePixels(f"its pixel format {frame.format.name} is not read; write it as yuv444p, gbrp or gray")
    luma, blue, red = (plane(frame, index) for index in range(3))
    steps = [1 << (-(-luma.shape[axis] // blue.shape[axis]) - 1).bit_length() for axis in (0, 1)]
    rows = yuv.chroma_axis(steps[0], centred=True)
    columns = yuv.chroma_axis(steps[1], centred=codec in CENTRED_CODECS)
    factors = yuv.factors(colour.red, colour.blue, bits=parts[0].bits, full_range=colour.full_range)
    planes = np.empty((3, *luma.shape), np.uint8)
    yuv.rgb_from_yuv(luma, blue, red, columns, rows, factors, planes)
    return np.asarray(cv2.merge(list(planes)))


class Orientation(NamedTuple):
    """How an image is turned for viewing: rows and columns exchanged first, then either order reversed."""

    transposed: bool
    rows_reversed: bool
    columns_reversed: bool

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return an image, H,W or H,W,3, turned.

        Example:
            >>> Orientation(True, False, True)(np.array([[1, 2], [3, 4]])).tolist()  # a quarter to the right
            [[3, 1], [4, 2]]
        """
        turned = image.swapaxes(0, 1) if self.transposed else image
        return turned[:: -1 if self.rows_reversed else 1, :: -1 if self.columns_reversed else 1]


def orientation(frame: av.VideoFrame) -> Orientation | None:
    """Return how the file asks to turn its frames (its display matrix); None if not at all.

    Raises:
        UnreadablePixels: If it asks for an angle between quarters of a turn.
    """
    side_data: Any = frame.side_data
    stored = side_data.get(SideData.DISPLAYMATRIX)
    if stored is None:
        return None
    matrix = np.frombuffer(stored, np.int32)[[0, 1, 3, 4]] / 65536  # x' = a x + c y, y' = b x + d y
    a, b, c, d = np.rint(matrix).astype(int).tolist()
    sizes, exact = (abs(a), abs(b), abs(c), abs(d)), np.allclose(matrix, [a, b, c, d], atol=1e-3)
    if exact and sizes == (1, 0, 0, 1):
        turn = Orientation(False, rows_reversed=d < 0, columns_reversed=a < 0)
    elif exact and sizes == (0, 1, 1, 0):
        turn = Orientation(True, rows_reversed=b < 0, columns_reversed=c < 0)
    else:
        raise UnreadablePixels(f"it asks to be turned by the matrix {matrix.tolist()}, which is no quarter of a turn")
    return None if turn == Orientation(False, False, False) else turn
