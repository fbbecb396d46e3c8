"""From a plan to records: env processes, the episode loop, the runner.

In: nothing. Out: the package.
Read next: `episode.py`, the loop of one episode.
"""
