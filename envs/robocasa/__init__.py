"""RoboCasa v0.2: 24 kitchen tasks, by the letter of the protocols that its published numbers follow.

In: nothing. Out: the package; importing it starts no simulator.
Read next: `bench.py`; `docs/robocasa.md` for how to install RoboCasa.
"""
