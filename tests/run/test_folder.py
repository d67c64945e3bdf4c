import dataclasses
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpt2tui import version
from gpt2tui.__main__ import main
from gpt2tui.errors import CheckpointError, RunLockedError, UsageError
from gpt2tui.run import events
from gpt2tui.run import folder as runs
from gpt2tui.run.summary import summarize
from tests.run.test_events_file import ODD_FILES
from tests.tracking import event_samples


def started_run(name="tiny", *written, command=("gpt2tui",)):
    run = runs.create(name)
    choices = {"device": "cpu", "precision": "fp32"}
    choices |= {"precision_reason": "training.precision = fp32", "compile_reason": "training.compile = off"}
    runs.write_info(run, preset_name=name, command=command, choices=choices, data={})
    run.events_file.write_text("".join(event.as_json() + "\n" for event in written))
    return run


def test_default_folder_is_named_after_date_time_and_preset():
    run = runs.create("my preset/é")
    assert run.folder.parent == runs.runs_folder()
    assert run.name.endswith("-my-preset-")
    assert run.checkpoints.is_dir()


def test_two_runs_of_the_same_second_have_two_folders():
    assert runs.create("a").folder != runs.create("a").folder


def test_a_folder_that_holds_a_run_is_refused_with_the_way_to_resume_it():
    run = started_run()
    with pytest.raises(UsageError, match="--resume"):
        runs.create("tiny", run.folder)


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="is not empty"):
        runs.create("tiny", tmp_path)


def test_run_json_has_what_a_repetition_needs():
    info = started_run().info()
    assert {
        "run_id",
        "command",
        "started",
        "device",
        "precision",
        "precision_reason",
        "compile_reason",
        "data",
        "git_commit",
        "versions",
        "platform",
    } <= set(info)
    assert {"gpt2tui", "python", "torch"} <= set(info["versions"])


def test_run_json_has_each_session_with_its_own_device_and_reasons(monkeypatch):
    run = started_run(command=["gpt2tui", "first"])
    begun = run.info()
    gpu = {"device": "NVIDIA", "precision": "bf16", "precision_reason": "tensor cores", "compile_reason": "on a GPU"}
    for step in (4, 8, 12):
        monkeypatch.setattr(runs, "MOST_SESSIONS", 2)
        runs.add_session(run, step=step, command=["gpt2tui", f"{Path.home()}/x"], choices=gpu)
    info = run.info()
    sessions = info.pop("sessions")
    assert info == begun
    assert [session["step"] for session in sessions] == [8, 12]  # the last ones: the file stays small
    assert gpu.items() <= sessions[0].items()
    assert sessions[0]["command"] == ["gpt2tui", "~/x"]
    assert {"started", "git_commit", "versions", "platform"} <= set(sessions[0])


def test_sessions_that_make_no_sense_are_replaced():
    run = started_run()
    runs.update_info(run, sessions="odd")
    runs.add_session(run, step=1, command=[], choices={})
    assert len(run.info()["sessions"]) == 1


