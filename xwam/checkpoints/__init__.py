"""Checkpoints: metadata, tensors, and the layouts of the release, of Wan2.2 and of diffusers."""
