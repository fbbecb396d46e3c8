"""Text encoders: an instruction to text tokens."""
