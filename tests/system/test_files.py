"""What files are made with, and what is opened."""

import errno
import os
import stat
from pathlib import Path

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


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_without_permissions_or_syncing_of_folders_can_be_used(tmp_path, monkeypatch, number):
    fsync = os.fsync

    def refuse_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    def refuse(self, mode):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(self))

    monkeypatch.setattr(os, "fsync", refuse_folders)
    monkeypatch.setattr(Path, "chmod", refuse)
    durable.replace_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").read_text() == "text"


def test_a_disk_that_cannot_sync_a_folder_is_an_error(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        durable.sync_folder(tmp_path)
