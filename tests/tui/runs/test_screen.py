"""The Runs screen: what it lists, draws and compares, and what it asks of the workbench."""

import json
import os
import threading
from types import SimpleNamespace

import pytest

from gpt2tui.run import events
from gpt2tui.run import folder as runs
from gpt2tui.tui.runs import library
from gpt2tui.tui.runs.details import RunDetails
from gpt2tui.tui.widgets.dialogs import ConfirmDialog
from gpt2tui.tui.widgets.first_run import FirstRun
from gpt2tui.tui.widgets.line_plot import LinePlot
from tests.tui.fake_runs import START, append, write_run
from tests.tui.looking import screen_text
from tests.tui.runs_app import RunsApp, drive, settle


def cell(app, run, column):
    return "".join(text for text, _ in app.cell(run, column)).strip()


def legend(app):
    return [line.name for line in app.screen.query_one(LinePlot).figure.lines if line.points]


def test_runs_are_listed_newest_first_with_their_states():
    write_run("2026-01-01-000000-a")
    write_run("2026-01-02-000000-b", steps=40, ending="stopped")
    write_run("2026-01-03-000000-c", steps=40, ending="crashed")
    write_run("2026-01-04-000000-d", steps=40, ending="failed")
    live = write_run("2026-01-05-000000-e", steps=40, ending="crashed")

    async def script(app, pilot):
        assert [name[-1] for name in app.names()] == ["e", "d", "c", "b", "a"]
        assert [cell(app, name, "state")[2:] for name in app.names()] == [
            "training", "failed", "crashed", "stopped", "finished",
        ]  # fmt: skip
        assert cell(app, app.names()[-1], "step") == "100/100"
        assert cell(app, live.name, "state") == "◉ training"
        assert cell(app, app.names()[-1], "lr") == "3.00e-3"
        assert cell(app, app.names()[-1], "batch") == "16"
        assert cell(app, app.names()[-1], "tokens") == "205k"

    with runs.locked(live):
        drive(script)


def test_a_run_that_this_process_trains_has_another_sign():
    live = write_run("2026-01-05-000000-e", steps=40, ending="crashed")
    app = RunsApp()
    app.session = SimpleNamespace(run=live, active=True)

    async def script(app, pilot):
        assert cell(app, live.name, "state") == "● training"
        await pilot.press("o")
        assert app.asked == [("chat", None)]  # the live weights
        await pilot.press("delete")
        assert "stop it first" in app.said[-1]
        await pilot.press("r")
        assert "is being trained here" in app.said[-1]

    with runs.locked(live):
        drive(script, app=app)


def test_the_list_follows_the_disk_while_in_front_and_the_cursor_stays_on_its_run():
    run = write_run("2026-01-01-000000-a", steps=40, ending="crashed")

    async def script(app, pilot):
        write_run("2026-01-02-000000-b")
        append(run, events.RunFinished(step=40, best_val_loss=2.0, seconds=4.0, reason="stopped"))
        assert app.table.pointed.name == run.name
        app.screen._read_list()
        await settle(pilot, lambda: len(app.names()) == 2)
        assert cell(app, run.name, "state") == "■ stopped"
        assert app.table.pointed.name == run.name

    drive(script)


def test_the_cursor_is_on_the_first_run_while_the_list_is_still_being_read(monkeypatch):
    """The first part of the list has another order than all of it."""
    for day in (1, 2, 3):
        run = write_run(f"2026-01-0{day}-000000-a")
        os.utime(run.preset_file, (START - day, START - day))
    monkeypatch.setattr(library, "PART_SECONDS", -1)

    async def script(app, pilot):
        assert app.names()[0] == app.table.pointed.name == "2026-01-03-000000-a"

    drive(script)


def test_rows_that_stay_as_they_are_get_the_colours_of_another_theme():
    run = write_run("2026-01-01-000000-a")

    async def script(app, pilot):
        def colour():
            return app.cell(run.name, "state")[0][1]

        dark = colour()
        app.theme = "textual-light"
        app.screen._read_list()
        await settle(pilot, lambda: colour() != dark)

    drive(script)


