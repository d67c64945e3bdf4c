"""`import gpt2tui`: what a script or a notebook does with it, on a model of a few thousand parameters."""

import json
import math
import os
import signal
import subprocess
import sys
import threading

import mypy.api
import pandas
import pytest
import torch
import transformers

import gpt2tui
from gpt2tui.__main__ import main
from gpt2tui.data.tokenizer_kinds import ByteTokenizer
from gpt2tui.errors import CheckpointError, DataError, PresetError, UsageError
from gpt2tui.generation import TextModel, load_model
from gpt2tui.launch import new_run
from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.preset.files import LoadedPreset, flat
from gpt2tui.preset.layers import read_settings
from gpt2tui.run import folder as runs
from gpt2tui.training.update import Update
from gpt2tui.tui.start import run_workbench
from tests import tiny_runs


@pytest.fixture
def tiny(tmp_path):
    """A tiny run's settings by dotted key, as Python has them."""
    return flat(tiny_runs.preset(tmp_path))


@pytest.fixture
def trained(tiny):
    training = gpt2tui.train("default", tiny, name="trained")
    list(training)
    return training.run


# ---- presets


def test_settings_are_given_by_dotted_keys_by_tables_and_by_keywords():
    by_key = gpt2tui.load_preset("small", {"optimizer.lr": 1e-3, "training.seed": 3})
    assert (by_key.optimizer.lr, by_key.training.seed, by_key.model.n_embd) == (1e-3, 3, 128)
    assert gpt2tui.load_preset("small", {"optimizer": {"lr": 1e-3}, "training": {"seed": 3}}) == by_key
    assert gpt2tui.load_preset("small", optimizer={"lr": 1e-3}, training={"seed": 3}) == by_key
    assert gpt2tui.load_preset({"extends": "small", "optimizer": {"lr": 1e-3}}, {"training.seed": 3}) == by_key
    assert gpt2tui.load_preset(gpt2tui.load_preset("small"), optimizer={"lr": 1e-3}, training={"seed": 3}) == by_key


def test_none_leaves_a_setting_out_and_values_of_numpy_and_paths_are_taken(tmp_path):
    settings = {
        "model.vocab_size": None,
        "optimizer.lr": pandas.Series([0.25]).iloc[0],
        "training.seed": torch.tensor(7),
        "data.source": tmp_path / "words.txt",
        "tracking.tags": ("a", "b"),
    }
    preset = gpt2tui.load_preset("small", settings)
    assert preset.model.vocab_size is None
    assert (type(preset.optimizer.lr), preset.optimizer.lr, preset.training.seed) == (float, 0.25, 7)
    assert preset.data.source == str(tmp_path / "words.txt")
    assert preset.tracking.tags == ["a", "b"]


def test_wrong_settings_are_one_error_that_names_each():
    with pytest.raises(PresetError) as refused:
        gpt2tui.train("small", {"optimizer.learning_rate": 1e-3}, training={"seed": -1})
    assert [mistake.key for mistake in refused.value.mistakes] == ["optimizer.learning_rate", "training.seed"]
    assert "optimizer.lr" in str(refused.value)
    assert runs.all_runs() == []


def test_all_presets_have_names_that_load():
    assert {"test", "small", "gpt2-124m"} <= set(gpt2tui.presets())
    assert gpt2tui.load_preset("test").training.num_iterations == 100


# ---- training


def test_a_training_is_its_events(tiny):
    training = gpt2tui.train("default", tiny)
    with pytest.raises(UsageError, match="before its first event"):
        _ = training.run
    events = list(training)
    assert isinstance(events[0], gpt2tui.RunStarted)
    assert [event.step for event in events if isinstance(event, gpt2tui.Step)] == list(range(1, 13))
    assert isinstance(events[-1], gpt2tui.RunFinished)
    assert [event.as_json() for event in training.run.events()] == [event.as_json() for event in events]
    assert not runs.is_locked(runs.Run(training.run.folder))
    with pytest.raises(StopIteration):
        next(training)


