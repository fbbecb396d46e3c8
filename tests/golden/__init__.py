"""Small results that a clone can repeat without any other data: a plan, records, scores, a report, errors.

In: nothing. Out: text files in this folder; `make golden` rewrites them, `tests/unit/test_golden.py` compares.
Read next: `cases.py`, which makes the texts.
"""