@pytest.mark.slow
def test_the_filter_needs_every_word_and_escape_ends_it():
    write_run("2026-01-01-000000-small")
    write_run("2026-01-02-000000-small", ending="failed")
    write_run("2026-01-03-000000-test", ending="failed")

    async def script(app, pilot):
        await pilot.press("slash", *"failed SMALL".replace(" ", "\0"))
        await pilot.press(*"x", "backspace")
        app.screen.query_one("#filter").value = "failed SMALL"
        await settle(pilot)
        assert app.names() == ["2026-01-02-000000-small"]
        assert "1 of 3" in str(app.table.border_title)
        await pilot.press("escape")
        await settle(pilot)
        assert len(app.names()) == 3
        assert app.focused is app.table

    drive(script)


@pytest.mark.slow
def test_letters_act_only_when_no_input_has_the_focus():
    write_run("2026-01-01-000000-a")

    async def script(app, pilot):
        await pilot.press("slash", "o", "r", "space", "c")
        assert app.screen.query_one("#filter").value == "or c"
        assert app.asked == []
        assert not len(app.screen._marks)

    drive(script)


@pytest.mark.slow
def test_sorting_is_remembered_and_unknown_numbers_come_last():
    write_run("2026-01-01-000000-a", steps=100)
    write_run("2026-01-02-000000-b", steps=60, ending="stopped")
    write_run("2026-01-03-000000-c", steps=3, ending="failed")  # never evaluated

    async def sort_by_best(app, pilot):
        await pilot.press(*"s" * 6)
        await settle(pilot)
        assert app.screen._sort == ("best", False)
        assert [name[-1] for name in app.names()] == ["a", "b", "c"]
        await pilot.press("S")
        await settle(pilot)
        assert [name[-1] for name in app.names()] == ["b", "a", "c"]

    async def still_sorted(app, pilot):
        assert [name[-1] for name in app.names()] == ["b", "a", "c"]

    drive(sort_by_best)
    drive(still_sorted)


def test_marked_runs_are_drawn_over_each_other():
    write_run("2026-01-01-100000-small")
    write_run("2026-01-02-110000-small")
    write_run("2026-01-03-120000-test")

    async def script(app, pilot):
        assert legend(app) == ["train", "smoothed", "val"]
        await pilot.press("space", "down", "space")
        await settle(pilot)
        assert sorted(legend(app)) == ["small 11:00", "test 12:00"]
        colours = {line.color for line in app.screen.query_one(LinePlot).figure.lines}
        assert len(colours) == 2
        await pilot.press("right_square_bracket")
        assert "val loss" in str(app.screen.query_one(LinePlot).border_title)
        await pilot.press("u")
        await settle(pilot)
        assert legend(app) == ["val loss"] or len(legend(app)) == 1

    drive(script)


def test_the_difference_of_two_presets_names_only_what_differs():
    write_run("2026-01-01-000000-a", overrides=["optimizer.lr=0.25"])
    write_run("2026-01-02-000000-b", overrides=["optimizer.lr=0.125"])

    async def script(app, pilot):
        await pilot.press("d")
        assert "mark two runs" in app.said[-1]
        await pilot.press("space", "down", "space", "d")
        await settle(pilot)
        shown = screen_text(pilot.app)
        assert "0.125 → 0.25" in shown
        assert "weight_decay" not in shown
        await pilot.press("escape")
        await settle(pilot)
        assert str(app.screen.query_one(RunDetails).border_title) == "2026-01-01-000000-a"

    drive(script)


def test_the_bits_per_byte_of_a_run_stand_beside_those_of_xz():
    write_run("2026-01-01-000000-a")

    async def script(app, pilot):
        await settle(pilot)
        assert all(text in screen_text(pilot.app) for text in ("xz 1.51, ratio ", "after training 1.27, ratio "))

    drive(script)


def test_resume_hands_the_frozen_preset_and_the_run_to_the_workbench():
    run = write_run("2026-01-01-000000-a", steps=40, ending="crashed", checkpoints=(40,), overrides=["training.seed=5"])

    async def script(app, pilot):
        await pilot.press("r")
        ((what, loaded, resume),) = app.asked
        assert (what, resume.folder) == ("train", run.folder)
        assert (loaded.name, loaded.preset.training.seed) == ("test", 5)

    drive(script)


