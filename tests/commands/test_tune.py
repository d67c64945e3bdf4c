"""`gpt2tui tune`, and what a run on prompts and answers leaves: checkpoints that answer by themselves."""

import json
import tomllib

import pytest
import transformers

from gpt2tui import generation
from gpt2tui.cli import parse
from gpt2tui.commands.tune import tuning_preset
from gpt2tui.errors import CheckpointError, PresetError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.schema import SamplingTable
from gpt2tui.run import folder as runs
from tests import tiny_runs
from tests.tiny_runs import finish

SMALL = ("training.num_iterations=3", "training.eval_frequency=0", "training.checkpoint_frequency=0")


def rows_file(folder, rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


QUESTIONS = [{"question": f"{n}?", "answer": str(n)} for n in range(30)]


@pytest.fixture
def base(tmp_path):
    """A run with one checkpoint of a tiny model."""
    trainer = tiny_runs.trainer(tmp_path, *SMALL)
    list(trainer.train())
    return trainer.run


def trained(capsys, *words):
    """Exit code, the printed preset, and the events of a command line."""
    options = parse(["tune", *map(str, words), "--log-format", "jsonl"])
    code = options.command(options)
    out, err = capsys.readouterr()
    return code, err, [json.loads(line) for line in out.splitlines()]


def test_tune_trains_the_newest_run_on_prompts_and_answers_which_it_then_answers(base, tmp_path, capsys):
    path = rows_file(tmp_path, QUESTIONS)
    settings = ("training.num_iterations=2", "training.sequence_length=16", "schedule.warmup_iterations=0")
    code, err, events = trained(
        capsys, path, *settings, "data.template=Q {prompt} A {completion}", "training.batch_size=2"
    )
    assert code == 0
    assert events[-1]["event"] == "run_finished"
    printed = tomllib.loads(err[err.index("extends") : err.index("\n\n", err.index("[training]"))])
    assert printed["data"] == {
        "source": str(path),
        "prompt_column": "question",
        "completion_column": "answer",
        "template": "Q {prompt} A {completion}",
    }
    assert printed["model"]["init_from"].startswith(str(base.folder))
    run = runs.find("latest")
    assert run.name.endswith("tune")
    model = generation.load(str(run.folder))
    assert model.template.text == "Q {prompt} A {completion}"
    prompt = model.prompt_tokens("7?")
    assert prompt == [256, *b"Q 7? A"]
    sampling = SamplingTable(max_length=4, seed=3)
    assert model.continuation("7?", sampling).text == "".join(p.text for p in model.stream(prompt, sampling))
    assert model.continuation("7?", sampling, in_template=False).text == "".join(
        p.text for p in model.stream("7?", sampling)
    )
    # The checkpoint is complete by itself, also for transformers.
    theirs = transformers.AutoTokenizer.from_pretrained(model.source)
    asked = theirs.apply_chat_template([{"role": "user", "content": "7?"}], return_dict=True)["input_ids"]
    assert asked == prompt
    for command in (["sample", "latest", "--prompt", "7?", "--max-length", "4"], ["eval", "latest", "--json"]):
        options = parse(command)
        assert options.command(options) == 0
    out = capsys.readouterr().out
    assert out.startswith("Q 7? A")
    measured = json.loads(out[out.index("{") :])
    evaluated = next(event for event in reversed(events) if event["event"] == "evaluated")
    assert measured["is_training_corpus"]
    assert measured["splits"]["validation"]["loss"] == pytest.approx(evaluated["val_loss"], rel=1e-4)
    assert measured["splits"]["validation"]["xz_bits_per_byte"] is None


def test_the_kind_of_data_chooses_the_preset(base, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("text")
    chosen = {
        tmp_path / "notes": ("finetune", {}),
        rows_file(tmp_path, [{"text": "x", "prompt": "p", "completion": "c"}], "text.jsonl"): ("finetune", {}),
        rows_file(tmp_path, [{"messages": []}], "chat.jsonl"): ("instruct", {"messages_column": "messages"}),
        rows_file(tmp_path, [{"prompt": "p", "completion": "c"}], "pairs.jsonl"): (
            "instruct",
            {"prompt_column": "prompt", "completion_column": "completion"},
        ),
    }
    for data, (extends, columns) in chosen.items():
        preset = tuning_preset(str(data), str(base.folder))
        assert preset["extends"] == extends
        assert preset["data"] == {"source": str(data), **columns}
    csv = tmp_path / "pairs.csv"
    csv.write_text("input;output\r\na;b\r\n")
    assert tuning_preset(str(csv), str(base.folder))["data"]["prompt_column"] == "input"


def test_a_dry_run_of_tune_estimates_and_prints_the_preset_that_it_would_train(base, tmp_path, capsys):
    """The words that a user types after `train` are taken here too, and are in the preset that is kept."""
    data = tiny_runs.corpus_file(tmp_path)
    words = [
        "tune",
        str(data),
        "--from",
        "tiny",
        "--dry-run",
        "--seed",
        "3",
        "--name",
        "x",
        "training.num_iterations=20",
    ]
    options = parse(words)
    assert options.command(options) == 0
    out, _ = capsys.readouterr()
    kept, estimated = out.split("preset      ")
    assert "memory      " in estimated
    path = tmp_path / "kept.toml"
    path.write_text(kept)
    preset = preset_files.check(path).preset
    assert (preset.training.seed, preset.training.num_iterations, preset.data.source) == (3, 20, str(data))
    assert preset.model.init_from.startswith(str(base.folder))
    assert len(runs.all_runs()) == 1
    options = parse([*words, "--json"])
    assert options.command(options) == 0
    assert json.loads(capsys.readouterr().out)["resolved"]["training"]["seed"] == 3


def test_a_dry_run_of_tune_downloads_nothing(tmp_path, capsys, monkeypatch):
    from gpt2tui import model_files

    monkeypatch.setattr(model_files, "_download", lambda hub_id: pytest.fail("it was downloaded"))
    path = tmp_path / "long.txt"
    path.write_text("a text of more than a window\n" * 4000)
    options = parse(["tune", str(path), "--dry-run"])
    assert options.command(options) == 0
    out = capsys.readouterr().out
    assert 'init_from = "openai-community/gpt2"' in out
    assert "openai-community/gpt2 is not here yet" in out


def test_a_whole_preset_takes_the_place_of_finetune_and_a_partial_one_is_a_layer(base, tmp_path, capsys):
    """A whole one as a layer would bring its own model and its own text."""
    data = tiny_runs.corpus_file(tmp_path)
    (tmp_path / "mine.toml").write_text("[training]\nbatch_size = 3\n")
    options = parse(["tune", str(data), "lora", str(tmp_path / "mine.toml"), "--dry-run", "--json"])
    assert options.command(options) == 0
    resolved = json.loads(capsys.readouterr().out)["resolved"]
    assert resolved["lora"]["rank"] == 8
    assert resolved["data"]["source"] == str(data)
    assert resolved["model"]["n_embd"] == 16
    assert resolved["training"]["batch_size"] == 3
    rate = 2e-4 * (124_439_808 / generation.load(str(base.folder)).num_parameters) ** 0.5
    assert resolved["optimizer"]["lr"] == pytest.approx(rate, rel=0.05)
    own = tmp_path / "own.toml"
    own.write_text('extends = "finetune"\n[optimizer]\nlr = 0.004\n')
    assert "optimizer" not in tuning_preset(str(data), str(base.folder), str(own))


def test_tune_takes_the_model_of_the_run_begun_last_whatever_its_name(base, tmp_path, capsys):
    trainer = tiny_runs.trainer(tmp_path, *SMALL, run=runs.create("x", runs.runs_folder() / "0-first-by-name"))
    list(trainer.train())
    options = parse(["tune", str(tiny_runs.corpus_file(tmp_path)), "--dry-run", "--json"])
    assert options.command(options) == 0
    resolved = json.loads(capsys.readouterr().out)["resolved"]
    assert "0-first-by-name" in resolved["model"]["init_from"]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--resume", "latest"], "tune begins a new run; to continue one: gpt2tui train --resume latest"),
        (["--lr", "1e-3"], "optimizer.lr=1e-3"),
        (["--toml"], "--toml needs --dry-run"),
    ],
)
def test_what_tune_does_not_take_is_answered(words, answer, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["tune", "notes", *words])
    assert caught.value.code == 2
    assert answer in capsys.readouterr().err


