"""The tracker against the real wandb, offline, and against stand-ins that fail in every way we know."""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpt2tui.preset.schema import Preset, TrackingTable
from gpt2tui.run.events import NumIterationsChanged, RunFailed
from gpt2tui.tracking.wandb import WandbTracker
from tests.tracking import event_samples as sample

REPOSITORY = Path(__file__).parents[2]


def preset(mode):
    return Preset(description="a test", tracking=TrackingTable(wandb=mode, project="tests", tags=["one", "two"]))


class FakeRun:
    def __init__(self):
        self.logged, self.exit_code, self.artifacts = [], None, []
        self.id, self.dir = "abc", "the run/wandb/offline-run-1/files"
        self.config = SimpleNamespace(update=lambda values, allow_val_change: self.logged.append(values))

    def define_metric(self, name, step_metric=None):
        pass

    def log(self, values):
        self.logged.append(values)

    def log_artifact(self, artifact, aliases):
        self.artifacts.append((artifact.name, artifact.type, artifact.metadata, artifact.files, aliases))

    def finish(self, exit_code):
        self.exit_code = exit_code


class FakeArtifact:
    def __init__(self, name, type, metadata):
        self.name, self.type, self.metadata = name, type, metadata

    def add_dir(self, folder):
        if not Path(folder).is_dir():
            raise ValueError("no such folder")
        self.files = sorted(path.name for path in Path(folder).iterdir())


class FakeWandb:
    """Stands in for the module; each test replaces what shall go wrong."""

    def __init__(self):
        self.run, self.modes = FakeRun(), []
        self.Settings = SimpleNamespace
        self.Artifact = FakeArtifact
        self.Table = lambda columns, data: {"columns": columns, "data": data}

    def setup(self, settings):
        pass

    def login(self, prompt):
        assert prompt is False  # a prompt would take over the terminal
        return True

    def init(self, mode, **arguments):
        self.modes.append(mode)
        self.arguments = arguments
        return self.run


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_disabled_touches_nothing(tmp_path, wandb):
    tracker = WandbTracker(preset("disabled"), tmp_path)
    tracker.handle(sample.step(1))
    tracker.close()
    assert wandb.modes == []
    assert list(tmp_path.iterdir()) == []


def test_the_package_is_imported_only_by_its_thread():
    code = "import sys, gpt2tui.tracking.wandb, gpt2tui.tracking.console; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"wandb", "torch", "textual", "plotext"} & set(modules)


@pytest.mark.parametrize("in_sweep", [True, False])
def test_the_runs_of_a_sweep_are_a_group(tmp_path, wandb, in_sweep):
    run = tmp_path / "2026-01-31-120000-rates" / "01-lr=0.01"
    run.mkdir(parents=True)
    if in_sweep:
        (run.parent / "sweep.json").write_text("{}")
    WandbTracker(preset("offline"), run).close()
    assert wandb.arguments["group"] == ("2026-01-31-120000-rates" if in_sweep else None)
    assert wandb.arguments["name"] == "01-lr=0.01"


def test_events_are_logged_under_their_own_names_against_the_step(tmp_path, wandb):
    reports = []
    tracker = WandbTracker(preset("online"), tmp_path, report=reports.append)
    for event in (sample.run_started(), sample.step(1, mfu=None), sample.evaluated(1), sample.sampled(1)):
        tracker.handle(event)
    tracker.close()
    started, step, evaluation, samples = wandb.run.logged
    assert started["parameters"] == 3_213_760
    assert (step["step"], step["train_loss"], step["learning_rate"]) == (1, 3.0, 3e-3)
    assert "mfu" not in step  # not known, not 0
    assert evaluation["step"] == 1
    assert {"val_loss", "perplexity", "bits_per_byte"} <= set(evaluation)
    assert samples["samples"]["data"] == [[1, "def ", "main():\n    return 0\n"]]
    assert wandb.modes == ["online"]
    assert wandb.arguments["project"] == "tests"
    assert wandb.arguments["name"] == tmp_path.name
    assert wandb.arguments["tags"] == ["one", "two"]
    assert wandb.arguments["config"] == preset("online").model_dump(mode="json")
    assert wandb.run.exit_code == 0
    assert reports == []