def test_resume_says_why_not():
    write_run("2026-01-01-000000-done", checkpoints=(100,))
    write_run("2026-01-02-000000-bare", steps=40, ending="crashed")

    async def script(app, pilot):
        await pilot.press("r")
        assert "no checkpoint" in app.said[-1]
        await pilot.press("down")
        await settle(pilot)
        await pilot.press("r")
        assert "finished all 100 steps" in app.said[-1]
        assert app.asked == []

    drive(script)


@pytest.mark.slow
def test_enter_watches_and_o_opens_the_chat():
    run = write_run("2026-01-01-000000-a", checkpoints=(50,))

    async def script(app, pilot):
        await pilot.press("enter", "o")
        assert app.asked == [("attach", run.name), ("chat", str(run.folder))]

    drive(script)


def test_a_click_points_and_a_double_click_watches():
    write_run("2026-01-01-000000-a")
    write_run("2026-01-02-000000-b")

    async def script(app, pilot):
        await pilot.click(app.table, offset=(10, 3))
        await settle(pilot)
        assert app.table.pointed.name.endswith("a")
        assert app.asked == []
        await pilot.click(app.table, offset=(10, 3), times=2)
        await settle(pilot)
        assert app.asked == [("attach", "2026-01-01-000000-a")]

    drive(script)


def test_a_click_on_a_heading_sorts():
    write_run("2026-01-01-000000-a", steps=10, ending="failed")
    write_run("2026-01-02-000000-b", steps=90, ending="crashed")

    async def script(app, pilot):
        (_, name_width), *_ = app.table._layout
        await pilot.click(app.table, offset=(1 + name_width + 2 + 3, 1))
        await settle(pilot)
        assert app.screen._sort[0] == "state"

    drive(script)


@pytest.mark.slow
def test_copy_puts_the_repeating_command_on_the_clipboard():
    run = write_run("2026-01-01-000000-a")

    async def script(app, pilot):
        await pilot.press("c")
        assert app.clipboard.startswith(f"gpt2tui --headless --preset {run.preset_file} --run-dir ")

    drive(script)


def test_delete_asks_first_and_deletes_then():
    run = write_run("2026-01-01-000000-a")
    other = write_run("2026-01-02-000000-b")

    async def script(app, pilot):
        await pilot.press("down")
        await settle(pilot)
        await pilot.press("delete")
        await settle(pilot)
        assert isinstance(app.screen, ConfirmDialog)
        await pilot.press("enter")  # the first choice keeps it
        await settle(pilot)
        assert run.folder.exists()
        await pilot.press("delete")
        await settle(pilot)
        await pilot.press("tab", "enter")
        await settle(pilot, lambda: not run.folder.exists() and len(app.names()) == 1)
        assert app.names() == [other.name]

    drive(script)


def test_a_run_that_another_process_took_meanwhile_is_not_deleted():
    run = write_run("2026-01-01-000000-a")

    async def script(app, pilot):
        await pilot.press("delete")
        await settle(pilot)
        with runs.locked(run):
            await pilot.press("tab", "enter")
            await settle(pilot, lambda: bool(app.asked))
        assert app.asked[0][0] == "error"
        assert "in use by another process" in app.asked[0][2]
        assert run.events_file.exists()

    drive(script)


@pytest.mark.slow
def test_damaged_folders_are_shown_and_stop_nothing():
    write_run("2026-01-01-000000-good")
    bad = write_run("2026-01-02-000000-bad")
    bad.info_file.write_text("{", encoding="utf-8")
    bad.preset_file.write_text("not toml", encoding="utf-8")
    empty = write_run("2026-01-03-000000-empty")
    empty.events_file.unlink()
    torn = write_run("2026-01-04-000000-torn")
    with torn.events_file.open("ab") as file:
        file.write(b'\xff\x00{"v": 1, "event": "step", "st')

    async def script(app, pilot):
        for _ in range(4):
            await pilot.press("down")
            await settle(pilot)
        assert len(app.names()) == 4
        assert app.asked == []

    drive(script)


