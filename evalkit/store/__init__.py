"""What a run folder holds: plan, records, clips, videos.

Read next: `plan.py`, then `run_folder.py`.
"""
