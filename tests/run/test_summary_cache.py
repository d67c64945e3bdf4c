"""What is remembered of ended runs, and when it no longer counts."""

import json
import os

import pytest

from gpt2tui.__main__ import main
from gpt2tui.run import events, folder, summary_cache
from gpt2tui.run.summary import summarize
from gpt2tui.run.summary_cache import SummaryCache
from gpt2tui.system.files import cache_folder
from tests.tui.fake_runs import append, write_checkpoint, write_run


@pytest.fixture
def reads(monkeypatch):
    """The names of the runs whose files are read, in order."""
    names = []
    monkeypatch.setattr(summary_cache, "summarize", lambda run: names.append(run.name) or summarize(run))
    return names


def listed(*runs):
    cache = SummaryCache()
    found = [cache.summarized(run) for run in runs]
    cache.save()
    return found


def the_file():
    (path,) = (cache_folder() / "summaries").iterdir()
    return path


def test_an_ended_run_is_read_once_and_is_the_same_from_the_cache(reads):
    runs = [write_run("a", checkpoints=(100,)), write_run("b", ending="stopped"), write_run("c", ending="failed")]
    first = listed(*runs)
    assert listed(*runs) == first
    assert [each.summary for each in first] == [summarize(run) for run in runs]
    assert first[0].settings["optimizer.lr"] == 0.003
    assert reads == ["a", "b", "c"]


def test_a_run_without_an_end_is_read_each_time(reads):
    crashed = write_run("a", ending="crashed")
    listed(crashed)
    listed(crashed)
    assert reads == ["a", "a"]


def resumed(run):
    append(run, events.Resumed(step=100))


def with_another_setting(run):
    run.preset_file.write_text(run.preset_file.read_text().replace("lr = 0.003", "lr = 0.004"))


def same_size_and_time_but_another_text(run):
    before = run.events_file.stat()
    run.events_file.write_text(run.events_file.read_text().replace('"step": 100', '"step": 101'))
    os.utime(run.events_file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        resumed,
        with_another_setting,
        same_size_and_time_but_another_text,
        lambda run: write_checkpoint(run, 50),
        lambda run: (run.checkpoints / "step-00000100" / "MANIFEST.json").unlink(),
        lambda run: (run.folder / "more").write_bytes(b"x" * 1000),
    ],
)
def test_a_run_that_changes_is_read_again(reads, change):
    run = write_run("a", checkpoints=(100,))
    before = listed(run)
    change(run)
    after = listed(run)
    assert reads == ["a", "a"]
    assert after[0].summary == summarize(run)
    assert after != before or change is resumed


def test_a_run_that_a_process_holds_is_read(reads):
    run = write_run("a")
    listed(run)
    with folder.locked(run):
        assert listed(run)[0].summary.state == "preparing"
    assert listed(run)[0].summary.state == "finished"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-10],
        lambda text: text.replace('"finished"', '"failed"'),
        lambda text: text.replace("0.1.0", "0.0.1", 1),
        lambda text: "",
        lambda text: "\0" * 100,
    ],
)
def test_a_damaged_file_or_one_of_another_version_is_ignored_and_written_anew(reads, damage):
    run = write_run("a")
    good = listed(run)
    text = the_file().read_text()
    the_file().write_text(damage(text))
    assert listed(run) == good
    assert reads == ["a", "a"]
    assert the_file().read_text() == text


def test_a_folder_that_cannot_be_written_is_no_error():
    cache_folder().mkdir(parents=True, exist_ok=True)
    (cache_folder() / "summaries").write_text("a file")
    run = write_run("a")
    assert listed(run)[0].summary == summarize(run)


def test_runs_that_are_gone_are_forgotten(monkeypatch):
    first, second = write_run("a"), write_run("b")
    listed(first, second)
    first.info_file.unlink()
    append(second, events.Warned(message="again"), events.RunFinished(step=100, best_val_loss=2.0, seconds=1.0))
    listed(second)
    assert list(json.loads(the_file().read_text().partition("\n")[2])) == ["b"]


def test_runs_list_reads_ended_runs_once(reads, capsys):
    write_run("a")
    assert main(["runs", "list", "--json"]) == 0
    first = capsys.readouterr().out
    assert main(["runs", "list", "--json"]) == 0
    assert capsys.readouterr().out == first
    assert reads == ["a"]


def test_metrics_of_a_run_are_kept_and_listed_under_their_names(reads):
    run = write_run("a", ending=None)
    append(run, events.Evaluated(step=100, val_loss=2.0, perplexity=7.4, bits_per_byte=1.0, metrics={"accuracy": 0.25}))
    append(run, events.RunFinished(step=100, best_val_loss=2.0, seconds=1.0))
    (first,), (second,) = listed(run), listed(run)
    assert reads == ["a"]
    assert second == first
    assert second.summary.metrics == {"accuracy": 0.25}
    record = second.summary.as_dict()
    assert record["accuracy"] == 0.25
    assert "metrics" not in record