def test_a_moved_end_is_in_the_config(tmp_path, wandb):
    tracker = WandbTracker(preset("offline"), tmp_path)
    tracker.handle(NumIterationsChanged(step=50, num_iterations=500))
    tracker.close()
    assert wandb.run.logged == [{"num_iterations": 500}]


def test_a_failed_run_is_marked_as_failed(tmp_path, wandb):
    tracker = WandbTracker(preset("offline"), tmp_path)
    tracker.handle(RunFailed(message="the loss is no longer a number", step=3))
    tracker.close()
    assert wandb.run.exit_code == 1


def test_the_samples_table_keeps_the_newest_fifty(tmp_path, wandb):
    tracker = WandbTracker(preset("offline"), tmp_path)
    for number in range(1, 81):
        tracker.handle(sample.sampled(number))
    tracker.close()
    assert [row[0] for row in wandb.run.logged[-1]["samples"]["data"]] == list(range(31, 81))


def with_artifacts(mode):
    asked = preset(mode)
    return asked.model_copy(update={"tracking": asked.tracking.model_copy(update={"artifacts": True})})


def test_checkpoints_are_artifacts_when_that_is_asked_for(tmp_path, wandb):
    reports = []
    (tmp_path / "checkpoints" / "step-00000004").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-00000004" / "model.safetensors").touch()
    for asked, expected in ((preset("online"), 0), (with_artifacts("online"), 1)):
        tracker = WandbTracker(asked, tmp_path, report=reports.append)
        tracker.handle(sample.checkpoint_saved(4))
        tracker.close()
        assert len(wandb.run.artifacts) == expected
    ((name, kind, metadata, files, aliases),) = wandb.run.artifacts
    assert (name, kind, metadata) == ("checkpoint-abc", "model", {"step": 4})
    assert (files, aliases) == (["model.safetensors"], ["latest", "step-4"])
    assert reports == []


def test_a_checkpoint_that_is_pruned_already_is_reported_and_the_rest_is_sent(tmp_path, wandb):
    reports = []
    tracker = WandbTracker(with_artifacts("online"), tmp_path, report=reports.append)
    tracker.handle(sample.checkpoint_saved(4))
    tracker.handle(sample.step(5))
    tracker.close()
    assert reports == ["W&B does not get the checkpoint of step 4: no such folder"]
    assert wandb.run.logged[-1]["step"] == 5


@pytest.mark.slow
def test_a_checkpoint_is_in_the_files_of_a_real_offline_run(tmp_path):
    from . import wandb_file

    run_folder = tmp_path / "my-run"
    saved = run_folder / "checkpoints" / "step-00000004"
    saved.mkdir(parents=True)
    (saved / "model.safetensors").write_bytes(b"weights")
    code = """
import sys
from pathlib import Path
from gpt2tui.tracking.wandb import WandbTracker
from tests.tracking import event_samples as sample
from tests.tracking.test_wandb import with_artifacts
tracker = WandbTracker(with_artifacts("offline"), Path(sys.argv[1]), close_timeout=60)
tracker.handle(sample.checkpoint_saved(4))
tracker.close()
"""
    words = [sys.executable, "-c", code, str(run_folder)]
    environment = {**os.environ, "WANDB_CACHE_DIR": str(tmp_path), "WANDB_DATA_DIR": str(tmp_path)}
    subprocess.run(words, cwd=REPOSITORY, check=True, timeout=100, capture_output=True, env=environment)
    (file,) = (run_folder / "wandb").glob("offline-run-*/run-*.wandb")
    found = [record.request.log_artifact.artifact for record in wandb_file.records(file) if record.HasField("request")]
    found += [record.artifact for record in wandb_file.records(file) if record.HasField("artifact")]
    (artifact,) = [each for each in found if each.name]
    assert (artifact.type, set(artifact.aliases)) == ("model", {"latest", "step-4"})  # W&B keeps no order
    assert artifact.name == f"checkpoint-{(run_folder / 'wandb_id').read_text().strip()}"
    assert [entry.path for entry in artifact.manifest.contents] == ["model.safetensors"]


