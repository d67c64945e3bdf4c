"""`gpt2tui tune`, and what a run on prompts and answers leaves: checkpoints that answer by themselves."""

import json
import tomllib

import pytest
import transformers

from gpt2tui import generation
from gpt2tui.cli import parse
from gpt2tui.commands.tune import tuning_preset
from gpt2tui.errors import CheckpointError
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
    printed = tomllib.loads(err[err.index("extends") : err.index("\n\n", err.index("lr ="))])
    assert printed["data"] == {"source": str(path), "prompt_column": "question", "completion_column": "answer"}
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
