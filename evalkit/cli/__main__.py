"""Runs the command `evalkit` as `python -m evalkit.cli`.

In: a command line. Out: the exit code.
Read next: `main.py`.
"""

from evalkit.cli.main import main

main()
