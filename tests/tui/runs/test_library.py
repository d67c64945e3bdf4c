"""Reading the runs folder: only what changed, and never an exception."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from gpt2tui.errors import UsageError
from gpt2tui.run import events, summary_cache
from gpt2tui.run import folder as runs
from gpt2tui.run.summary import summarize
from gpt2tui.tui import history_file
from gpt2tui.tui.runs.library import RunListing, RunReader, read_contents
from gpt2tui.tui.runs.table import COLUMNS, USUAL, RunFilter, cell_widths, fitting, sort_rows
from tests.tui.fake_runs import append, write_run


def states(rows):
    return {row.name: row.state for row in rows}


def test_only_a_run_that_changed_is_read_again(monkeypatch):
    a, _ = write_run("a"), write_run("b")
    read = []
    monkeypatch.setattr(summary_cache, "summarize", lambda run: read.append(run.name) or summarize(run))
    listing = RunListing()
    listing.read()
    listing.read()
    assert sorted(read) == ["a", "b"]
    append(a, events.Warned(message="hm"))
    listing.read()
    assert read[2:] == ["a"]


def test_a_lock_that_comes_or_goes_is_a_change():
    run = write_run("a", steps=40, ending="crashed")
    listing = RunListing()
    assert states(listing.read()) == {"a": "crashed"}
    with runs.locked(run):
        assert states(listing.read()) == {"a": "training"}
        assert [row.elsewhere for row in listing.read()] == [True]
        assert [row.elsewhere for row in listing.read(here=run.folder)] == [False]
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


def test_a_long_run_is_not_read_on_behind_another_screen_but_in_full_later(monkeypatch):
    monkeypatch.setattr(history_file, "LONG", 0)
    write_run("a")
    (row,) = RunListing().read()
    posted = []
    screen = SimpleNamespace(is_attached=True, post_message=posted.append, run_worker=lambda work, **_: work())
    reader = RunReader(screen)
    reader.stop()
    reader.read_first_of([row])
    (preview,) = posted
    reader.store(preview)
    assert (preview.complete, reader.busy) == (False, False)
    reader.list_runs(None)
    reader.read_first_of([row])
    assert posted[-1].complete
    assert posted[-1].contents.history.logged == 110
    reader.store(posted[-1])
    assert reader.library.next_to_read([row]) is None


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
    assert RunFilter("").matches(row)
    assert RunFilter("LONG fail small").matches(row)
    assert not RunFilter("long stopped").matches(row)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("best<3.5 lr=0.001", "a"),
        ("best<3.5 lr=1e-3 state:finished", "a"),
        ("lr>0.001", "b"),
        ("state:stopped", "b"),
        ("batch_size=16 steps", ""),
        ("tokens>100k", "a b"),
        ("training.seed=7", "b"),
    ],
)
def test_conditions_choose_runs_by_numbers_settings_and_state(text, found):
    write_run("a", overrides=["optimizer.lr=0.001"])
    write_run("b", steps=60, ending="stopped", overrides=["optimizer.lr=0.01", "training.seed=7"])
    assert [row.name for row in RunListing().read() if RunFilter(text).matches(row)] == found.split()


@pytest.mark.parametrize("text", ["val<", "val<many", "nonsense=3"])
def test_a_condition_that_cannot_be_read_is_an_error(text):
    with pytest.raises(UsageError):
        RunFilter(text)


def test_a_long_list_is_shown_before_all_of_it_is_read():
    for name in "abc":
        write_run(name)
    listing = RunListing()
    parts = list(listing.read_in_parts(seconds=-1.0))
    assert [complete for _, complete in parts] == [False, False, False, True]
    assert states(parts[0][0]) == {"a": "loading", "b": "loading", "c": "loading"}
    assert states(parts[1][0]) == {"a": "loading", "b": "loading", "c": "finished"}  # the newest first
    assert states(parts[-1][0]) == dict.fromkeys("abc", "finished")
    assert states(next(listing.read_in_parts(seconds=-1.0))[0]) == dict.fromkeys("abc", "finished")  # known by now


@pytest.mark.parametrize("width", [4, 20, 40, 60, 78, 100, 118, 300])
def test_columns_fit_and_the_name_never_goes(width):
    write_run("2026-01-01-000000-small")
    write_run("2026-01-01-000000-" + "n" * 80)
    layout = fitting([cell_widths(row) for row in RunListing().read()], width)
    assert layout[0][0].key == "name"
    assert sum(cells + 2 for _, cells in layout) <= max(width, 6)
    if width == 300:
        assert len(layout) == 1 + len(USUAL)
