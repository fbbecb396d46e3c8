"""Reporting: what a run's records and scores say, with counts and intervals.

In: one or several run folders. Out: Markdown, CSV, and tables for the console.
Read next: `write.py`, the way through; `stats.py` for the intervals, `tables.py` for the rows.
"""
