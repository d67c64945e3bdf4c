"""Renaming, deleting and stopping runs from the command line and the screen."""

import json
import os
import signal
import subprocess
import sys

import pytest

from gpt2tui.errors import RunLockedError, UsageError
from gpt2tui.run import folder as runs
from gpt2tui.run.tidying import delete_run, rename_run, stop_run
from tests.tui.fake_runs import write_run


def test_deleting_takes_the_whole_folder_and_nothing_else():
    run, other = write_run("a"), write_run("b")
    delete_run(run)
    assert not run.folder.exists()
    assert other.events_file.exists()


def test_a_running_run_is_never_deleted():
    run = write_run("a")
    with runs.locked(run), pytest.raises(RunLockedError):
        delete_run(run)
    assert run.info_file.exists()


def test_a_link_is_not_followed_into_deletion():
    run = write_run("a")
    link = run.folder.with_name("b")
    link.symlink_to(run.folder.name)
    with pytest.raises(UsageError, match="link"):
        delete_run(runs.Run(link))
    assert run.events_file.exists()


def test_a_renamed_run_is_found_by_its_new_name_only():
    run = write_run("2026-01-31-120000-small")
    renamed = rename_run(run, "lr=1e-3")
    assert renamed.folder == run.folder.with_name("lr=1e-3")
    assert runs.find("lr=1e-3") == renamed
    assert [found.name for found in runs.all_runs()] == ["lr=1e-3"]
    assert not runs.is_locked(renamed)


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", ".hidden", "latest", "a b", "\x1b[31m", "-x", "x" * 101, "a.", "a@3"]
)
def test_a_name_that_is_no_plain_folder_name_is_refused(name):
    run = write_run("a")
    with pytest.raises(UsageError, match="cannot be the name of a run"):
        rename_run(run, name)
    assert run.info_file.exists()


def test_nothing_is_overwritten_by_a_rename_and_a_running_run_keeps_its_name():
    run = write_run("a")
    write_run("b")
    with pytest.raises(UsageError, match="exists already"):
        rename_run(run, "b")
    with runs.locked(run), pytest.raises(RunLockedError):
        rename_run(run, "c")
    assert [found.name for found in runs.all_runs()] == ["a", "b"]


HOLDER = """
import sys, time
from pathlib import Path
from gpt2tui.run import folder as runs
run = runs.Run(Path(sys.argv[1]))
with runs.locked(run):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held():
    """A run that another process holds, and that process."""
    run = write_run("a")
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(run.folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield run, process
    process.kill()
    process.communicate()


def with_info(run, **changes):
    run.info_file.write_text(json.dumps({**json.loads(run.info_file.read_text()), **changes}))


def test_stop_ends_the_process_that_holds_the_run(held):
    run, process = held
    with_info(run, pid=process.pid, host=None)
    assert stop_run(run) == process.pid
    assert process.wait(timeout=60) == -signal.SIGTERM


def test_stop_spares_a_process_that_only_has_the_id_in_run_json(held):
    run, process = held
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        for pid in (bystander.pid, None, "1", -1, 0, os.getpid(), 10**9):
            with_info(run, pid=pid, host=None)
            with pytest.raises(RunLockedError, match="not by the process"):
                stop_run(run)
        assert bystander.poll() is None
    finally:
        bystander.communicate(b"\n")
    with_info(run, pid=process.pid, host="0123456789abcdef")
    with pytest.raises(RunLockedError, match="another machine"):
        stop_run(run)
    assert process.poll() is None


def test_a_run_that_nobody_trains_is_not_stopped():
    run = write_run("a")
    with_info(run, pid=os.getpid(), host=None)
    with pytest.raises(UsageError, match="not being trained"):
        stop_run(run)
