"""Where things live on this machine: runs, the cache, the user's presets and settings."""

import os
from pathlib import Path

from platformdirs import user_cache_path, user_config_path


def runs_folder() -> Path:
    """The folder of runs: GPT2TUI_RUNS, else `runs` in the current folder."""
    return Path(os.environ.get("GPT2TUI_RUNS") or "runs")


def cache_folder() -> Path:
    """Prepared tokens and trained tokenizers: GPT2TUI_CACHE, else the user's cache folder. Safe to delete."""
    return Path(os.environ.get("GPT2TUI_CACHE") or user_cache_path("gpt2tui", appauthor=False))


def config_folder() -> Path:
    """The user's presets and settings: GPT2TUI_CONFIG, else the user's configuration folder."""
    return Path(os.environ.get("GPT2TUI_CONFIG") or user_config_path("gpt2tui", appauthor=False))
