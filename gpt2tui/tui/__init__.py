"""The workbench: the engine behind a screen, built with Textual."""

from gpt2tui.tui.workbench import run_workbench

__all__ = ["run_workbench"]
