import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gpt2tui.errors import ResourceError
from gpt2tui.run import events_file
from gpt2tui.run.events import RunFailed, RunFinished, RunStarted, Step, Warned
from gpt2tui.run.events_file import JsonLines, follow_events, lines_but_steps, parse_line, read_events
from tests.tracking import event_samples as sample

REPOSITORY = Path(__file__).parents[2]


def write(path, *events):
    subscriber = JsonLines(path)
    for event in events:
        subscriber.handle(event)
    subscriber.close()


def run_python(code, *arguments, **options):
    """Run `code` in a fresh interpreter in the repository, with what every piece needs imported."""
    prelude = (
        "import sys, os, signal, time; from pathlib import Path\n"
        "from tests.tracking import event_samples as sample\n"
        "from gpt2tui.run.events_file import JsonLines\n"
        "from gpt2tui.tracking.subscriber import JsonStdout\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(code), *map(str, arguments)],
        cwd=REPOSITORY,
        timeout=60,
        **options,
    )


def test_events_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "events.jsonl"
    events = [
        sample.run_started(time=1.0),
        sample.step(1, time=2.0),
        sample.evaluated(1, time=3.0),
        sample.sampled(1),
        sample.checkpoint_saved(1),
        Warned(message="ü \x1b[2J\u2028", time=4.0),
    ]
    write(path, *events)
    read = list(read_events(path))
    assert [event.as_dict() for event in read] == [event.as_dict() for event in events]
    assert path.read_bytes().isascii()
    assert len(path.read_bytes().splitlines()) == len(events)


def test_each_line_is_the_contract(tmp_path):
    path = tmp_path / "events.jsonl"
    write(path, sample.step(3, mfu=None, train_loss=float("nan")))
    record = json.loads(path.read_text())
    assert (record["v"], record["event"], record["step"]) == (1, "step", 3)
    assert record["mfu"] is None
    assert record["train_loss"] is None
    assert isinstance(record["time"], float)


