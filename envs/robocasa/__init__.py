"""RoboCasa v0.2: 24 kitchen tasks under the protocols of its published numbers.

In: nothing. Out: the package; importing it starts no simulator.
Read next: `bench.py`; `docs/robocasa.md` for how to install RoboCasa.
"""
