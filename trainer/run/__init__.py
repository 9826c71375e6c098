"""What lasts: state, checkpoints, summaries, the run directory."""
