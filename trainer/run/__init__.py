"""What outlives a process: state, checkpoints, summaries, the run directory."""
