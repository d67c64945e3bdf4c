"""What `gpt2tui bench` measures: our own code as a run uses it, and the same model trained by others, in turns."""
