"""The list of models, from real checkpoint folders and without loading any."""

import json
from dataclasses import replace

import pytest

from gpt2tui.run import folder as runs
from gpt2tui.run.checkpoint import folder_name
from gpt2tui.run.manifest import MANIFEST, NEEDED
from gpt2tui.tracking.run_progress import RunProgress
from gpt2tui.tui.chat import models as chat_models
from gpt2tui.tui.session import TrainingSession
from tests.tui.fake_training import launch


def save(run, step, val_loss=None):
    folder = run.checkpoints / folder_name(step)
    folder.mkdir()
    for name in NEEDED["full"]:
        (folder / name).write_text("{}")
    files = {name: {"bytes": 2, "sha256": ""} for name in NEEDED["full"]}
    manifest = {"format_version": 1, "step": step, "run_id": "x", "val_loss": val_loss, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def run():
    made = runs.create("small")
    made.info_file.write_text("{}")
    return made


def kinds(choices):
    return [(choice.step, choice.kind) for choice in choices]


def test_a_run_lists_its_best_its_newest_then_the_others_backwards(run):
    for step, loss in ((100, 4.0), (200, 3.0), (300, 3.5), (400, None)):
        save(run, step, loss)
    assert kinds(chat_models.saved_models()) == [(200, "best val loss"), (400, "newest"), (300, ""), (100, "")]


def test_damaged_checkpoints_and_runs_without_any_are_left_out(run):
    save(run, 100, 4.0)
    (run.checkpoints / folder_name(200)).mkdir()
    runs.create("empty").info_file.write_text("{}")
    assert kinds(chat_models.saved_models()) == [(100, "best val loss")]


def test_a_reference_may_be_a_checkpoint_a_run_folder_or_a_runs_name(run):
    save(run, 100, 3.0)
    save(run, 200, 3.5)
    choices = chat_models.saved_models()
    newest = str(run.checkpoints / folder_name(200))
    assert chat_models.find_choice(newest, choices).step == 200
    for reference in (str(run.folder), str(run.folder.resolve()), run.name):
        assert chat_models.find_choice(reference, choices).step == 100  # a run means its best
    assert chat_models.find_choice("gpt2", choices) is None


@pytest.mark.parametrize(
    ("device", "state", "steps", "expected"),
    [
        ("auto", "idle", (), "all"),
        ("auto", "preparing", (), "none"),
        ("cuda:1", "training", (), "none"),
        ("auto", "training", (0.1,), "spare"),
        ("auto", "saving", (0.1,), "spare"),
        ("auto", "finished", (0.1,), "all"),
        ("cpu", "training", (0.1,), "all"),
    ],
)
def test_models_leave_the_gpu_to_a_training_until_its_first_step_shows_what_it_needs(device, state, steps, expected):
    session = TrainingSession()
    launched = launch()
    preset = launched.loaded.preset.with_training(device=device)
    session.launch = replace(launched, loaded=replace(launched.loaded, preset=preset))
    session.state = state
    session.progress = RunProgress(recent_step_seconds=steps)
    assert chat_models.gpu_use_beside(session) == expected