def test_a_resumed_run_keeps_its_id(tmp_path, wandb):
    ids = []
    for _ in range(2):
        WandbTracker(preset("offline"), tmp_path).close()
        ids.append(wandb.arguments["id"])
    assert ids[0] == ids[1] == (tmp_path / "wandb_id").read_text().strip()
    WandbTracker(preset("offline"), tmp_path / "..").close()
    assert wandb.arguments["id"] != ids[0]


def test_without_a_network_the_run_goes_offline_with_one_line_and_loses_nothing(tmp_path, wandb):
    def init(mode, **arguments):
        if mode == "online":
            raise ConnectionError("no route to host\nand much more text")
        return wandb.run

    wandb.init = init
    reports = []
    tracker = WandbTracker(preset("online"), tmp_path, report=reports.append)
    for number in (1, 2, 3):
        tracker.handle(sample.step(number))
    tracker.close()
    assert [values["step"] for values in wandb.run.logged] == [1, 2, 3]
    assert len(reports) == 2
    assert "no route to host; the run goes to" in reports[0]
    assert reports[1].endswith("to send it: wandb sync 'the run/wandb/offline-run-1'")


def test_without_a_login_the_run_goes_offline_and_says_how_to_log_in(tmp_path, wandb):
    wandb.login = lambda prompt: False
    reports = []
    WandbTracker(preset("online"), tmp_path, report=reports.append).close()
    assert wandb.modes == ["offline"]
    assert "`wandb login`" in reports[0]


@pytest.mark.parametrize("error", [RuntimeError("it broke"), SystemExit("it broke"), TypeError("it broke")])
@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_whatever_raises_is_one_line(tmp_path, wandb, where, error):
    def fail(*_, **__):
        raise error

    setattr(wandb if where == "init" else wandb.run, where, fail)
    reports = []
    tracker = WandbTracker(preset("offline"), tmp_path, report=reports.append)
    for number in range(1, 1000):
        tracker.handle(sample.step(number))
    tracker.close()
    tracker.handle(sample.step(1000))
    assert reports == ["W&B tracking is off: it broke"]


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    reports = []
    WandbTracker(preset("offline"), tmp_path, report=reports.append).close()
    assert len(reports) == 1
    assert reports[0].startswith("W&B tracking is off: ")


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_call_that_hangs_holds_up_neither_training_nor_the_end(tmp_path, wandb, where):
    forever = threading.Event()
    setattr(wandb if where == "init" else wandb.run, where, lambda *_, **__: forever.wait(60))
    reports = []
    tracker = WandbTracker(preset("offline"), tmp_path, report=reports.append, queue_length=10, close_timeout=0.3)
    for number in range(1, 101):
        tracker.handle(sample.step(number))
    tracker.close()
    tracker.close()
    assert "W&B did not finish in 0.3 s" in reports[0]
    if where != "finish":  # then the queue was drained, and how much of it was full is chance
        dropped = int(reports[1].split("slow: ")[1].split()[0])
        assert 89 <= dropped <= 90  # ten are queued, and one may be in the hands of the call that hangs
    forever.set()


def test_what_fails_after_the_wait_is_over_starts_nothing_new_and_says_nothing_more(tmp_path, wandb):
    service_ends = threading.Event()

    def login(prompt):
        service_ends.wait(60)
        raise ConnectionError("the service has ended")

    wandb.login = login
    reports = []
    tracker = WandbTracker(preset("online"), tmp_path, report=reports.append, close_timeout=0.1)
    thread = tracker._thread
    tracker.close()
    service_ends.set()
    thread.join(10)
    assert wandb.modes == []
    assert len(reports) == 1