def test_an_event_is_in_the_file_as_soon_as_it_is_handled_even_after_a_kill(tmp_path):
    path = tmp_path / "events.jsonl"
    killed = run_python(
        """
        lines = JsonLines(Path(sys.argv[1]))
        for number in range(1, 6):
            lines.handle(sample.step(number))
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        path,
    )
    assert killed.returncode == -signal.SIGKILL
    assert [event.step for event in read_events(path)] == [1, 2, 3, 4, 5]


def test_messages_in_the_file_do_not_name_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/eve é")
    file = JsonLines(tmp_path / "events.jsonl")
    file.handle(Warned(message="/home/eve é/a.txt is damaged; /home/eve élan/b.txt is not"))
    file.handle(RunFailed(message="[Errno 28] full: '/home/eve é'", step=1))
    file.handle(sample.sampled(1))
    file.close()
    warned, failed, sampled = read_events(tmp_path / "events.jsonl")
    assert warned.message == "~/a.txt is damaged; /home/eve élan/b.txt is not"
    assert failed.message == "[Errno 28] full: '~'"
    assert sampled == replace(sample.sampled(1), time=sampled.time)


def test_opening_again_appends(tmp_path):
    path = tmp_path / "events.jsonl"
    write(path, sample.step(1))
    write(path, sample.step(2))
    assert [event.step for event in read_events(path)] == [1, 2]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_after_a_torn_last_line_the_next_event_has_a_line_of_its_own(tmp_path, cut):
    path = tmp_path / "events.jsonl"
    write(path, sample.step(1), sample.step(2))
    torn = path.read_bytes()[:-cut]
    path.write_bytes(torn)
    write(path, sample.step(3), sample.step(4))
    assert path.read_bytes().startswith(torn + b"\n")  # nothing that was there is changed
    # Only the newline was lost when one byte is cut, so then the event is whole.
    assert [event.step for event in read_events(path)] == ([1, 2, 3, 4] if cut == 1 else [1, 3, 4])


def test_foreign_lines_are_skipped(tmp_path):
    path = tmp_path / "events.jsonl"
    good = sample.step(7).as_json().encode()
    foreign = [
        b"",
        b"not json",
        b"[1, 2]",
        b"null",
        b'{"v": 2, "event": "step", "step": 1}',
        b'{"v": 1, "event": "step", "step": 1}',
        b'{"v": 1, "event": "unheard of"}',
        b'{"v": 1, "event": ["step"]}',
        b'{"v": 1, "event": "paused", "step": "three"}',
        b'{"v": 1, "event": "paused", "step": null}',
        b"\xff\xfe\x00",
        b"\0" * 4096,
        b"[" * 100_000,
    ]
    path.write_bytes(b"\n".join([*foreign, good, *foreign, b"\0\0\0" + good]) + b"\n")
    assert [event.step for event in read_events(path)] == [7, 7]


def test_what_a_resumed_run_did_again_replaces_what_was_done_before(tmp_path):
    path = tmp_path / "events.jsonl"
    first = [sample.step(n, train_loss=1.0) for n in range(1, 8)]
    again = [sample.step(n, train_loss=2.0) for n in range(5, 10)]
    write(path, sample.run_started(), *first, sample.evaluated(4), sample.evaluated(6))
    write(path, sample.run_started(step=4), *again)
    events = list(read_events(path))
    steps = [(event.step, event.train_loss) for event in events if isinstance(event, Step)]
    assert steps == [(n, 1.0) for n in range(1, 5)] + [(n, 2.0) for n in range(5, 10)]
    assert [event.step for event in events if event.name == "evaluated"] == [4]
    assert [event.step for event in events if isinstance(event, RunStarted)] == [0, 4]


def test_an_earlier_restart_takes_back_later_ones_too(tmp_path):
    path = tmp_path / "events.jsonl"
    write(path, sample.run_started(), *map(sample.step, range(1, 7)))
    write(path, sample.run_started(step=6), *map(sample.step, range(7, 10)))
    write(path, sample.run_started(step=2), *map(sample.step, range(3, 5)), Warned(message="kept"))
    write(path, sample.run_started(step=4), *map(sample.step, range(5, 6)))
    events = list(read_events(path))
    assert [event.step for event in events if isinstance(event, Step)] == [1, 2, 3, 4, 5]
    assert [event.step for event in events if isinstance(event, RunStarted)] == [0, 2, 4]
    assert [event.message for event in events if isinstance(event, Warned)] == ["kept"]


def test_a_run_without_a_crash_keeps_everything(tmp_path):
    path = tmp_path / "events.jsonl"
    write(
        path,
        sample.run_started(),
        sample.step(1),
        sample.step(2),
        RunFinished(step=2, best_val_loss=None, seconds=1),
    )
    write(path, sample.run_started(step=2), sample.step(3))
    assert [event.step for event in read_events(path)] == [0, 1, 2, 2, 2, 3]


def test_an_empty_file_has_no_events(tmp_path):
    path = tmp_path / "events.jsonl"
    write(path)
    assert list(read_events(path)) == []


def test_a_missing_file_is_an_error_of_its_reader(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(read_events(tmp_path / "events.jsonl"))


def test_a_full_disk_warns_once_and_writing_continues_when_there_is_space_again(tmp_path):
    path = tmp_path / "events.jsonl"
    line = len(sample.step(1, time=1.0).as_json()) + 1
    done = run_python(
        """
        import resource
        limit = int(sys.argv[2])
        lines = JsonLines(Path(sys.argv[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for number in range(1, 7):
            lines.handle(sample.step(number, time=1.0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for number in range(7, 10):
            lines.handle(sample.step(number, time=1.0))
        lines.close()
        """,
        path,
        line * 3 + 40,  # three lines, and a piece of the fourth
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert "events.jsonl: File too large" in done.stderr
    assert [event.step for event in read_events(path)] == [1, 2, 3, 7, 8, 9]


def test_a_disk_that_is_full_from_the_start_is_no_error_either(tmp_path):
    done = run_python(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        lines = JsonLines(Path(sys.argv[1]))
        for number in range(3):
            lines.handle(sample.step(number))
        lines.close()
        """,
        tmp_path / "events.jsonl",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr


def _a_link_out_of_the_run(path):
    outside = path.parent.parent / "outside"
    outside.write_text("mine\n")
    path.symlink_to(outside)


ODD_FILES = {
    "folder": Path.mkdir,
    "FIFO": os.mkfifo,
    "link": _a_link_out_of_the_run,
    "dangling link": lambda path: path.symlink_to(path.parent / "nothing"),
}


@pytest.mark.parametrize("kind", ODD_FILES)
def test_events_are_written_to_a_regular_file_of_the_run_or_not_at_all(tmp_path, kind):
    path = tmp_path / "run" / "events.jsonl"
    path.parent.mkdir()
    ODD_FILES[kind](path)
    with pytest.raises(ResourceError, match=r"events\.jsonl cannot be written.*move it away"):
        JsonLines(path)
    assert not (path.parent / "nothing").exists()
    if kind == "link":
        assert (tmp_path / "outside").read_text() == "mine\n"
    with pytest.raises(OSError, match=r"events\.jsonl"):
        list(read_events(path))  # at once: a pipe is not waited for


def test_following_yields_what_is_there_and_what_comes(tmp_path):
    path = tmp_path / "events.jsonl"
    stop, seen = threading.Event(), []
    follower = threading.Thread(target=lambda: seen.extend(follow_events(path, stop, poll_seconds=0.005)))
    follower.start()  # before the file exists
    lines = JsonLines(path)
    for number in range(1, 51):
        lines.handle(sample.step(number))
    # A line that arrives in pieces is one event.
    whole = sample.step(51).as_json().encode() + b"\n"
    with path.open("ab", buffering=0) as file:
        for start in range(0, len(whole), 50):
            file.write(whole[start : start + 50])
            time.sleep(0.01)
        file.write(b'{"v": 1, "event": "st')  # torn: never an event
    stop.set()
    follower.join(10)
    assert not follower.is_alive()
    assert [event.step for event in seen] == list(range(1, 52))


def test_following_a_file_that_never_comes_ends_when_asked(tmp_path):
    stop = threading.Event()
    stop.set()
    assert list(follow_events(tmp_path / "events.jsonl", stop)) == []


def test_following_a_finished_run_reads_it_all_even_if_asked_to_stop_at_once(tmp_path):
    path = tmp_path / "events.jsonl"
    write(path, *map(sample.step, range(1, 4)))
    stop = threading.Event()
    stop.set()
    assert [event.step for event in follow_events(path, stop)] == [1, 2, 3]


STDOUT = """
out = JsonStdout()
for number in range(1, 2001):
    out.handle(sample.step(number))
out.close()
sys.stderr.write("trained to the end\\n")
"""


def test_stdout_has_one_object_a_line():
    done = run_python(STDOUT, capture_output=True, text=True)
    assert [json.loads(line)["step"] for line in done.stdout.splitlines()] == list(range(1, 2001))


def test_a_reader_that_goes_away_does_not_end_the_run():
    read, write_end = os.pipe()
    os.close(read)
    done = run_python(STDOUT, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert done.returncode == 0
    assert done.stderr == "trained to the end\n"


def test_a_full_disk_under_stdout_is_one_line():
    with Path("/dev/full").open("w") as full:
        done = run_python(STDOUT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 2
    assert "No space left" in done.stderr


@pytest.mark.parametrize("chunk", [1, 100, 1 << 20])
def test_of_steps_in_a_row_only_the_last_is_kept_wherever_the_blocks_end(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(events_file, "_CHUNK", chunk)
    path = tmp_path / "events.jsonl"
    steps = [sample.step(number) for number in (1, 2, 3)]
    write(path, sample.run_started(), *steps[:2], sample.evaluated(2), sample.sampled(2), steps[2])
    kept = [(event.name, event.step) for line in lines_but_steps(path) if (event := parse_line(line))]
    between_blocks = ("step", 1)  # at the end of a block a step may be the last
    assert [each for each in kept if each != between_blocks] == [
        ("run_started", 0), ("step", 2), ("evaluated", 2), ("sampled", 2), ("step", 3),
    ]  # fmt: skip
    assert (between_blocks in kept) == (chunk < 1000)


def test_a_line_without_an_end_is_read_in_pieces_and_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(events_file, "LONGEST_LINE", 2000)
    path = tmp_path / "events.jsonl"
    line = sample.step(1).as_json().encode()
    path.write_bytes(line + b"\n" + b"x" * 2_000_000 + b"\n" + line + b"\n")
    assert len(list(read_events(path))) == 2
    stop = threading.Event()
    stop.set()
    assert len(list(follow_events(path, stop))) == 2
