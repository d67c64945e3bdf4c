import pytest

from gpt2tui.run.events import Paused
from gpt2tui.tracking.console import bar, status_lines
from gpt2tui.tracking.run_progress import RunProgress
from tests.tracking import event_samples as sample


def progress_after(*events):
    progress = RunProgress()
    for event in (sample.run_started(), *events):
        progress = progress.after(event)
    return progress


LATE = progress_after(sample.step(1240, train_loss=2.314), sample.evaluated(1240))


def test_two_lines_at_eighty_columns():
    assert status_lines(LATE, 80, 124.0).plain.split("\n") == [
        "step 1,240 of 2,000 ━━━━━━━━━━━━━━━━━━━━━━━━━━━╸────────────────  62%  1:16 left",
        "loss 2.314   1.250 bits/byte   0.83/0.98 of xz   20.5k tokens/s   1.21 GB memory",
    ]


def test_a_narrow_terminal_loses_the_bar_and_the_last_numbers():
    assert status_lines(LATE, 38, 124.0).plain.split("\n") == [
        "step 1,240 of 2,000     62%  1:16 left",
        "loss 2.314   1.250 bits/byte",
    ]


@pytest.mark.parametrize("width", range(1, 201))
def test_each_line_fits_every_width(width):
    for progress in (RunProgress(), progress_after(), LATE, LATE.after(Paused(step=1240))):
        lines = status_lines(progress, width, 3600.0).split("\n")
        assert len(lines) == 2
        assert all(line.cell_len <= width for line in lines)


def test_before_the_first_step_the_clock_shows_that_the_program_is_alive():
    lines = status_lines(progress_after(), 80, 12.0).plain
    assert "0:12 so far" in lines
    assert "waiting for the first step" in lines


def test_a_pause_is_shown_in_place_of_the_time_left():
    lines = status_lines(LATE.after(Paused(step=1240)), 80, 12.0).plain
    assert "paused" in lines
    assert "left" not in lines


@pytest.mark.parametrize(
    ("fraction", "picture"),
    [
        (0.0, "──────────"),
        (0.05, "╸─────────"),
        (0.5, "━━━━━─────"),
        (0.55, "━━━━━╸────"),
        (1.0, "━━━━━━━━━━"),
    ],
)
def test_bar_fills_by_half_cells(fraction, picture):
    assert bar(fraction, 10).plain == picture


def test_bar_in_ascii():
    assert bar(0.5, 10, unicode=False).plain == "=====-----"