def test_a_hanging_call_does_not_keep_the_process_alive(tmp_path):
    code = """
import sys, threading, types
from pathlib import Path
from gpt2tui.tracking.wandb import WandbTracker
from tests.tracking.test_wandb import preset
sys.modules["wandb"] = types.SimpleNamespace(
    Settings=dict,
    setup=lambda settings: None,
    login=lambda prompt: True,
    init=lambda **_: threading.Event().wait(),
)
WandbTracker(preset("online"), Path(sys.argv[1]), close_timeout=0.2).close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_an_offline_run_can_be_read_back_with_what_was_logged(tmp_path):
    from . import wandb_file

    run_folder = tmp_path / "my-run"
    run_folder.mkdir()
    code = """
import sys
from pathlib import Path
from gpt2tui.tracking.wandb import WandbTracker
from tests.tracking import event_samples as sample
from tests.tracking.test_wandb import preset
tracker = WandbTracker(preset("offline"), Path(sys.argv[1]), close_timeout=60)
tracker.handle(sample.run_started())
for number in range(1, 301):
    tracker.handle(sample.step(number, train_loss=5.0 - number / 100))
tracker.handle(sample.evaluated(300))
tracker.handle(sample.sampled(300))
tracker.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(run_folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stdout == ""
    words = shlex.split(done.stderr.split("to send it: ")[1])
    assert words[:2] == ["wandb", "sync"]
    assert [path.name for path in Path(words[2]).glob("run-*.wandb")]
    assert done.stderr.count("\n") == 1
    assert {path.name for path in run_folder.iterdir()} == {"wandb", "wandb_id"}
    (file,) = (run_folder / "wandb").glob("offline-run-*/run-*.wandb")
    run_id = (run_folder / "wandb_id").read_text().strip()
    assert file.name == f"run-{run_id}.wandb"

    rows = wandb_file.history(file)
    steps = [(row["step"], row["train_loss"]) for row in rows if "train_loss" in row]
    assert steps == [(n, 5.0 - n / 100) for n in range(1, 301)]
    (evaluation,) = [row for row in rows if "val_loss" in row]
    assert (evaluation["step"], evaluation["bits_per_byte"], evaluation["perplexity"]) == (300, 1.25, 7.389)
    (samples,) = [row for row in rows if "samples.path" in row or "samples" in row]
    assert samples["step"] == 300
    (table,) = (run_folder / "wandb").glob("offline-run-*/files/media/table/samples*.json")
    assert json.loads(table.read_text())["data"] == [[300, "def ", "main():\n    return 0\n"]]

    config = {}
    for record in wandb_file.records(file):
        updates = [record.run.config, record.config] if record.HasField("run") else [record.config]
        for update in updates:
            config |= {item.key: json.loads(item.value_json) for item in update.update if item.key}
    assert config["training"]["seed"] == 1337
    assert config["tracking"]["project"] == "tests"
    assert config["parameters"] == 3_213_760
    (run,) = [record.run for record in wandb_file.records(file) if record.HasField("run")]
    assert (run.display_name, run.project, list(run.tags)) == ("my-run", "tests", ["one", "two"])
    environment = [record.environment for record in wandb_file.records(file) if record.HasField("environment")]
    assert not any(found.host or found.username or found.email or found.root for found in environment)
    assert sys.executable.encode() not in file.read_bytes()
    assert sys.prefix.encode() not in file.read_bytes()
    host = re.escape(platform.node().encode())
    if len(host) < 8:  # random letters in the file may hold a short name, but hardly as a word
        host = rb"(?<!\w)" + host + rb"(?!\w)"
    assert not re.search(host, file.read_bytes())


def test_the_home_of_the_user_is_not_sent(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "CANARY"))
    trained = preset("offline")
    source = str(tmp_path / "CANARY" / "texts")
    trained = trained.model_copy(update={"data": trained.data.model_copy(update={"source": source})})
    WandbTracker(trained, tmp_path).close()
    assert wandb.arguments["config"]["data"]["source"] == "~/texts"


def test_the_id_is_not_written_through_a_link_out_of_the_run(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb_id").symlink_to(tmp_path / "outside")
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb())
    reports = []
    tracker = WandbTracker(preset("offline"), tmp_path / "run", report=reports.append)
    tracker.handle(sample.run_started())
    tracker.close()
    assert not (tmp_path / "outside").exists()
    assert len(reports) == 1
    assert "it is a link" in reports[0]
