"""A schema with one optional table, for tests of optional tables."""

import pytest
from pydantic import Field

from gpt2tui.preset import settings as preset_settings
from gpt2tui.preset import validation as preset_validation
from gpt2tui.preset.schema import Preset, Table


class ExtraTable(Table):
    """A table that a preset may leave out."""

    rank: int = Field(default=4, ge=1, le=64)
    """A number of the table."""

    target: int | None = Field(default=None, ge=1)
    """A number that may be left out."""

    mode: str = Field(default="x", max_length=10)
    """A text of the table."""


class ExtendedPreset(Preset):
    extra: ExtraTable | None = None


@pytest.fixture
def extra_table(monkeypatch):
    """Adds `[extra]` to the schema for one test."""
    cached = (preset_settings.settings, preset_settings.tables, preset_settings.optional_tables)
    for module in (preset_settings, preset_validation):
        monkeypatch.setattr(module, "Preset", ExtendedPreset)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()
