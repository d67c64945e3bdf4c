"""What the shell's Tab key completes: presets, settings and runs. Imports what it lists only when asked."""

import argparse
import os
from typing import Any


def asked_to_complete() -> bool:
    """Whether a shell has started this process to complete a line, which is in the environment."""
    return "_ARGCOMPLETE" in os.environ


def complete_words(parser: argparse.ArgumentParser) -> None:
    """Completes words for the shell's Tab key; imports nothing otherwise."""
    if asked_to_complete():
        import argcomplete

        argcomplete.autocomplete(parser)


def preset_names(**_: Any) -> list[str]:
    from gpt2tui.preset.files import available

    return [source.name for source in available()]


def presets_and_settings(**_: Any) -> list[str]:
    """The words of `gpt2tui train`."""
    return [*preset_names(), *setting_keys()]


def setting_keys(**_: Any) -> list[str]:
    from gpt2tui.preset.files import settings

    return [f"{setting.key}=" for setting in settings()]


def run_names(**_: Any) -> list[str]:
    from gpt2tui.run.folder import all_runs

    return [run.name for run in all_runs()]
