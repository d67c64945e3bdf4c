"""What files are made with, and what is opened."""

import os

import pytest

from gpt2tui.system import files as durable


def test_the_umask_is_not_changed_to_read_it(tmp_path, monkeypatch):
    # Another thread would make its files with it meanwhile.
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask belongs to the whole process"))
    durable.replace_text(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"


def test_a_link_is_opened_only_where_links_are_followed(tmp_path):
    (tmp_path / "a").write_text("text")
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(OSError, match="it is a link"):
        durable.open_regular(tmp_path / "link")
    with os.fdopen(durable.open_regular(tmp_path / "link", follow_links=True)) as file:
        assert file.read() == "text"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        durable.open_regular(tmp_path / "pipe")
