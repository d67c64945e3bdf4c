"""`gpt2tui runs`: which runs are listed and in which order, and what is done with them from the command line."""

import io
import json
import re
import subprocess
import sys
import time

import pytest

from gpt2tui.__main__ import main
from gpt2tui.errors import UsageError
from gpt2tui.run import folder as runs
from gpt2tui.run.query import QueriedRun, chosen, conditions, full_key, in_order
from gpt2tui.system.files import runs_folder
from tests.tui.fake_runs import loss_at, write_run


@pytest.fixture
def three():
    """Three runs: b has trained longest and has the lowest loss, c no evaluation yet."""
    return (
        write_run("2026-01-01-000000-a", steps=20, overrides=["optimizer.lr=0.001", "training.seed=1"]),
        write_run("2026-01-02-000000-b", steps=50, overrides=["optimizer.lr=0.003"], checkpoints=(50,)),
        write_run("2026-01-03-000000-c", steps=3, overrides=["optimizer.name=muon"], ending="stopped"),
    )


def listed(capsys, *words):
    """The names of the runs that a command lists, in its order."""
    assert main(["runs", "list", "--json", *words]) == 0
    return [row["name"].rpartition("-")[2] for row in json.loads(capsys.readouterr().out)]


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("step>=20", "ab"),
        ("step>20", "b"),
        ("step=3", "c"),
        ("step!=3", "ab"),
        (f"best_val_loss<{(loss_at(20) + loss_at(50)) / 2 + 0.1:.4f}", "b"),
        ("val<100", "ab"),
        ("state:stop", "c"),
        ("state=finished", "ab"),
        ("lr=0.001", "a"),
        ("lr=1e-3", "a"),
        ("optimizer.lr>0.001 step>20", "b"),
        ("optimizer.name=muon", "c"),
        ("optimizer.name!=MUON", "ab"),
        ("seed=1", None),
        ("training.seed=1", "a"),
        ("2026-01-02", "b"),
        ("parameters>100k", "abc"),
        ("step>=20 lr=7", ""),
    ],
)
def test_a_filter_chooses_by_numbers_settings_and_names(three, condition, names, capsys):
    if names is None:
        assert main(["runs", "list", "--filter", condition]) == 2
        assert "did you mean training.seed or sampling.seed?" in capsys.readouterr().err
        return
    assert "".join(listed(capsys, "--filter", condition)) == names
    assert [run.summary.name[-1] for run in chosen(map(QueriedRun.read, three), conditions(condition))] == [*names]


@pytest.mark.parametrize(
    ("key", "names"),
    [("step", "cab"), ("-step", "bac"), ("best_val_loss", "bac"), ("-val", "abc"), ("name", "abc"), ("-run", "cba")],
)
def test_runs_are_sorted_and_unknown_values_come_last(three, key, names, capsys):
    assert "".join(listed(capsys, "--sort", key)) == names
    assert [run.summary.name[-1] for run in in_order([QueriedRun.read(run) for run in three], key)] == [*names]


