"""Where predictions and ground truth come from: recorded runs, data sets, image files.

In: nothing. Out: the package.
Read next: `recorded.py`, which opens a run or a data set; `images.py`, files of frames.
"""
