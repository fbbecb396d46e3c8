"""The embedded default bench: seven robosuite tasks that need nothing but Python packages.

In: nothing. Out: the package; importing it starts no simulator.
Read next: `bench.py`.
"""
