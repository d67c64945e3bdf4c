"""The files through which other processes ask something of a training."""

import json
import os
import time

import pytest

from gpt2tui.__main__ import main
from gpt2tui.errors import UsageError
from gpt2tui.run import folder as runs
from gpt2tui.run import requests
from gpt2tui.run.events import Paused
from gpt2tui.run.requests import FOLDER, Inbox, ask, send
from tests.tui.fake_runs import write_run


@pytest.fixture
def held():
    run = write_run("a", ending="crashed")
    with runs.locked(run):
        yield run


def named(number):
    return f"{number:020d}-{'0' * 32}.json"


def test_requests_are_taken_once_and_in_the_order_of_sending(held):
    inbox = Inbox(held)
    assert inbox.take() == []
    for request in ("checkpoint", "pause", "evaluate", "continue"):
        send(held, request)
    assert inbox.take() == ["checkpoint", "pause", "evaluate", "continue"]
    assert inbox.take() == []
    inbox.close()
    assert not (held.folder / FOLDER).exists()


def test_what_a_dead_process_has_left_is_removed_and_not_obeyed(held):
    path = send(held, "stop")
    unfinished = path.with_name(f".{path.stem}.tmp")
    unfinished.touch()
    assert path.exists()
    assert Inbox(held).take() == []
    assert not path.exists()
    assert not unfinished.exists()


def test_hostile_files_are_ignored_and_do_not_hold_up_a_request(held, tmp_path):
    inbox, folder = Inbox(held), held.folder / FOLDER
    folder.mkdir()
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(json.dumps({"v": 1, "request": "stop"}))
    (folder / named(1)).symlink_to(elsewhere)
    os.mkfifo(folder / named(2))
    (folder / named(3)).mkdir()
    with (folder / named(4)).open("wb") as file:
        file.write(json.dumps({"v": 1, "request": "stop"}).encode())
        file.truncate(1 << 40)
    for number, text in enumerate(('{"v": 1}', "[" * 5000, "stop", '{"v": 2, "request": "stop"}', ""), start=5):
        (folder / named(number)).write_text(text)
    (folder / named(20)).write_bytes(b"\xff\xfe\0")
    (folder / named(21)).write_text('{"v": 1, "request": ["stop"]}')
    (folder / "stop.json").write_text('{"v": 1, "request": "stop"}')
    send(held, "pause")
    assert inbox.take() == ["pause"]
    assert inbox.take() == []
    assert elsewhere.exists()


def test_a_folder_of_requests_that_is_a_link_is_neither_read_nor_written(held, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (held.folder / FOLDER).symlink_to(elsewhere)
    (elsewhere / named(1)).write_text('{"v": 1, "request": "stop"}')
    inbox = Inbox(held)
    assert inbox.take() == []
    inbox.close()
    assert [path.name for path in elsewhere.iterdir()] == [named(1)]
    assert main(["runs", "checkpoint", "a"]) == 6
    assert [path.name for path in elsewhere.iterdir()] == [named(1)]


@pytest.mark.parametrize(
    ("ending", "words"),
    [("finished", "it is finished"), ("stopped", "--resume a"), ("failed", "--resume a"), ("crashed", "--resume a")],
)
def test_a_run_that_nobody_trains_is_one_sentence(ending, words, capsys):
    write_run("a", ending=ending)
    for request in ("pause", "continue", "stop", "checkpoint", "evaluate"):
        assert main(["runs", request, "a"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "a is not being trained" in line
        assert words in line
    assert not (runs.find("a").folder / FOLDER).exists()


def test_a_request_that_nobody_takes_is_withdrawn(held, capsys):
    assert main(["runs", "pause", "a", "--timeout", "0.1"]) == 75
    assert "withdrawn" in capsys.readouterr().err
    assert list((held.folder / FOLDER).iterdir()) == []


def test_a_request_that_is_taken_but_not_answered_says_so(held, monkeypatch, capsys):
    inbox = Inbox(held)
    monkeypatch.setattr(time, "sleep", lambda seconds: inbox.take())
    assert main(["runs", "evaluate", "a", "--timeout", "0.1"]) == 75
    assert "has taken the request" in capsys.readouterr().err


def test_a_run_that_is_paused_already_answers(held):
    with held.events_file.open("a") as file:
        file.write(Paused(step=100).as_json() + "\n")
    inbox = Inbox(held)
    taking = pytest.MonkeyPatch()
    taking.setattr(requests.time, "sleep", lambda seconds: inbox.take())
    with taking.context():
        assert ask(held, "pause", 60) == "a is paused already, after step 100"
    taking.undo()
    with pytest.raises(UsageError, match="not being trained"):
        ask(write_run("b"), "pause", 60)
