"""A run that the tests of several commands read."""

import pytest

from tests.commands.command_line import gpt2tui, train_arguments


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished tiny run: its folder and the output of its process."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT2TUI_CACHE", str(folder / "cache"))
        result = gpt2tui(*train_arguments(folder), "--run-dir", folder / "run")
    assert result.returncode == 0, result.stderr
    return folder / "run", result
