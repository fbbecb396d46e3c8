"""The embedded default bench: seven robosuite tasks that run on a machine with nothing but Python.

In: nothing. Out: the package; importing it starts no simulator.
Read next: `bench.py`.
"""
