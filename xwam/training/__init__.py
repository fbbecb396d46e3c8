"""Training: turns a data set and a recipe into a checkpoint; a killed training resumes exactly.

In: a data set, a recipe, optionally weights to start from. Out: a folder with checkpoint, state, log and loss curve.
Read next: `recipes.py` for the hyperparameters, `trainer.py` for the loop.
"""
