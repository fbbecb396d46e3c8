"""Lets `python -m xwam.cli` run the command `xwam`, for example under `accelerate launch`."""

from xwam.cli import main

raise SystemExit(main())
