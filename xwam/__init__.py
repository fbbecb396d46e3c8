"""X-WAM: a world action model that imagines RGB-D video and acts from one denoising sequence. Plain PyTorch.

In: images, a robot state, an instruction. Out: a chunk of actions, then future RGB, depth and states.
Read next: `config.py` for the sizes, `network/transformer.py` for the transformer, `serving/engine.py` for one request
from end to end.
"""
