"""Codecs: RGB and depth frames to latents and back."""
