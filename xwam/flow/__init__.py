"""Flow matching: noise levels, the UniPC solver, the sampler, losses, and real-time chunking."""
