"""The files of a run folder: plan, records, clips, videos.

In: nothing. Out: the package.
Read next: `plan.py`, then `run_folder.py`.
"""
