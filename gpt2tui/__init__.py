"""gpt2tui: train GPT-2 from scratch in a terminal, with or without a screen."""

__version__ = "0.1.0"
