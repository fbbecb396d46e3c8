"""From a plan to records: workers, the episode loop, the runner.

Read next: `episode.py`, the one loop.
"""
