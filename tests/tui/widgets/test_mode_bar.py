"""What the top line says of a training, in whatever room there is."""

from typing import get_args

import pytest

from gpt2tui.run.state import RunState
from gpt2tui.tui.session import SessionState
from gpt2tui.tui.widgets.mode_bar import TrainingStatus, _status_lines

STATUS = TrainingStatus("training", "2026-01-31-120000-small", 412, 1200, 112.0)


def said(room, status=STATUS):
    """The longest of the lines that fits."""
    return next((line.plain for line in _status_lines(status, {}) if line.cell_len <= room), "")


@pytest.mark.parametrize(
    ("room", "line"),
    [
        (73, "small 12:00  ● TRAINING  412/1,200  34%  ━━━━━━━━━━━━━━  ETA 1:52 "),
        (64, "small 12:00  ● TRAINING  412/1,200  34%  ━━━━━━  ETA 1:52 "),
        (56, "small 12:00  ● TRAINING  412/1,200  34%  ETA 1:52 "),
        (40, "small 12:00  ● TRAINING  34%  ETA 1:52 "),
        (34, "small  ● TRAINING  34%  ETA 1:52 "),
        (32, "● TRAINING  412/1,200  ETA 1:52 "),
        (12, "● TRAINING "),
        (3, "● "),
    ],
)
def test_the_name_of_the_run_stays_longer_than_the_bar_and_the_steps(room, line):
    assert said(room) == line


def test_a_long_name_is_cut_before_it_goes():
    status = TrainingStatus("training", "2026-01-31-120000-shakespeare-with-a-long-name", 412, 1200, 112.0)
    assert said(74, status) == "shakespeare-wit…ong-name 12:00  ● TRAINING  412/1,200  34%  ETA 1:52 "
    assert said(56, status) == "shakesp… 12:00  ● TRAINING  412/1,200  34%  ETA 1:52 "


def test_preparing_says_what_is_prepared():
    status = TrainingStatus("preparing", "small", preparation="training the tokenizer")
    assert said(73, status) == "small  ◌ PREPARING  training the tokenizer "
    assert said(20, status) == "◌ PREPARING "


def test_a_run_of_another_process_is_elsewhere():
    status = TrainingStatus("training", "2026-01-31-120000-small", 412, 1200, 112.0, elsewhere=True)
    assert said(66, status) == "small 12:00  ◉ TRAINING ELSEWHERE  412/1,200  34%  ETA 1:52 "


def test_the_training_of_this_process_says_so_beside_another_run():
    status = TrainingStatus("training", "2026-01-31-120000-small", 412, 1200, 112.0, beside=True)
    assert said(80, status).startswith("training here: small 12:00  ● TRAINING")


@pytest.mark.parametrize("state", [*get_args(RunState), *get_args(SessionState)])
def test_every_state_has_a_sign_and_its_own_word(state):
    line = said(80, TrainingStatus(state, "small", 3, 10))
    assert state == "idle" or state.upper() in line
