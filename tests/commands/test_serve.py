"""`gpt2tui serve` and `gpt2tui attach`: which requests are allowed, and the messages when something is missing."""

import sys

import pytest

from gpt2tui.__main__ import main
from gpt2tui.commands.serve import command_line, is_other_name_of_this_machine, is_own_page

LOCAL = "http://localhost:8000"


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("localhost:8000", None, True),
        ("localhost:8000", "http://localhost:8000", True),
        ("localhost:8000", "http://evil.example", False),
        ("localhost:8000", "http://localhost:8001", False),
        ("localhost:8000", "https://localhost:8000", False),
        ("localhost:8000", "null", False),
        ("evil.example", None, False),  # another name that points at this machine
        ("evil.example:8000", "http://evil.example:8000", False),
        ("LOCALHOST:8000", "http://LOCALHOST:8000", True),
        (None, None, False),
    ],
)
def test_only_requests_of_our_own_page_are_allowed(host, origin, allowed):
    assert is_own_page(host, origin, LOCAL) is allowed


@pytest.mark.parametrize(
    ("host", "other"),
    [
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("127.0.0.1:8001", False),
        ("evil.example:8000", False),
        ("192.168.0.1:8000", False),
        ("127.0.0.1:x", False),
        (None, False),
    ],
)
def test_another_name_of_this_machine_is_sent_to_the_page(host, other):
    assert is_other_name_of_this_machine(host, LOCAL) is other
    assert not is_other_name_of_this_machine(host, "http://example.org:8000")


def test_a_default_port_may_be_left_out():
    assert is_own_page("example.org", "https://example.org", "https://example.org")
    assert is_own_page("example.org:443", "https://example.org", "https://example.org")


def test_each_page_runs_the_same_program():
    assert sys.executable in command_line()


def test_without_textual_serve_the_message_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "textual_serve", None)
    monkeypatch.setitem(sys.modules, "textual_serve.server", None)
    assert main(["serve"]) == 2
    assert "uv run --extra serve gpt2tui serve" in capsys.readouterr().err


def test_attach_names_the_nearest_run(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "runs" / "2026-01-01-small"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    assert main(["attach", "2026-01-01-smoll"]) == 2
    assert "did you mean 2026-01-01-small?" in capsys.readouterr().err


def test_attach_needs_a_terminal(tmp_path, capsys):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    assert main(["attach", "a"]) == 2
    assert "terminal" in capsys.readouterr().err