def left(training):
    """The run of a training, the step of its newest checkpoint, and why it ended."""
    *_, last = training.events()
    assert not runs.is_locked(runs.Run(training.folder))
    return training.checkpoints[-1].step, last.reason


def test_a_loop_that_is_left_saves_a_checkpoint_and_can_be_resumed(tiny):
    for event in gpt2tui.train("default", tiny, name="left"):
        if isinstance(event, gpt2tui.Step) and event.step == 5:
            break
    run = gpt2tui.find_run("latest")
    assert run.name.endswith("-left")
    assert left(run) == (5, "stopped")
    resumed = gpt2tui.resume(run, {"training.num_iterations": 7})
    assert [event.step for event in resumed if isinstance(event, gpt2tui.Step)] == [6, 7]
    assert left(run) == (7, "done")


def test_an_error_in_the_loop_and_the_end_of_a_with_block_save_too(tiny, tmp_path):
    def fail():
        for event in gpt2tui.train("default", tiny, run_dir=tmp_path / "failing"):
            if isinstance(event, gpt2tui.Step) and event.step == 3:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert left(gpt2tui.find_run(tmp_path / "failing")) == (3, "stopped")
    with gpt2tui.train("default", tiny) as training:
        while not isinstance(next(training), gpt2tui.Step):
            pass
    assert left(training.run) == (1, "stopped")