def test_without_a_run_it_says_how_to_get_one():
    async def script(app, pilot):
        assert app.screen.query_one(FirstRun).display
        app.table.focus()
        await pilot.press("enter", "space", "d", "r", "o", "c", "delete", "s", "escape", "right_square_bracket")
        assert app.asked == []

    drive(script)


@pytest.mark.slow
def test_every_size_down_to_20_by_5_and_every_resize_is_drawn():
    for number in range(12):
        write_run(f"2026-01-{number + 1:02}-000000-a-rather-long-name-of-a-preset-{number}")

    async def script(app, pilot):
        for width, height in ((80, 24), (20, 5), (120, 36), (40, 10), (10, 3), (200, 60), (60, 16), (59, 15)):
            await pilot.resize_terminal(width, height)
            await settle(pilot)
            await pilot.press("down")
        assert len(app.names()) == 12

    drive(script)


def test_nothing_is_read_while_another_mode_is_in_front():
    write_run("2026-01-01-000000-a")

    async def script(app, pilot):
        screen, reads = app.screen, []
        screen.reader.listing.read_in_parts = lambda here, seconds: reads.append(here) or [([], True)]
        await app.switch_mode("train")
        screen._tick()
        await settle(pilot)
        assert reads == []
        await app.switch_mode("runs")
        await settle(pilot)
        assert reads

    drive(script)


def test_the_run_last_shown_is_pointed_at_again():
    write_run("2026-01-01-000000-a")
    write_run("2026-01-02-000000-b")

    async def leave(app, pilot):
        await pilot.press("down")
        await settle(pilot)
        await app.switch_mode("train")

    async def back(app, pilot):
        assert app.table.pointed.name == "2026-01-01-000000-a"

    drive(leave)
    drive(back)


def test_summaries_have_every_number_of_the_contract():
    run = write_run("2026-01-01-000000-a", checkpoints=(50, 100))

    async def script(app, pilot):
        row = app.table.pointed
        assert row.summary.checkpoints == 2
        assert row.summary.bytes == sum(p.stat().st_size for p in run.folder.rglob("*") if p.is_file())
        assert json.loads(run.info_file.read_text())["preset"] == row.summary.preset
        for column in ("best", "bits", "tokens"):
            assert cell(app, run.name, column)

    drive(script)


@pytest.fixture
def read(monkeypatch):
    """Nothing but the newest run, where the cursor is at first, is read until this is set."""
    may, real = threading.Event(), library.read_contents

    def is_newest(row):
        return row.name == max(run.name for run in runs.all_runs())

    monkeypatch.setattr(library, "read_contents", lambda row, **_: (is_newest(row) or may.wait(60)) and real(row))
    return may


def test_a_resume_asked_for_before_the_run_is_read_is_not_lost(read):
    write_run("2026-01-01-000000-a", steps=40, ending="stopped", checkpoints=(40,))
    write_run("2026-01-02-000000-b")

    async def script(app, pilot):
        await pilot.press("down", "r")
        assert app.asked == []
        read.set()
        await settle(pilot, lambda: bool(app.asked))
        ((what, _, resume),) = app.asked
        assert (what, resume.name) == ("train", "2026-01-01-000000-a")

    drive(script)


@pytest.mark.slow
def test_a_resume_asked_for_is_given_up_when_the_cursor_moves_on(read):
    write_run("2026-01-01-000000-a")
    write_run("2026-01-02-000000-b", steps=40, ending="stopped", checkpoints=(40,))
    write_run("2026-01-03-000000-c")

    async def script(app, pilot):
        await pilot.press("down", "r", "down")
        read.set()
        await settle(pilot)
        await pilot.press("up")
        await settle(pilot)
        assert app.asked == []

    drive(script)


@pytest.mark.slow
def test_sorting_shows_the_top_of_the_list():
    for day in range(1, 29):
        write_run(f"2026-01-{day:02}-000000-a")

    async def script(app, pilot):
        await pilot.press("end")
        await settle(pilot, lambda: app.table.cursor_row == 27)
        await pilot.press("s")
        await settle(pilot)
        assert (app.table.cursor_row, app.table.scroll_y) == (0, 0)

    drive(script)