def test_columns_may_be_settings(three, capsys):
    assert main(["runs", "list", "--columns", "run,lr,best_val_loss,optimizer.name,started,time,disk"]) == 0
    header, first, _, third = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "optimizer.lr", "best_val_loss", "optimizer.name", "started", "seconds", "bytes"]
    name, lr, best, optimizer, *_ = first.split()
    assert (name, lr, best, optimizer) == ("2026-01-01-000000-a", "0.001", f"{loss_at(20) + 0.1:.4f}", "adamw")
    assert third.split()[0].endswith("-c")
    assert main(["runs", "list", "--columns", "step,lr", "--json", "--filter", "step=20"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"step": 20, "optimizer.lr": 0.001}]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sort", "vel_loss"], "did you mean val_loss"),
        (["--columns", "run,optimizer.lrr"], "did you mean optimizer.lr"),
        (["--filter", "step<many"], '"many" is not a number'),
        (["--filter", "step<"], "nothing to compare with"),
        (["--filter", "nope=3"], "nope is no column or setting"),
    ],
)
def test_a_wrong_key_or_number_is_refused(three, words, message, capsys):
    assert main(["runs", "list", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_last_part_of_a_key_suffices_where_it_is_unique():
    assert full_key("lr") == full_key("optimizer.lr") == "optimizer.lr"
    assert full_key("n-layer") == "model.n_layer"
    with pytest.raises(UsageError, match=r"training\.seed or sampling\.seed"):
        full_key("seed")


def test_an_empty_list_says_where_it_looked(three, capsys, monkeypatch, tmp_path):
    assert main(["runs", "list", "--filter", "step>1000"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"none of the 3 runs in {runs_folder()} is like that" in captured.err
    monkeypatch.setenv("GPT2TUI_RUNS", str(tmp_path / "nothing"))
    assert main(["runs", "list"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"there are no runs in {tmp_path / 'nothing'}" in captured.err
    assert main(["runs", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_run_of_another_machine_without_an_end_is_not_called_crashed(capsys):
    run = write_run("a", ending=None)
    run.info_file.write_text(json.dumps({**json.loads(run.info_file.read_text()), "host": "0123456789abcdef"}))
    assert main(["runs", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["state"] == "unknown"
    assert row["last_event"] < time.time()
    assert main(["runs", "list"]) == 0
    assert "on another machine, last event" in capsys.readouterr().out
    run.info_file.write_text(json.dumps({**json.loads(run.info_file.read_text()), "host": None}))
    assert main(["runs", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "crashed"


def test_show_has_the_settings(three, capsys):
    assert main(["runs", "show", "a", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["settings"]["optimizer"]["lr"] == 0.001
    assert shown["settings"]["training"]["seed"] == 1
    three[0].preset_file.write_text("broken")
    assert main(["runs", "show", "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"] is None


def test_runs_are_compared_by_their_numbers_and_the_settings_that_differ(three, capsys):
    assert main(["runs", "compare", "a", "b", "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["differences"]["optimizer.lr"] == [0.001, 0.003]
    assert set(compared["differences"]) == {"optimizer.lr", "training.seed"}
    assert main(["runs", "compare", "a", "b"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:]}
    assert rows["step"] == ["20", "50"]
    assert rows["optimizer.lr"] == ["0.001", "0.003"]
    assert "model.n_layer" not in rows
    assert main(["runs", "compare", "a"]) == 2


def test_rename_and_delete_by_name(three, capsys):
    assert main(["runs", "rename", "a", "baseline"]) == 0
    assert main(["runs", "rename", "latest", "b/c"]) == 2
    assert main(["runs", "delete", "baseline", "2026-01-02", "--yes"]) == 0
    assert [run.name for run in runs.all_runs()] == ["2026-01-03-000000-c"]
    assert main(["runs", "delete", "bseline", "--yes"]) == 2


def test_nothing_is_deleted_without_an_answer(three, capsys, monkeypatch):
    assert main(["runs", "delete", "a"]) == 2
    assert "add --yes" in capsys.readouterr().err
    for answer, left in (("", 3), ("n\n", 3), ("yes, but\n", 3), ("y\n", 2)):
        stdin = io.StringIO(answer)
        stdin.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["runs", "delete", "a"]) == 0
        assert len(runs.all_runs()) == left, answer
    assert re.search(r"2026-01-01-000000-a {2}\d.*\[y/N\]", capsys.readouterr().err, re.DOTALL)


HOLDER = """
import sys
from pathlib import Path
from gpt2tui.run import folder as runs
with runs.locked(runs.Run(Path(sys.argv[1]))):
    print("locked", flush=True)
    input()
"""


def test_no_run_of_several_is_deleted_while_one_is_trained(three, capsys):
    command = [sys.executable, "-c", HOLDER, str(three[1].folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        assert main(["runs", "delete", "a", "b", "--yes"]) == 75
        assert "b is being trained; stop it first" in capsys.readouterr().err
        assert main(["runs", "rename", "b", "x"]) == 75
        process.communicate("\n")
    assert len(runs.all_runs()) == 3
    assert main(["runs", "stop", "b"]) == 2