def test_a_wrong_setting_is_said_before_the_preset_is_printed(base, tmp_path, capsys):
    options = parse(["tune", str(tiny_runs.corpus_file(tmp_path)), "training.bach_size=3", "optimizer.lr.x=2"])
    with pytest.raises(PresetError, match=r"did you mean training\.batch_size") as caught:
        options.command(options)
    assert "settings" not in str(caught.value).split(":")[0]
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_second_run_on_prompts_and_answers_keeps_the_template_of_the_first(base, tmp_path, capsys):
    path = rows_file(tmp_path, QUESTIONS)
    settings = ("training.num_iterations=1", "training.sequence_length=16", "schedule.warmup_iterations=0")
    assert trained(capsys, path, *settings, "data.template=Q {prompt} A {completion}")[0] == 0
    code, _, events = trained(capsys, path, *settings)
    assert code == 0
    assert not [event for event in events if event["event"] == "warning" and "template" in event["message"]]
    model = generation.load("latest")
    assert model.template.text == "Q {prompt} A {completion}"
    assert model.prompt_tokens("7?") == [256, *b"Q 7? A"]
    # Another one can be named, and is said to be another.
    code, _, events = trained(capsys, path, *settings, "data.template=[{prompt}] {completion}")
    assert code == 0
    warnings = [event["message"] for event in events if event["event"] == "warning"]
    assert any("learned to answer in the template 'Q {prompt} A {completion}'" in message for message in warnings)
    assert generation.load("latest").template.text == "[{prompt}] {completion}"
    # A text has no template, and its preset none either.
    code, _, events = trained(capsys, tiny_runs.corpus_file(tmp_path), *settings)
    assert code == 0
    assert any("this text has none" in event.get("message", "") for event in events)
    assert generation.load("latest").template is None


