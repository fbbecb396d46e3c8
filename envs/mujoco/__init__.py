"""What benches on MuJoCo share: rendering, observation, and playback of recorded states."""
