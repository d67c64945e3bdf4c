"""`gpt2tui train PRESET --sweep ...`, most of it with each run in the process of the test."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from gpt2tui.__main__ import main
from gpt2tui.commands import dry_run, sweep
from gpt2tui.commands.sweep_report import comparison_text
from gpt2tui.device import Precision
from gpt2tui.run import folder as runs
from gpt2tui.run import sweep_folder
from gpt2tui.run.summary import summarize
from gpt2tui.system.device_speed import DeviceSpeed
from gpt2tui.system.files import runs_folder
from tests import tiny_runs

SHORT = ("training.num_iterations=4", "training.eval_frequency=2", "training.checkpoint_frequency=2")


def words(folder, *more, overrides=()):
    sets = [word for option in tiny_runs.options(folder, *SHORT, *overrides) for word in ("--set", option)]
    return ["--headless", "--preset", "default", *sets, *more]


class Ended:
    """A process that has ended with this exit code."""

    def __init__(self, code):
        self.code = code

    def poll(self):
        return self.code

    def wait(self):
        return self.code

    def send_signal(self, sig):
        pass


@pytest.fixture
def trained(monkeypatch):
    """The command lines of the runs, which train in this process; an exit code from its `before` is that of a run."""

    class Trained(list):
        before = staticmethod(lambda run_words: None)

    found = Trained()

    def start(run_words, log, jobs):
        found.append(run_words)
        code = found.before(run_words)
        if code is None:
            code = main(run_words)
        with log.open("a") as file:
            file.write(f"gpt2tui: ended with {code}\n")
        return Ended(code)

    monkeypatch.setattr(sweep, "start_process", start)
    return found


def only_sweep():
    (path,) = runs_folder().glob("*/sweep.json")
    return sweep_folder.read(path.parent)


def states():
    return {run.name.rpartition("/")[2]: summarize(run).state for run in runs.all_runs()}


def documented(capsys):
    """The JSON document at the end of what was printed, behind the output of the runs themselves."""
    out = capsys.readouterr().out
    return json.loads(out[out.index('{\n  "sweep"') :])


def test_each_configuration_is_a_run_in_the_folder_of_the_sweep(tmp_path, trained, capsys):
    given = words(tmp_path, "--sweep", "optimizer.lr=0.01,0.0001", "--seeds", "2", "--name", "rates", "--json")
    assert main(given) == 0
    found = documented(capsys)
    names = ["01-lr=0.01-seed=1337", "02-lr=0.01-seed=1338", "03-lr=0.0001-seed=1337", "04-lr=0.0001-seed=1338"]
    assert list(states()) == names
    losses = {run["run"]: run["summary"]["best_val_loss"] for run in found["runs"]}
    assert list(losses.values()) == sorted(losses.values())
    best, second = found["configurations"]
    assert best["settings"] == {"optimizer.lr": "0.01"}
    assert best["mean"] == pytest.approx((losses[names[0]] + losses[names[1]]) / 2)
    assert best["standard_deviation"] == pytest.approx(abs(losses[names[0]] - losses[names[1]]) / 2**0.5)
    assert found["comparison"]["difference"] == pytest.approx(second["mean"] - best["mean"])
    assert only_sweep().name.endswith("-rates")
    settings = [runs.Run(only_sweep().folder / name).preset_file.read_text() for name in names]
    assert "lr = 0.01\n" in settings[0]
    assert "seed = 1338" in settings[3]


def test_runs_of_a_sweep_are_listed_and_found_by_name(tmp_path, trained, capsys):
    assert main(words(tmp_path, "--sweep", "optimizer.lr=0.01,0.001", "--name", "rates")) == 0
    name = only_sweep().name
    capsys.readouterr()
    assert main(["runs", "list", "--sort", "lr", "--json"]) == 0
    listed = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert listed == [f"{name}/02-lr=0.001", f"{name}/01-lr=0.01"]
    folder = only_sweep().folder / "02-lr=0.001"
    for reference in (f"{name}/02-lr=0.001", f"{name}/02", "rates/02", str(folder), f"{runs_folder()}/{name}/02"):
        assert runs.find(reference).folder.resolve() == folder.resolve(), reference
    assert runs.find("latest").folder.resolve() == folder.resolve()
    for reference in (name, "rates", name[:-3], str(only_sweep().folder)):
        assert sweep_folder.find(reference).resolve() == only_sweep().folder.resolve(), reference
    for reference in ("rates/02", "nothing", "", "latest"):
        assert sweep_folder.find(reference) is None


def test_a_failed_run_does_not_stop_the_rest_and_a_resume_trains_only_what_is_not_finished(tmp_path, trained, capsys):
    given = words(tmp_path, "--sweep", "optimizer.lr=0.01,0.001,0.0001")
    trained.before = lambda run_words: 6 if "/02-" in run_words[2] else 3 if "/03-" in run_words[2] else None
    assert main(given) == 6  # of the first that failed
    assert states() == {"01-lr=0.01": "finished"}
    printed = capsys.readouterr()
    assert "failed, exit code 6" in printed.out
    assert "02-lr=0.001 ended with exit code 6: gpt2tui: ended with 6" in printed.err
    assert f"gpt2tui --headless --resume {only_sweep().folder}" in printed.err
    trained.clear()
    trained.before = lambda run_words: None
    assert main(["--headless", "--resume", str(only_sweep().folder)]) == 0
    assert [run_words[2].rpartition("/")[2] for run_words in trained] == ["02-lr=0.001", "03-lr=0.0001"]
    assert set(states().values()) == {"finished"}
    assert main(["--headless", "--resume", only_sweep().name]) == 0
    assert len(trained) == 2


def test_a_run_killed_by_a_signal_has_the_exit_code_of_a_shell(tmp_path, trained):
    trained.before = lambda run_words: -9 if "/01-" in run_words[2] else None
    assert main(words(tmp_path, "--sweep", "optimizer.lr=0.01,0.001")) == 137
    assert states() == {"02-lr=0.001": "finished"}


def test_a_run_that_is_stopped_has_not_failed(tmp_path, trained, capsys):
    trained.before = lambda run_words: 143
    assert main(words(tmp_path, "--sweep", "optimizer.lr=0.01")) == 143
    printed = capsys.readouterr()
    assert "01-lr=0.01 was stopped before its first step" in printed.err
    assert "waiting" in printed.out
    assert "failed" not in printed.out + printed.err
    assert sweep_folder.planned_runs(only_sweep().folder) == 1


def test_after_a_signal_no_run_begins_and_a_resume_trains_the_rest(tmp_path, trained, capsys):
    trained.before = lambda run_words: os.kill(os.getpid(), signal.SIGTERM)  # the sweep receives it, before the run
    assert main(words(tmp_path, "--sweep", "optimizer.lr=0.01,0.001")) == 143
    assert len(trained) == 1
    assert "train the rest with" in capsys.readouterr().err
    trained.before = lambda run_words: None
    assert main(["train", "--resume", only_sweep().name]) == 0
    assert set(states().values()) == {"finished"}


def test_all_combinations_are_checked_before_the_first_run(tmp_path, trained, capsys):
    assert main(words(tmp_path, "--sweep", "model.n_embd=16,18", "--sweep", "model.n_head=2,4")) == 2
    message = capsys.readouterr().err
    assert "model.n_embd" in message
    assert "18" in message
    assert main(words(tmp_path, "--sweep", "optimizer.lr=0.01,-1", "--sweep", "model.layers=2")) == 2
    message = capsys.readouterr().err
    assert "optimizer.lr: -1 is not" in message
    assert "model.layers" in message
    assert trained == []
    assert not runs_folder().exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sweep", "training.seed=1,2", "--seeds", "2"], "--seeds and --sweep training.seed exclude each other"),
        (["--sweep-random", "2"], "--sweep-random needs --sweep"),
        (["--seeds", "0"], "is not a whole number of at least 1"),
        (["--seeds", "2", "--resume", "latest"], "--seeds and --resume exclude each other"),
        (["--seeds", "2", "--log-format", "jsonl"], "--seeds and --log-format exclude each other"),
        (["--jobs", "2"], "--jobs is for sweeps"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, trained, capsys, more, message):
    try:
        code = main(words(tmp_path, *more))
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_workbench_sweeps_nothing(capsys):
    with pytest.raises(SystemExit):
        main(["--preset", "small", "--sweep", "optimizer.lr=0.1,0.2"])
    assert "--sweep needs --headless" in capsys.readouterr().err


def test_a_sweep_to_resume_takes_no_settings(tmp_path, trained, capsys):
    assert main(words(tmp_path, "--sweep", "optimizer.lr=0.01")) == 0
    assert main(["train", "--resume", only_sweep().name, "training.batch_size=4"]) == 2
    assert "--set does not go with a sweep to resume" in capsys.readouterr().err
    with sweep_folder.locked(only_sweep()):
        assert main(["train", "--resume", only_sweep().name]) == 75


def test_a_damaged_sweep_says_so(tmp_path, trained, capsys):
    assert main(words(tmp_path, "--sweep", "optimizer.lr=0.01")) == 0
    path = only_sweep().folder / "sweep.json"
    described = json.loads(path.read_text())
    for damage in ({"runs": None}, {"runs": [{"name": "../x", "preset": "a", "settings": {}, "seed": None}]}):
        path.write_text(json.dumps({**described, **damage}))
        assert main(["train", "--resume", str(path.parent)]) == 4
        assert "is damaged" in capsys.readouterr().err


def test_a_run_keeps_its_preset_when_the_file_it_came_from_changes(tmp_path, trained):
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "default"\n[sampling]\ntemperature = 0.5\n')
    trained.before = lambda run_words: 6
    assert main([*words(tmp_path, "--sweep", "optimizer.lr=0.01"), "--preset", str(mine)]) == 6
    mine.unlink()
    trained.before = lambda run_words: None
    assert main(["train", "--resume", only_sweep().name]) == 0
    (run,) = runs.all_runs()
    assert "temperature = 0.5" in run.preset_file.read_text()
    assert run.info()["preset"] == "mine"


def test_a_dry_run_prints_every_run_and_the_sum_of_their_times(tmp_path, trained, capsys, monkeypatch):
    def measured(device, precision: Precision):
        return DeviceSpeed("a device", precision, 1e9, None, 2**34)

    monkeypatch.setattr(dry_run, "measure", measured)
    given = words(tmp_path, "--sweep", "model.n_layer=1,2", "--dry-run")
    assert main([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in found["runs"]] == ["01-n_layer=1", "02-n_layer=2"]
    assert found["total"]["seconds"] == pytest.approx(sum(run["estimate"]["seconds"] for run in found["runs"]))
    assert found["total"]["tokens"] == 2 * 4 * 32
    assert main(given) == 0
    printed = capsys.readouterr().out
    assert "02-n_layer=2" in printed
    assert "2 runs: 256 tokens" in printed
    assert trained == []
    assert not runs_folder().exists()


def test_a_comparison_that_is_not_possible_says_what_it_needs():
    assert comparison_text(None, "best_val_loss").startswith("two finished seeds each of two configurations")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
def test_processes_save_when_the_sweep_is_stopped_and_continue_after_it(tmp_path):
    """Two at once; one of them is killed, so that the third begins, and this and the other are stopped and resumed."""
    given = words(tmp_path, "--sweep", "optimizer.lr=0.01,0.003,0.001", "--jobs", "2",
                  overrides=["training.num_iterations=1000000"])  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "gpt2tui", *given], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300

    def training():
        found = [run for run in runs.all_runs() if any(run.checkpoints.glob("step-*"))]
        return found if len(found) == 2 else None

    while (found := training()) is None:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(found[0].info()["pid"], signal.SIGKILL)
    while not (only_sweep().folder / "03-lr=0.001" / "run.json").exists():  # the killed one did not stop the rest
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert states() == {"01-lr=0.01": "crashed", "02-lr=0.003": "stopped", "03-lr=0.001": "stopped"}
    steps = {run.name: summarize(run).step for run in runs.all_runs()}
    process = subprocess.Popen([sys.executable, "-m", "gpt2tui", "--headless", "--resume", only_sweep().name])
    while not all(summarize(run).step > steps[run.name] for run in runs.all_runs()[:2]):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 143
