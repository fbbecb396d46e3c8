"""Scores as values and as a file: outcomes, metric names, coverage, `scores.parquet`."""
