"""GPT-2 from scratch: the network, its loss, sampling and published layout. Imports nothing of gpt2tui."""