def test_tune_with_messages_replaces_the_columns_of_instruct(base, tmp_path):
    path = rows_file(tmp_path, [{"messages": []}])
    settings = ["training.sequence_length=16"]
    loaded = preset_files.load([tuning_preset(str(path), str(base.folder))], settings).preset
    assert (loaded.data.messages_column, loaded.data.prompt_column) == ("messages", None)


def test_a_small_model_gets_a_higher_rate_than_gpt2(base, tmp_path):
    rate = tuning_preset(str(tiny_runs.corpus_file(tmp_path)), str(base.folder))["optimizer"]["lr"]
    parameters = generation.load(str(base.folder)).num_parameters
    assert rate == pytest.approx(6.25e-5 * (124_439_808 / parameters) ** 0.5, rel=0.05)


def test_a_model_that_is_not_here_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="nothing"):
        tuning_preset(str(tiny_runs.corpus_file(tmp_path)), "nothing")


def test_a_run_on_prompts_and_answers_resumes_bit_for_bit(tmp_path):
    path = rows_file(tmp_path, QUESTIONS)
    overrides = (
        f"data.source={path}",
        "data.prompt_column=question",
        "data.completion_column=answer",
        "training.num_iterations=4",
        "training.checkpoint_frequency=2",
        "model.n_positions=32",
        "training.sequence_length=32",
    )
    whole = tiny_runs.trainer(tmp_path, *overrides)
    events = [event for event in whole.train() if type(event).__name__ == "Step"]
    loaded = whole.preset
    saved = next(c for c in runs.checkpoint.saved_in(whole.run.checkpoints) if c.step == 2)
    corpus = finish(tiny_runs.prepare(loaded, tiny_runs.cache_folder()))
    again = tiny_runs.Trainer(runs.create("again"), loaded, corpus, preset_name="tiny", resume_from=saved)
    resumed = [event for event in again.train() if type(event).__name__ == "Step"]
    assert [event.train_loss for event in resumed] == [event.train_loss for event in events[2:]]
