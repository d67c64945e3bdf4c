"""`gpt2tui runs reproduce`: a run's first losses again, and what it names where they are not the same."""

import json

import pytest

from gpt2tui import launch
from gpt2tui.__main__ import main
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.events import LearningRateChanged, Step
from gpt2tui.training.controls import Controls
from tests import tiny_runs


def trained(folder, *overrides, opening=None, requests=lambda controls, event: None):
    """A run trained as the command line does it, with its events on the disk."""
    loaded = preset_files.load(["default"], tiny_runs.options(folder, *overrides))
    controls = Controls()
    for emitted in launch.drive(opening or launch.new_run(loaded), controls):
        if isinstance(emitted, launch.OpenedRun):
            run = runs.Run(emitted.run.folder)
        requests(controls, emitted)
    return run


@pytest.fixture
def run(tmp_path):
    return trained(tmp_path)


def reproduced(capsys, run, *options):
    """The exit code, what is printed, and the message, on one line."""
    capsys.readouterr()
    code = main(["runs", "reproduce", str(run.folder), *options])
    output = capsys.readouterr()
    return code, output.out, " ".join(output.err.split())


def change_losses(run):
    """The recorded losses of another machine: the last digits from step 3 on."""
    lines = [json.loads(line) for line in run.events_file.read_text().splitlines()]
    for record in lines:
        if record["event"] == "step" and record["step"] >= 3:
            record["train_loss"] *= 1 + 1e-15
    run.events_file.write_text("".join(f"{json.dumps(record)}\n" for record in lines))


def change_info(run, **changes):
    run.info_file.write_text(json.dumps(run.info() | changes))


def test_a_run_is_reproduced_bit_for_bit_and_left_as_it_is(run, capsys):
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file() and path.name != ".lock"}
    code, printed, _ = reproduced(capsys, run)
    assert (code, printed) == (0, "reproduced: the losses of the steps 1 to 12 are equal, bit for bit\n")
    code, printed, _ = reproduced(capsys, run, "--steps", "5", "--json")
    found = json.loads(printed)
    assert (code, found["equal"], found["steps"], found["differences"]) == (0, True, 5, [])
    assert [each["step"] for each in found["losses"]] == [1, 2, 3, 4, 5]
    assert all(each["recorded"] == each["reproduced"] for each in found["losses"])
    assert {path: path.read_bytes() for path in before} == before
    assert [each.folder for each in runs.all_runs()] == [run.folder]


def test_a_setting_that_was_changed_is_named(run, capsys):
    text = run.preset_file.read_text()
    run.preset_file.write_text(text.replace("lr = 0.01", "lr = 0.02", 1))
    code, _, message = reproduced(capsys, run)
    assert code == 2
    assert "the loss of step 2 was" in message  # that of the first step is of the weights before any update
    assert "The first difference: setting optimizer.lr: 0.01 then, 0.02 now" in message


def test_a_data_file_that_was_changed_is_named(run, tmp_path, capsys):
    text = (tmp_path / "words.txt").read_text()
    (tmp_path / "words.txt").write_text(text.replace("lazy", "busy"))
    code, _, message = reproduced(capsys, run)
    assert code == 3
    assert "The first difference: data file words.txt: " in message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("versions", {"torch": "1.0.0"}, 'version torch: "1.0.0" then'),
        ("threads", 999, "thread count of torch: 999 then"),
        ("platform", "another machine", 'machine platform: "another machine" then'),
    ],
)
def test_what_the_machine_has_changed_is_named(run, capsys, key, value, message):
    change_losses(run)
    change_info(run, **{key: value})
    code, _, printed = reproduced(capsys, run)
    assert code == 6
    assert "the loss of step 3 was" in printed
    assert message in printed


def test_equal_losses_are_reported_beside_a_difference_that_has_none(run, capsys):
    change_info(run, threads=999)
    code, printed, _ = reproduced(capsys, run)
    assert code == 0
    assert "although it differs: thread count of torch: 999 then" in printed


def test_what_nothing_explains_is_said(run, capsys):
    change_losses(run)
    code, printed, message = reproduced(capsys, run, "--json")
    assert code == 4
    assert "something that it does not record, such as the processor" in message
    assert json.loads(printed)["first_different_step"] == 3


def test_a_branch_is_reproduced_from_the_checkpoint_that_it_began_with(run, tmp_path, capsys):
    saved = checkpoint.at(run.checkpoints, 8)
    branch = trained(tmp_path, opening=launch.resumed_run(run, resume_from=saved, branch=tmp_path / "branch"))
    code, printed, _ = reproduced(capsys, branch)
    assert (code, printed) == (0, "reproduced: the losses of the steps 9 to 12 are equal, bit for bit\n")


def test_only_the_steps_before_a_change_by_hand_are_compared(tmp_path, capsys):
    def change(controls, emitted):
        if isinstance(emitted, Step) and emitted.step == 6:
            controls.change_learning_rate(0.5)

    changed = trained(tmp_path, requests=change)
    assert f'"{LearningRateChanged.name}"' in changed.events_file.read_text()
    code, printed, _ = reproduced(capsys, changed)
    assert code == 0
    assert "the steps 1 to 6 are equal" in printed
    assert "later steps are not compared: the learning rate was changed by hand at step 6" in printed


def test_a_run_that_has_not_begun_is_a_usage_error(tmp_path, capsys):
    run = runs.create("tiny")
    run.info_file.write_text("{}")
    run.events_file.write_text("")
    assert reproduced(capsys, run)[0] == 2
    assert reproduced(capsys, run, "--steps", "0")[0] == 2
