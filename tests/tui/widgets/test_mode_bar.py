"""What the top line says of a training, in whatever room there is."""

import pytest

from gpt2tui.tui.widgets.mode_bar import TrainingStatus, _status_lines

STATUS = TrainingStatus("running", "2026-01-31-120000-small", 412, 1200, 112.0)


def said(room, status=STATUS):
    """The longest of the lines that fits."""
    return next(line.plain for line in _status_lines(status, {}) if line.cell_len <= room)


@pytest.mark.parametrize(
    ("room", "line"),
    [
        (73, "small  ● TRAINING  412/1,200  34%  ━━━━━━━━━━━━━━  ETA 1:52 "),
        (58, "small  ● TRAINING  412/1,200  34%  ━━━━━━  ETA 1:52 "),
        (50, "small  ● TRAINING  412/1,200  34%  ETA 1:52 "),
        (34, "small  ● TRAINING  34%  ETA 1:52 "),
        (32, "● TRAINING  412/1,200  ETA 1:52 "),
        (12, "● TRAINING "),
        (3, "● "),
    ],
)
def test_the_name_of_the_run_stays_longer_than_the_bar_and_the_steps(room, line):
    assert said(room) == line


def test_a_long_name_is_cut_before_it_goes():
    status = TrainingStatus("running", "2026-01-31-120000-shakespeare-with-a-long-name", 412, 1200, 112.0)
    assert said(74, status) == "shakespeare-with-a-long-name  ● TRAINING  412/1,200  34%  ETA 1:52 "
    assert said(56, status) == "shakespeare-w…  ● TRAINING  412/1,200  34%  ETA 1:52 "


def test_preparing_says_what_is_prepared():
    status = TrainingStatus("preparing", "small", preparation="training the tokenizer")
    assert said(73, status) == "small  ◌ PREPARING  training the tokenizer "
    assert said(20, status) == "◌ PREPARING "