@pytest.mark.slow
def test_marked_runs_are_deleted_after_one_question_and_the_cursor_goes_to_a_neighbour():
    for day in range(1, 13):
        write_run(f"2026-01-{day:02}-000000-{'old' if day < 11 else 'new'}")

    async def script(app, pilot):
        await pilot.press("slash", *"old", "enter", "asterisk")
        assert "10 of 12 runs · 10 marked" in str(app.table.border_title)
        await pilot.press("D")
        await pilot.pause()
        assert app.screen._title == "Delete 10 runs?"
        assert "and 2 more" in screen_text(app)
        await pilot.press("tab", "enter")
        await settle(pilot, lambda: not any("old" in run.name for run in runs.all_runs()))
        await pilot.press("escape")
        await settle(pilot, lambda: len(app.names()) == 2)
        assert app.table.pointed is not None
        assert app.table.pointed.name in str(app.screen.query_one(RunDetails).border_title)

    drive(script)


@pytest.mark.slow
def test_the_run_after_a_deleted_one_is_selected():
    for day in (1, 2, 3):
        write_run(f"2026-01-0{day}-000000-a")

    async def script(app, pilot):
        await pilot.press("down")
        await settle(pilot)
        await pilot.press("delete")
        await pilot.pause()
        await pilot.press("tab", "enter")
        await settle(pilot, lambda: len(app.names()) == 2)
        assert str(app.screen.query_one(RunDetails).border_title) == "2026-01-01-000000-a"
        assert legend(app)

    drive(script)


def test_columns_are_chosen_and_remembered():
    write_run("2026-01-01-000000-a")

    async def choose(app, pilot):
        assert "params" not in screen_text(app)
        await pilot.press("C")
        await settle(pilot)
        await pilot.press("space", *["down"] * 10, "space", "enter")  # the state off, the parameters on
        await settle(pilot)
        assert cell(app, app.names()[0], "parameters") == "174k"

    async def again(app, pilot):
        keys = [column.key for column, _ in app.table._layout]
        assert "parameters" in keys
        assert "state" not in keys

    drive(choose)
    drive(again)


def test_a_filter_that_cannot_be_read_says_so_and_keeps_the_list():
    write_run("2026-01-01-000000-a")
    write_run("2026-01-02-000000-b", steps=40, ending="stopped")

    async def script(app, pilot):
        await pilot.press("slash")
        app.screen.query_one("#filter").value = "step<50"
        await settle(pilot)
        assert app.names() == ["2026-01-02-000000-b"]
        app.screen.query_one("#filter").value = "step<50 vall<3"
        await settle(pilot)
        assert app.names() == ["2026-01-02-000000-b"]
        assert "vall is no column or setting" in str(app.table.border_title)

    drive(script)


def test_long_names_keep_their_beginning_and_their_end():
    name = "2026-01-01-000000-a-very-long-name-of-a-run-that-ends-with-lr-3"
    write_run(name)

    async def script(app, pilot):
        shown = cell(app, name, "name")
        assert shown.startswith("2026-01")
        assert "…" in shown
        assert shown.endswith("lr-3")

    drive(script, size=(80, 24))


@pytest.mark.slow
def test_a_long_list_draws_only_what_is_in_view_and_stays_scrolled_when_it_is_read_again(monkeypatch):
    for number in range(40):
        write_run(f"2026-01-01-{number:06}-a", steps=10, total=10)
    drawn = []

    async def script(app, pilot):
        real, before = app.table.cell, app.table.cursor_row
        monkeypatch.setattr(app.table, "cell", lambda row, *rest: drawn.append(row.name) or real(row, *rest))
        app.table.scroll_to(y=20, animate=False)
        await settle(pilot)
        write_run("2025-01-01-000000-another")
        app.screen._read_list()
        await settle(pilot, lambda: len(app.names()) == 41)
        assert (app.table.cursor_row, app.table.scroll_y) == (before, 20)
        await pilot.press("end")
        await settle(pilot)
        assert app.table.scroll_y == 42 - app.table.size.height
        assert 0 < len(set(drawn)) <= 41 - 20 + app.table.size.height < 41

    drive(script)
