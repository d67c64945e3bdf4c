"""GPT-2 from scratch, and what one does with its weights. Knows nothing of gpt2tui."""
