"""The four modes, a screen each."""