def test_ctrl_c_saves_lets_the_last_events_through_and_ends_the_program(tiny, monkeypatch):
    seen = []
    training = gpt2tui.train("default", tiny)

    begin = Update.begin

    def interrupted(self, *arguments):
        if len([event for event in seen if isinstance(event, gpt2tui.Step)]) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return begin(self, *arguments)

    monkeypatch.setattr(Update, "begin", interrupted)
    with pytest.raises(KeyboardInterrupt):
        for event in training:
            seen.append(event)
    assert isinstance(seen[-1], gpt2tui.RunFinished)
    assert left(training.run) == (5, "stopped")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_the_data_is_prepared_ends_at_once_and_leaves_no_folder(tiny, monkeypatch):
    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        yield

    monkeypatch.setattr("gpt2tui.data.token_store.prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(gpt2tui.train("default", tiny))
    assert list(runs.runs_folder().glob("*")) == []


def test_it_trains_in_any_thread_and_stops_from_another(tiny):
    training, seen, fifth = gpt2tui.train("default", tiny), [], threading.Event()
    asked = threading.Event()

    def work():
        for event in training:
            seen.append(event)
            if isinstance(event, gpt2tui.Step) and event.step == 5:
                fifth.set()
                asked.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    assert fifth.wait(60)
    training.stop()
    asked.set()
    thread.join(60)
    assert isinstance(seen[-1], gpt2tui.RunFinished)
    assert left(training.run) == (5, "stopped")


@pytest.mark.slow
def test_a_process_that_ends_in_the_middle_saves_first(tmp_path, tiny):
    script = tmp_path / "script.py"
    script.write_text(f"""
import gpt2tui
training = gpt2tui.train("default", {tiny!r}, run_dir="run")
for event in training:
    if isinstance(event, gpt2tui.Step) and event.step == 5:
        raise SystemExit(3)
""")
    done = subprocess.run([sys.executable, script, "word"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    run = gpt2tui.find_run(tmp_path / "run")
    assert left(run) == (5, "stopped")
    assert runs.Run(run.folder).info()["command"] == ["python", str(script), "word"]


def test_expected_failures_are_the_exceptions_of_the_package(tiny, tmp_path):
    with pytest.raises(gpt2tui.errors.DataError):
        list(gpt2tui.train("default", tiny, data={"source": str(tmp_path / "missing.txt")}))
    assert gpt2tui.errors.DataError is DataError
    with pytest.raises(UsageError, match="no run nothing"):
        gpt2tui.resume("nothing")
    with pytest.raises(CheckpointError):
        gpt2tui.load(tmp_path / "nothing")


def test_several_processes_of_torchrun_are_refused_before_anything_is_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    loaded = LoadedPreset("tiny", tiny_runs.preset(tmp_path), ())
    starts = (
        lambda: gpt2tui.train("default", tiny),
        lambda: gpt2tui.resume("latest"),
        lambda: new_run(loaded).__enter__(),
        run_workbench,
    )
    for start in starts:
        with pytest.raises(UsageError, match="torchrun started 2 processes"):
            start()
    assert not runs.runs_folder().exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    gpt2tui.train("default", tiny)


# ---- runs


def test_runs_are_the_rows_of_a_data_frame(trained, tiny):
    frame = pandas.DataFrame(gpt2tui.runs())
    (row,) = frame.to_dict("records")
    assert (row["name"], row["state"], row["step"]) == (trained.name, "finished", 12)
    assert row["optimizer.lr"] == 0.01
    *_, finished = trained.events()
    assert row["best_val_loss"] == finished.best_val_loss
    assert gpt2tui.runs(trained.folder.parent) == gpt2tui.runs()
    with pytest.raises(UsageError, match="no folder"):
        gpt2tui.runs("elsewhere")


def test_a_run_whose_preset_is_gone_still_has_a_row(trained):
    (trained.folder / "preset.toml").unlink()
    (row,) = gpt2tui.runs()
    assert row["state"] == "finished"
    assert "optimizer.lr" not in row


def test_the_curve_of_a_run(trained):
    curve = pandas.DataFrame(trained.curve()).set_index("step")
    steps = {event.step: event for event in trained.events() if isinstance(event, gpt2tui.Step)}
    evaluated = {e.step: e for e in trained.events() if isinstance(e, gpt2tui.Evaluated) and not e.whole}
    assert curve.train_loss.to_dict() == {step: event.train_loss for step, event in steps.items()}
    assert curve.val_loss.dropna().to_dict() == {step: event.val_loss for step, event in evaluated.items()}
    assert sorted(evaluated) == [4, 8, 12]
    assert [saved.step for saved in trained.checkpoints] == [4, 8, 12]
    assert trained.preset.optimizer.lr == 0.01
    assert os.fspath(trained) == str(trained.folder)


# ---- models


def test_a_model_generates_what_the_command_line_does(trained, capsys):
    model = gpt2tui.load(trained)
    assert main(["sample", str(trained.folder), "--prompt=the", "--seed=4", "--num-samples=2", "--json"]) == 0
    expected = [sample["text"] for sample in json.loads(capsys.readouterr().out)]
    assert model.generate("the", seed=4, num_samples=2) == expected
    assert model.generate("the", seed=5) == model.generate("the", seed=4, num_samples=2)[1]
    assert "".join(model.stream("the", seed=5)) == model.generate("the", seed=5)
    assert len(model.encode(model.generate("the", max_length=3, temperature=0.0))) <= 3
    assert model.generate() == model.generate(model.sampling.prompt, max_length=8)
    checkpoint = trained.checkpoints[0]
    assert gpt2tui.load(checkpoint.folder).folder == checkpoint.folder


def test_wrong_sampling_settings_are_named(trained):
    model = gpt2tui.load(trained)
    with pytest.raises(PresetError, match=r"sampling\.top_k: -1"):
        model.generate("the", top_k=-1)
    with pytest.raises(PresetError, match="max_length"):
        model.generate("the", max_lenght=3)
    with pytest.raises(UsageError, match="num_samples must be at least 1"):
        model.generate("the", num_samples=0)


def test_log_probabilities_are_those_of_transformers(tmp_path):
    torch.manual_seed(5)
    config = transformers.GPT2Config(vocab_size=257, n_positions=64, n_embd=32, n_layer=2, n_head=2)
    reference = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(6)  # some log-probabilities are below -20
    reference.save_pretrained(tmp_path / "model")
    model = gpt2tui.LanguageModel(TextModel(load_model(tmp_path / "model").eval(), ByteTokenizer(), "test", 64))
    text = "Grüße, GPT-2 🙂 1\n"
    found = model.logprobs(text)
    ids = torch.tensor([[256, *text.encode()]])
    with torch.no_grad():
        logits = reference(ids[:, :-1]).logits[0]
    expected = -torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    assert [token.id for token in found] == list(text.encode())
    assert [token.logprob for token in found] == pytest.approx(expected.tolist(), abs=1e-3, rel=1e-5)
    assert min(expected) < -20
    assert "".join(token.token for token in found) == text
    assert model.network(ids).shape == (1, len(ids[0]), 257)
    assert model.decode(model.encode(text)) == text


def test_an_impossible_token_has_a_finite_log_probability():
    """exp(-120) is 0 in fp32: the logarithm of a probability would be minus infinity."""
    network = GPT2(GPT2Config(vocab_size=257, n_positions=8, n_embd=16, n_layer=1, n_head=1)).eval()
    with torch.no_grad():
        network.wte.weight.mul_(2000)
    found = gpt2tui.LanguageModel(TextModel(network, ByteTokenizer(), "test", 8)).logprobs("abcd")
    assert min(token.logprob for token in found) < -110
    assert all(math.isfinite(token.logprob) for token in found)


# ---- the package


def test_every_public_name_is_there_and_nothing_else():
    for name in gpt2tui.__all__:
        assert getattr(gpt2tui, name) is not None
    assert set(gpt2tui.__all__) <= set(dir(gpt2tui))
    with pytest.raises(AttributeError, match="no attribute 'tokenise'"):
        _ = gpt2tui.tokenise


def test_settings_of_python_are_layers():
    assert {key: sourced.value for key, sourced in read_settings({"a.b": 1, "a": {"c": {"d": 2}}}).items()} == {
        ("a", "b"): 1,
        ("a", "c", "d"): 2,
    }


TYPED_SCRIPT = """
import os

import gpt2tui
from gpt2tui.errors import PresetError

settings: dict[str, object] = {"optimizer.lr": 1e-3}
best: list[float] = []
with gpt2tui.train("test", settings, name="typed", training={"seed": 3}) as training:
    for event in training:
        match event:
            case gpt2tui.Step(step=step, train_loss=loss):
                print(step + 1, loss + 0.5)
            case gpt2tui.Evaluated() if event.best:
                best.append(event.val_loss)
run: gpt2tui.TrainingRun = training.run
lr: float = run.preset.optimizer.lr
model = gpt2tui.load(run, device="cpu")
text: str = model.generate("def", max_length=20, top_k=5)
texts: list[str] = model.generate("def", num_samples=2)
total: float = sum(token.logprob for token in model.logprobs(text))
rows: list[dict[str, object]] = [{**row} for row in gpt2tui.runs()]
try:
    gpt2tui.load_preset({"extends": "small"}, optimizer={"lr": 3})
except PresetError as error:
    code: int = error.exit_code
"""


@pytest.mark.slow
def test_a_users_script_is_typed(tmp_path):
    """mypy --strict finds the package as any that is installed: by its `py.typed`, without the repository's settings.

    The types of torch and of the modules behind the interface are not read, which would take a minute.
    """
    (tmp_path / "right.py").write_text(TYPED_SCRIPT)
    (tmp_path / "wrong.py").write_text(TYPED_SCRIPT + 'number: int = model.generate()\nmodel.generate(top_k="5")\n')
    unread = "torch.*,numpy.*,rich.*,gpt2tui.training.*,gpt2tui.data.*,gpt2tui.generation,gpt2tui.tracking.*"
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nstrict = true\n[mypy-{unread}]\nfollow_imports = skip\n")
    options = ["--config-file", str(tmp_path / "mypy.ini"), "--cache-dir", str(tmp_path / "cache")]
    out, err, _ = mypy.api.run([*options, str(tmp_path / "right.py"), str(tmp_path / "wrong.py")])
    assert "Found 2 errors in 1 file" in out, out + err
    assert "wrong.py" in out