HOLD = """
import sys
from dataclasses import replace
from pathlib import Path
from gpt2tui.run import folder as runs
with runs.locked(runs.Run(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_run_json_names_neither_the_user_nor_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "CANARY-host")
    monkeypatch.setenv("HOME", str(tmp_path / "CANARY"))
    monkeypatch.setattr(sys, "argv", ["gpt2tui", "--set", f"data.source={tmp_path}/CANARY/texts", "CANARYs"])
    run = started_run(command=runs.command_line())
    assert run.info()["command"] == ["gpt2tui", "--set", "data.source=~/texts", "CANARYs"]
    assert "CANARY-host" not in run.info_file.read_text()
    assert runs.is_of_this_machine(run.info())
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert not runs.is_of_this_machine(run.info())


def test_a_run_held_by_another_process_is_refused_and_free_after_its_kill():
    run = started_run()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    assert runs.is_locked(run)
    with pytest.raises(RunLockedError, match="in use by another process"), runs.locked(run):
        pass
    holder.kill()
    holder.communicate()
    assert not runs.is_locked(run)
    with runs.locked(run):
        assert runs.is_locked(run)


def test_a_run_is_found_by_name_and_by_path_and_a_wrong_name_gets_the_nearest():
    run = started_run()
    assert runs.find(run.name).folder.samefile(run.folder)
    assert runs.find(str(run.folder)).folder.samefile(run.folder)
    with pytest.raises(UsageError, match=f"did you mean {run.name}"):
        runs.find(run.name[:-1] + "x")
    with pytest.raises(UsageError, match="did you mean latest"):
        runs.find("lastest")


def test_a_run_that_still_prepares_its_data_is_held_too(tmp_path):
    run = runs.create("tiny", tmp_path / "preparing")
    with runs.locked(run):
        with pytest.raises(RunLockedError):
            runs.create("tiny", run.folder)
        with pytest.raises(RunLockedError):
            runs.find(str(run.folder))


def test_a_folder_left_by_a_killed_preparation_can_be_used_again(tmp_path):
    runs.create("tiny", tmp_path / "again")
    (tmp_path / "again" / ".lock").touch()
    assert runs.create("tiny", tmp_path / "again").folder == tmp_path / "again"


def test_what_training_never_began_in_is_removed_but_no_folder_of_the_users(tmp_path):
    (tmp_path / "mine").mkdir()
    for name in ("mine", "ours"):
        run = runs.create("tiny", tmp_path / name)
        with runs.locked(run):
            runs.remove_unless_begun(run)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize("name", ["step-00000001", "notes.txt"])
def test_a_folder_with_anything_among_its_checkpoints_is_refused_and_stays_as_it_is(tmp_path, name):
    thing = tmp_path / "checkpoints" / name
    thing.mkdir(parents=True)
    with pytest.raises(UsageError, match="holds checkpoints"):
        runs.create("tiny", tmp_path)
    assert thing.is_dir()


def test_what_others_put_into_a_new_folder_survives_a_failed_preparation(tmp_path):
    run = runs.create("tiny", tmp_path / "ours")
    (run.checkpoints / "step-00000001").mkdir()
    (run.folder / "notes.txt").write_text("mine")
    run.preset_file.write_text("ours")
    runs.remove_unless_begun(run)
    assert {p.name for p in run.folder.iterdir()} == {"checkpoints", "notes.txt"}
    assert (run.checkpoints / "step-00000001").is_dir()


def test_a_run_that_has_begun_is_not_removed_even_when_its_run_json_is_gone():
    run = started_run("tiny")
    run.info_file.unlink()
    run.preset_file.write_text("")
    runs.remove_unless_begun(run)
    assert {p.name for p in run.folder.iterdir()} == {"checkpoints", "events.jsonl", "preset.toml"}


def killed_while_it_was_prepared(folder):
    (folder / "checkpoints").mkdir(parents=True)
    for name in (".lock", "events.jsonl", "preset.toml", "tokenizer.json"):
        (folder / name).write_text("x" if name == "preset.toml" else "")


def test_a_folder_whose_process_was_killed_before_run_json_can_be_used_again(tmp_path):
    killed_while_it_was_prepared(tmp_path / "run")
    run = runs.create("tiny", tmp_path / "run")
    runs.remove_unless_begun(run)
    assert (tmp_path / "run" / "preset.toml").read_text() == "x"  # it is not of this process


@pytest.mark.parametrize("change", ["somebody's file", "events", "no lock"])
def test_what_only_looks_like_it_is_refused(tmp_path, change):
    killed_while_it_was_prepared(tmp_path)
    if change == "somebody's file":
        (tmp_path / "thesis.tex").write_text("")
    elif change == "events":
        (tmp_path / "events.jsonl").write_text(event_samples.run_started().as_json())
    else:
        (tmp_path / ".lock").unlink()
    with pytest.raises(UsageError, match="is not empty"):
        runs.create("tiny", tmp_path)


def test_a_run_whose_saved_checkpoints_are_gone_does_not_begin_anew():
    run = started_run("tiny", event_samples.run_started(), event_samples.step(1))
    assert runs.resume_point(run) is None
    run.events_file.write_text(event_samples.checkpoint_saved(1).as_json() + "\n")
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        runs.resume_point(run)


def a_repository(folder):
    folder.mkdir()
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_the_programs_own(tmp_path, monkeypatch):
    theirs = a_repository(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "project" / ".git"))
    assert started_run().info()["git_commit"] != theirs
    installed = tmp_path / "project" / ".venv" / "gpt2tui" / "__init__.py"
    monkeypatch.setattr(version, "__file__", str(installed))
    assert started_run().info()["git_commit"] is None
    monkeypatch.setattr(version, "__file__", str(tmp_path / "project" / "gpt2tui" / "__init__.py"))
    assert started_run().info()["git_commit"] == theirs


@pytest.mark.parametrize("name", ["events.jsonl", "run.json"])
@pytest.mark.parametrize("kind", ODD_FILES)
def test_one_odd_run_does_not_take_the_list_down(name, kind, capsys):
    odd = started_run("odd").folder / name
    odd.unlink()
    (odd.parent / "events.jsonl").unlink(missing_ok=True)  # else run.json is not even read
    ODD_FILES[kind](odd)
    good = started_run("good", *BEGINNING)
    assert main(["runs", "list", "--json"]) == 0
    states = {s["name"]: (s["state"], s["message"]) for s in json.loads(capsys.readouterr().out)}
    assert states.pop(good.name) == ("crashed", None)
    if name == "events.jsonl":
        assert "cannot be read as a run" in states[odd.parent.name][1]


def test_files_that_vanish_while_they_are_counted_count_nothing(monkeypatch):
    run = started_run("tiny", *BEGINNING)
    (run.folder / "kept").write_bytes(b"x" * 1000)
    (run.folder / ".writing").mkdir()
    (run.folder / ".writing" / "gone").write_bytes(b"x" * 1000)
    walk = os.walk

    def beside_a_run(folder):
        for root, folders, names in walk(folder):
            if names == ["gone"]:
                shutil.rmtree(root)
            yield root, folders, names

    monkeypatch.setattr(os, "walk", beside_a_run)
    known = sum(path.stat().st_size for path in run.folder.iterdir() if path.is_file())
    assert summarize(run).bytes == known


def test_a_loss_that_is_no_number_is_not_the_best_and_is_null_in_json():
    def evaluated(step, loss):
        best = loss if math.isfinite(loss) else None  # as a run reports it
        return events.Evaluated(step=step, val_loss=loss, perplexity=loss, bits_per_byte=loss, best_val_loss=best)

    summary = summarize(started_run("tiny", *BEGINNING, evaluated(1, math.nan), evaluated(2, 3.0)))
    assert summary.best_val_loss == 3.0
    summary = summarize(started_run("tiny", *BEGINNING, evaluated(1, math.nan)))
    assert (summary.best_val_loss, summary.val_loss, summary.bits_per_byte) == (None, None, None)


BEGINNING = (event_samples.run_started(), *(event_samples.step(n) for n in (1, 2, 3)))


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        ([], "crashed"),
        ([events.RunFinished(step=3, best_val_loss=None, seconds=1.0)], "finished"),
        ([events.RunFinished(step=3, best_val_loss=None, seconds=1.0, reason="stopped")], "stopped"),
        ([events.RunFailed(step=3, message="NaN")], "failed"),
    ],
)
def test_what_became_of_a_run(ending, state):
    summary = summarize(started_run("tiny", *BEGINNING, *ending))
    assert (summary.state, summary.step) == (state, 3)


LAST = [event_samples.step(4, train_loss=2.0), event_samples.evaluated(4)]


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ([], "preparing"),
        (BEGINNING, "training"),
        ([*BEGINNING, events.Paused(step=3)], "paused"),
        ([*BEGINNING, events.Paused(step=3), events.Resumed(step=3)], "training"),
        ([*BEGINNING, LAST[0]], "evaluating"),
        ([*BEGINNING, *LAST], "evaluating"),
        ([*BEGINNING, *LAST, replace(LAST[1], whole=True)], "saving"),
        ([*BEGINNING, events.RunFinished(step=3, best_val_loss=None, seconds=1.0, reason="stopped")], "preparing"),
        ([*BEGINNING, events.RunFailed(step=3, message="NaN"), replace(BEGINNING[0], step=2)], "training"),
    ],
)
def test_the_state_of_a_run_that_a_process_trains(told, state):
    told = [replace(e, num_iterations=4) if isinstance(e, events.RunStarted) else e for e in told]
    run = started_run("tiny", *told)
    with runs.locked(run):
        assert (summarize(run).state, summarize(run).message) == (state, None)


def test_losses_measured_after_the_point_of_resumption_do_not_count():
    def evaluated(step, loss, best):
        best = {"best": True, "best_val_loss": loss} if best else {"best_val_loss": 2.0}
        return events.Evaluated(step=step, val_loss=loss, perplexity=1.0, bits_per_byte=loss / 2, **best)

    before = (*BEGINNING, evaluated(2, 2.0, best=True), evaluated(3, 1.0, best=True))
    again = event_samples.run_started(step=2, best_val_loss=2.0)
    assert summarize(started_run("a", *before)).best_val_loss == 1.0
    assert summarize(started_run("b", *before, again)).best_val_loss == 2.0
    summary = summarize(started_run("c", *before, again, evaluated(3, 2.5, best=False)))
    assert (summary.best_val_loss, summary.bits_per_byte, summary.xz_bits_per_byte) == (2.0, 1.25, 1.512)
    assert summary.xz_after_training_bits_per_byte == 1.274
    assert summary.xz_comparison == "xz 1.51, ratio 0.83; after the training text 1.27, ratio 0.98"


def test_an_evaluation_that_is_not_a_number_does_not_hide_the_best_loss():
    nothing = events.Evaluated(
        step=3, val_loss=math.nan, perplexity=math.nan, bits_per_byte=math.nan, best_val_loss=2.0
    )
    first = event_samples.evaluated(2, 2.0, best=True, best_val_loss=2.0)
    assert summarize(started_run("tiny", *BEGINNING, nothing)).best_val_loss == 2.0
    assert summarize(started_run("other", *BEGINNING, first, nothing)).best_val_loss == 2.0


def test_the_time_between_stopping_and_going_on_is_not_the_runs():
    def at(time, event):
        return dataclasses.replace(event, time=time)

    run = started_run(
        "tiny",
        at(100.0, event_samples.run_started()),
        at(110.0, event_samples.step(1)),
        at(5000.0, event_samples.run_started(step=1)),
        at(5003.0, event_samples.step(2)),
        at(5004.0, events.RunFinished(step=2, best_val_loss=None, seconds=14.0)),
    )
    assert summarize(run).seconds == 14.0
    assert summarize(run).started == 100.0


def test_a_torn_last_line_does_not_hide_the_run():
    run = started_run("tiny", *BEGINNING)
    with run.events_file.open("a") as file:
        file.write('{"v": 1, "event": "step", "st')
    summary = summarize(run)
    assert summary.state == "crashed"
    assert json.dumps(summary.as_dict())


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_last_step_does_not_hide_the_one_before(cut):
    run = started_run("tiny", *BEGINNING)
    run.events_file.write_text(run.events_file.read_text() + event_samples.step(4).as_json()[:-cut])
    assert summarize(run).step == 3
