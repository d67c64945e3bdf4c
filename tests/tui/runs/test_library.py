"""Reading the runs folder: only what changed, and never an exception."""

from dataclasses import replace

import pytest

from gpt2tui.run import events
from gpt2tui.run import folder as runs
from gpt2tui.tui.runs import library as library
from gpt2tui.tui.runs.library import RunListing, read_contents
from gpt2tui.tui.runs.table import COLUMNS, fitting, row_matches, sort_rows
from tests.tui.fake_runs import append, write_run


def states(rows):
    return {row.name: row.state for row in rows}


def test_only_a_run_that_changed_is_read_again(monkeypatch):
    a, _ = write_run("a"), write_run("b")
    read, real = [], library.summarize
    monkeypatch.setattr(library, "summarize", lambda run: read.append(run.name) or real(run))
    listing = RunListing()
    listing.read()
    listing.read()
    assert sorted(read) == ["a", "b"]
    append(a, events.Warned(message="hm"))
    listing.read()
    assert read[2:] == ["a"]


def test_a_lock_that_comes_or_goes_is_a_change():
    run = write_run("a", ending="crashed")
    listing = RunListing()
    assert states(listing.read()) == {"a": "crashed"}
    with runs.locked(run):
        assert states(listing.read()) == {"a": "running elsewhere"}
        assert states(listing.read(here=run.folder)) == {"a": "running here"}
    assert states(listing.read()) == {"a": "crashed"}


def test_a_link_to_a_run_is_a_row_of_its_own():
    run = write_run("a")
    run.folder.with_name("b").symlink_to(run.folder.name)
    assert states(RunListing().read()) == {"a": "finished", "b": "finished"}


def test_what_cannot_be_read_is_a_row_that_says_so():
    run = write_run("a")
    run.events_file.unlink()
    run.info_file.write_text("[]")
    (row,) = RunListing().read()
    assert row.state == "failed"
    assert "run.json" in row.summary.message


def test_contents_name_each_problem():
    run = write_run("a", checkpoints=(50, 100))
    (run.checkpoints / "step-00000050" / "config.json").write_text("cut")
    run.preset_file.write_text("[model]\nn_embd = 'x'\n")
    (row,) = RunListing().read()
    contents = read_contents(row)
    assert [c.step for c in contents.checkpoints] == [100]
    assert len(contents.problems) == 2
    assert contents.history.step.step == 100


def test_sorting_puts_unknown_values_last_in_both_directions():
    write_run("a", steps=50)
    write_run("b", steps=3)
    rows = RunListing().read()
    for descending in (True, False):
        assert [row.name for row in sort_rows(rows, "best", descending)] == ["a", "b"]


def test_every_column_sorts():
    write_run("a", steps=50)
    write_run("b", steps=3)
    rows = RunListing().read()
    for column in COLUMNS:
        assert len(sort_rows(rows, column.key, True)) == 2


def test_the_ratio_to_xz_is_a_column():
    write_run("a", steps=50)
    (row,) = RunListing().read()
    ratio = next(column for column in COLUMNS if column.key == "ratio")
    assert ratio.text(row) == f"{row.summary.bits_per_byte / 1.51:.2f}"
    unknown = replace(row, summary=replace(row.summary, xz_bits_per_byte=None))
    assert ratio.text(unknown) == ""
    assert ratio.value(unknown) is None


def test_filter_words_are_looked_for_in_name_preset_and_state():
    write_run("a-long-name", preset="small", ending="failed")
    (row,) = RunListing().read()
    assert row_matches(row, "")
    assert row_matches(row, "LONG fail small")
    assert not row_matches(row, "long stopped")


@pytest.mark.parametrize("width", [4, 20, 40, 60, 78, 100, 118, 300])
def test_columns_fit_and_the_name_never_goes(width):
    write_run("2026-01-01-000000-small")
    write_run("2026-01-01-000000-" + "n" * 80)
    layout = fitting(RunListing().read(), width)
    assert layout[0][0].key == "name"
    assert sum(cells + 2 for _, cells in layout) <= max(width, 6)
    if width >= 118:  # the ratio to xz is left out before a name is cut
        assert len(layout) == len(COLUMNS) - (width < 300)
