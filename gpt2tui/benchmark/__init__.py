"""`gpt2tui bench`: our own training and generation as a run does them, measured in turns with the baselines."""
