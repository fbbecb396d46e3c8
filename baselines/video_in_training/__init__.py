"""Video in training only: the loss on the video trains the network, and acting leaves the future video out.

In: clips and recipes for training; requests of evalkit. Out: a trained network; replies of evalkit without predictions.
Read next: `acting.py` for what happens at test; `baselines/joint_attention/network.py` for the network.
"""
