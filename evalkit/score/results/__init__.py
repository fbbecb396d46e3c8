"""Scores as values and as a file: outcomes, metric names, coverage, `scores.parquet`.

In: nothing. Out: the package.
Read next: `outcome.py`, one score; `names.py`, the metrics; `table.py`, the file.
"""
