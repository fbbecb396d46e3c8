"""Runs the command `xwam` as `python -m xwam.cli`, for example under `accelerate launch`.

In: arguments. Out: the exit status.
Read next: `__init__.py`, which lists the verbs.
"""

from xwam.cli import main

raise SystemExit(main())
