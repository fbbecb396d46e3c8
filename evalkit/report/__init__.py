"""Reporting: success rates and scores of runs, with counts and intervals.

In: one or several run folders. Out: Markdown, CSV, and tables for the console.
Read next: `write.py`, the main path; `document.py`, a report as data; `tables.py`, the rows.
"""
