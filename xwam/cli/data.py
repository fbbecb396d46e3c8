"""The verbs `check-data`, `statistics`, `export-lerobot` and `import-lerobot`: data sets.

In: data sets. Out: files, or lines on the screen.
Read next: `evalkit/dataset/layout.py`, `evalkit/dataset/statistics.py`, `evalkit/dataset/lerobot_export.py` and
`evalkit/dataset/lerobot_import.py`, which do the work.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.contracts.files import write_whole
from evalkit.contracts.text import count_of
from xwam.cli.console import counted, say, ticking

if TYPE_CHECKING:
    from evalkit.dataset.layout import Track

Root = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the data set, with metadata.json.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; the same command again continues.")]


def check_data(
    root: Root,
    decode: Annotated[
        bool, typer.Option("--decode", help="Also decode every frame (far slower); otherwise frames are only counted.")
    ] = False,
) -> None:
    """Check every episode of a data set and name the broken ones.

    Exit with 1 if an episode is broken. Write nothing.

    Examples:

    - `xwam check-data data/robocasa`
    - `xwam check-data data/robocasa --decode`
    """
    from xwam.training.scan import scan_data

    scanned = scan_data(root, counted, decode=decode)
    say(f"{root}: {scanned.describe()}" + ("" if decode else "; frames counted, not decoded"))
    if scanned.broken:
        raise typer.Exit(1)


def statistics(
    root: Root,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="File to write. [default: DIR/statistics.json]", show_default=False),
    ] = None,
) -> None:
    """Compute the quantiles that normalise states and actions; training needs them.

    Name and leave out episodes whose states or actions cannot be read. Videos hold none of these numbers and are not
    read.

    Examples:

    - `xwam statistics data/robocasa`
    - `xwam statistics data/robocasa --out quantiles.json`
    """
    from evalkit.dataset.layout import tracks
    from evalkit.dataset.statistics import about
    from evalkit.dataset.statistics import statistics as compute
    from xwam.training.scan import scan_data

    scanned = scan_data(root, counted, videos=False)
    with counted("quantiles") as on_progress:

        def stream() -> Iterator[Track]:
            for done, track in enumerate(tracks(root), start=1):
                on_progress(done, len(scanned.lengths))
                yield track

        numbers = compute(stream)
    notes = about(root, len(scanned.lengths), sum(scanned.lengths.values()), len(scanned.broken))
    path = out or root / "statistics.json"
    write_whole(path, json.dumps({**numbers, "about": notes}, indent=1) + "\n")
    say(f"{path}: {scanned.describe()}; videos not read")


def export_lerobot(
    root: Root,
    out: Out,
    video_codec: Annotated[
        str,
        typer.Option(
            "--video-codec",
            metavar="CODEC",
            help="copy keeps the videos; hevc writes them again without loss, in a form that LeRobot's tools can edit; "
            "h264 and av1 write smaller files with loss.",
        ),
    ] = "copy",
) -> None:
    """Write a data set in LeRobot's format (v3.0).

    States, actions and depth in millimetres are exact, and so are videos with `copy` and `hevc`. Name and leave out
    episodes that cannot be read, and exit with 1 if there is one. The same command again does nothing once all is
    written; if DIR has changed since, give another OUT.

    Examples:

    - `xwam export-lerobot data/lift lerobot/lift`
    - `xwam export-lerobot data/lift lerobot/lift --video-codec hevc`
    """
    from evalkit.dataset.lerobot_export import export
    from evalkit.dataset.lerobot_videos import codec_named
    from xwam.training.scan import scan_data

    codec = codec_named(video_codec)
    scanned = scan_data(root, counted)
    with ticking("export", len(scanned.lengths)) as tick:
        written = export(root, scanned, out, codec=codec, on_episode=tick)
    for reason in written.broken:
        say(reason)
    left_out = len(scanned.broken) + len(written.broken)
    say(f"{out}: {count_of(written.num_episodes, 'episode')}, {written.num_frames} frames; {left_out} left out")
    if left_out:
        raise typer.Exit(1)


def import_lerobot(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Folder of LeRobot's data set, with meta/info.json.")
    ],
    out: Out,
    feature_map: Annotated[
        Path | None,
        typer.Option(
            "--map", metavar="FILE", help="JSON file that maps features (docs/data.md); our own exports include it."
        ),
    ] = None,
) -> None:
    """Write a data set of LeRobot (v2.0, v2.1, v3.0) in X-WAM's layout.

    The prompt of an episode is the task of its rows; an episode whose task changes is split at the changes. Run the
    command again to continue, or to import again what has changed in SOURCE or in the map. A folder with episodes of
    another data set is refused. Exit with 1 if an episode is broken; it is named and left out.

    Examples:

    - `xwam import-lerobot lerobot/lift data/lift`
    - `xwam import-lerobot theirs/ data/theirs --map theirs.json`
    """
    from evalkit.dataset.lerobot_import import import_episodes
    from evalkit.dataset.lerobot_read import open_lerobot

    opened = open_lerobot(source, feature_map)
    with ticking("import", len(opened.episodes)) as tick:
        imported = import_episodes(opened, out, on_episode=tick)
    for sentence in (*imported.notes, *(episode.reason for episode in imported.broken)):
        say(sentence)
    num_broken = len(imported.broken)
    say(f"{out}: {count_of(imported.num_episodes, 'episode')}; {count_of(num_broken, 'broken episode')} left out")
    if imported.broken:
        raise typer.Exit(1)
