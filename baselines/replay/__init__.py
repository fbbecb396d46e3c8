"""Recorded demonstrations rendered again, with depth: `python -m baselines.replay DATA FILE.hdf5 --bench robocasa`.

In: robomimic HDF5 files, a bench that can play states back. Out: a data set in the released layout.
Read next: `jobs.py`, the work; `demos.py`, what is read; `render.py`, one demonstration.
"""
