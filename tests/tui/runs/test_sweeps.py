"""The runs of a sweep on the Runs screen: one row, which opens, and their curves over each other."""

import pytest

from gpt2tui.run.folder import SWEEP_FILE
from gpt2tui.system.files import runs_folder
from gpt2tui.tui.runs.curves import COLOURS, sweep_colours
from gpt2tui.tui.runs.details import RunDetails
from gpt2tui.tui.runs.library import RunListing
from gpt2tui.tui.runs.sweeps import MOST_DRAWN, SweepRow, in_sweeps
from gpt2tui.tui.runs.table import NAME, table_rows
from gpt2tui.tui.widgets.line_plot import LinePlot
from tests.tui.fake_runs import write_run
from tests.tui.looking import screen_text
from tests.tui.runs_app import drive, settle

RATES = "2026-01-02-000000-rates"


def write_sweep(name=RATES, **steps):
    """A sweep with a run for each name, trained for that number of steps: more steps, lower loss."""
    for run, count in steps.items():
        write_run(f"{name}/{run}", steps=count, overrides=[f"optimizer.lr={count / 1000}"])
    (runs_folder() / name / SWEEP_FILE).write_text("{}")


def legend(app):
    return [line.name for line in app.screen.query_one(LinePlot).figure.lines if line.points]


def test_a_sweep_is_one_row_that_opens_and_closes():
    write_run("2026-01-01-000000-alone")
    write_sweep(a=30, b=100, c=50)

    async def script(app, pilot):
        assert app.names() == [RATES, "2026-01-01-000000-alone"]
        assert "▸" in app.cell(RATES, "name")[1][0]
        assert "4 runs" in str(app.table.border_title)
        await pilot.press("up", "enter")
        await settle(pilot)
        assert set(app.names()[1:4]) == {f"{RATES}/{run}" for run in "abc"}
        await pilot.press("down", "enter")
        assert app.asked[-1][0] == "attach"  # Enter on a run watches it
        await pilot.press("left")
        await settle(pilot)
        assert app.names() == [RATES, "2026-01-01-000000-alone"]
        assert app.table.pointed.name == RATES
        await pilot.press("right")
        await settle(pilot, lambda: len(app.names()) == 5)

    drive(script)


def test_a_sweep_is_drawn_and_ranked_with_the_best_run_first():
    write_sweep(a=30, b=100, c=50)

    async def script(app, pilot):
        await settle(pilot, lambda: len(legend(app)) == 3)
        assert legend(app) == ["b", "c", "a"]  # without the name of the sweep, which all have
        lines = [line for line in app.screen.query_one(LinePlot).figure.lines if line.points]
        assert [line.color for line in lines] == list(COLOURS[:3])
        text = screen_text(app)
        ranking = [text.index(f"◆ {run} ") for run in ("b", "c", "a")]
        assert ranking == sorted(ranking)
        assert str(app.screen.query_one(RunDetails).border_title) == f"sweep {RATES}"

    drive(script)


@pytest.mark.slow
def test_runs_of_the_same_name_in_two_sweeps_are_told_apart():
    write_sweep(a=30, b=50)
    write_sweep("2026-01-03-000000-rates", a=40, b=60)

    async def script(app, pilot):
        await pilot.press("home", "enter", "end", "enter")
        await settle(pilot, lambda: len(app.names()) == 6)
        assert len(set(app.names())) == 6
        await pilot.press("end", "space", "home", "down", "space", "d")
        await settle(pilot, lambda: "difference" in str(app.screen.query_one(RunDetails).border_title))
        text = screen_text(app)
        assert all(f"◆ {name}/" in text for name in (RATES, "2026-01-03-000000-rates"))
        assert "[optimizer]" in text

    drive(script)


def test_space_marks_all_runs_of_a_sweep_and_a_filter_opens_it():
    write_run("2026-01-01-000000-alone")
    write_sweep(a=30, b=100)

    async def script(app, pilot):
        await pilot.press("home", "space")
        await settle(pilot)
        assert list(app.screen._marks.colours) == [f"{RATES}/b", f"{RATES}/a"]
        await pilot.press("space")
        assert not len(app.screen._marks)
        app.screen.query_one("#filter").value = "lr<0.05"
        await settle(pilot, lambda: app.names() == [RATES, f"{RATES}/a", "2026-01-01-000000-alone"])

    drive(script)


@pytest.mark.parametrize("descending", [False, True])
def test_sweeps_are_sorted_by_their_best_run_and_their_runs_among_themselves(descending):
    write_run("2026-01-01-000000-alone", steps=60)
    write_sweep(a=30, b=100, c=50)
    rows = table_rows(RunListing().read(), {RATES}, "best", descending)
    names = [row.name.rpartition("/")[2] for row in rows]
    expected = (
        ["2026-01-01-000000-alone", RATES, "a", "c", "b"]
        if descending
        else [RATES, "b", "c", "a", "2026-01-01-000000-alone"]
    )
    assert names == expected


def test_the_row_of_a_sweep_sums_up_and_shows_the_settings_in_common():
    write_sweep(a=30, b=100)
    (sweep,) = in_sweeps(RunListing().read(), ())
    assert isinstance(sweep, SweepRow)
    assert (sweep.summary.step, sweep.summary.num_iterations) == (130, 200)
    assert sweep.summary.tokens_seen == 130 * 2048
    assert sweep.summary.best_val_loss == sweep.best_first[0].summary.best_val_loss
    assert sweep.learning_rate is None
    assert sweep.batch_size == 16
    assert sweep.summary.bytes == sum(row.summary.bytes for row in sweep.runs)


def test_a_sweep_with_runs_that_have_not_begun_is_not_finished(monkeypatch):
    write_sweep(a=100, b=100)
    monkeypatch.setattr("gpt2tui.tui.runs.sweeps.planned_runs", lambda folder: 6)
    (sweep,) = in_sweeps(RunListing().read(), ())
    assert sweep.state == "stopped"
    assert NAME.text(sweep) == f"▸ {RATES} (2 of 6)"
    monkeypatch.setattr("gpt2tui.tui.runs.sweeps.planned_runs", lambda folder: 2)
    (sweep,) = in_sweeps(RunListing().read(), ())
    assert sweep.state == "finished"
    assert NAME.text(sweep) == f"▸ {RATES} (2)"


def test_a_large_sweep_draws_its_best_runs():
    write_sweep(**{f"run{number:02}": 10 + number for number in range(MOST_DRAWN + 4)})
    (sweep,) = in_sweeps(RunListing().read(), ())
    colours = sweep_colours(sweep)
    assert len(colours) == MOST_DRAWN
    assert next(iter(colours)) == sweep.best_first[0].name
    assert set(list(colours.values())[len(COLOURS) :]) == {"foreground-muted"}
