"""The validation windows with the highest loss: which they are, what is kept of them, and how they are shown."""

import io
import json

import pytest
import torch
import transformers
from rich.console import Console

from gpt2tui import generation
from gpt2tui.__main__ import main
from gpt2tui.errors import CheckpointError, UsageError
from gpt2tui.evaluation.perplexity import padded_batch
from gpt2tui.evaluation.worst_windows import WorstWindows, described
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.worst_passages import MOST, Passage, WorstPassages, read_worst_passages, write_worst_passages
from gpt2tui.tracking.heat_map import heat_map
from tests import tiny_runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished tiny run in a folder of runs."""
    folder = tmp_path_factory.mktemp("worst")
    with tiny_runs.folders_in(folder):
        trainer = tiny_runs.trainer(folder, run=runs.create("tiny"))
        events = list(trainer.train())
    return trainer, events


def window_losses(folder, tokens, length):
    """The losses (T,) of each window of a text, by transformers."""
    model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    found = []
    for start in range(0, len(tokens) - 1, length):
        window = torch.tensor([int(token) for token in tokens[start : start + length + 1]])
        with torch.no_grad():
            logits = model(window[None, :-1]).logits[0]
        found.append((torch.nn.functional.cross_entropy(logits, window[1:], reduction="none"), window, logits))
    return found


def test_they_are_those_with_the_highest_loss_by_transformers(trained):
    trainer, events = trained
    worst = read_worst_passages(trainer.run)
    assert (worst.step, worst.whole, len(worst.passages)) == (12, True, MOST)
    folder = checkpoint.newest(trainer.run.checkpoints).folder
    windows = window_losses(folder, trainer.corpus.validation, 16)
    windows.sort(key=lambda found: -float(found[0].mean()))
    for passage, (losses, window, logits) in zip(worst.passages, windows, strict=False):
        assert passage.loss == pytest.approx(float(losses.mean()), rel=1e-4)
        assert passage.tokens == window.tolist()
        assert "".join(passage.texts) == trainer.corpus.tokenizer.decode(passage.tokens)
        assert passage.losses == [None, *(pytest.approx(loss, abs=1e-3) for loss in losses.tolist())]
        likeliest = trainer.corpus.tokenizer.decode
        assert passage.expected == [None, *(likeliest([token]) for token in logits.argmax(-1).tolist())]
    assert not [event for event in events if event.name == "warning"]


def test_windows_of_several_lengths_are_read_as_one_batch_and_described_as_each_alone(trained, monkeypatch):
    trainer = trained[0]
    text = [int(token) for token in trainer.corpus.validation]
    windows = [(text[:17], [False] + [True] * 16), (text[20:26], [False] * 3 + [True] * 3), (text[40:49], [True] * 9)]
    alone = [described(trainer.model, trainer.corpus.tokenizer, [window])[0] for window in windows]
    found = WorstWindows()
    inputs, targets = padded_batch([tokens for tokens, _ in windows], [16, 3, 8])
    found.add(inputs, targets, torch.where(targets >= 0, torch.tensor([3.0, 1.0, 2.0])[:, None], 0.0))
    batches, hidden = [], trainer.model.hidden
    monkeypatch.setattr(trainer.model, "hidden", lambda inputs: batches.append(inputs.shape) or hidden(inputs))
    together = found.passages(trainer.model, trainer.corpus.tokenizer, "fp32")
    assert batches == [(3, 16)]
    for passage, expected in zip(together, [alone[0], alone[2], alone[1]], strict=True):
        assert (passage.tokens, passage.texts, passage.expected) == (expected.tokens, expected.texts, expected.expected)
        assert passage.loss == pytest.approx(expected.loss, rel=1e-4)
        assert passage.losses == [None if loss is None else pytest.approx(loss, abs=2e-4) for loss in expected.losses]


def test_the_file_is_small(trained):
    assert (trained[0].run.folder / "worst.json").stat().st_size < 20_000  # ten windows of 17 tokens


def test_in_a_pipe_digits_below_each_token_are_its_loss(trained, capsys):
    run = trained[0].run
    assert main(["runs", "show", str(run.folder), "--worst"]) == 0
    printed = capsys.readouterr().out
    passage = read_worst_passages(run).passages[0]
    assert f"1. loss {passage.loss:.3f} nats per token" in printed
    assert "\x1b" not in printed
    first = passage.most_surprising(1)[0]
    assert f"{passage.losses[first]:.1f} nats for {passage.texts[first]!r}, where the model would" in printed


def test_text_and_digits_stand_below_each_other():
    passage = Passage(2.0, [1, 2, 3, 4], ["ab", "漢", "\n", "\x1b]52;"], [None, 3.9, 0.2, 12.0], [None, "x", "y", "z"])
    lines = [line.plain for line in heat_map(passage, 20, is_coloured=False)]
    assert lines == ["ab漢␊", "  3 0", "␛]52;", "9"]


def test_on_a_terminal_the_colour_is_darker_for_a_higher_loss():
    passage = Passage(2.0, [1, 2, 3], ["a", "b", "c"], [None, 0.5, 9.0], [None, "x", "y"])
    (line,) = heat_map(passage, 20, is_coloured=True)
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor")
    styles = {segment.text: segment.style for segment in line.render(console) if segment.text}
    assert styles["c"].bgcolor.name == "#800026"
    assert "ab" in line.plain
    assert all(span.start == 2 for span in line.spans if span.style)


def test_a_line_is_never_wider_than_the_terminal():
    passage = Passage(1.0, [1, 2, 3], ["x" * 70, " y", "z" * 15], [None, 1.0, 1.0], [None, "", ""])
    assert all(len(line.plain) <= 20 for line in heat_map(passage, 20, is_coloured=False))


def test_as_json_and_over_all_checkpoints(trained, capsys):
    run = trained[0].run
    assert main(["runs", "show", str(run.folder), "--worst", "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)
    assert kept["passages"][0]["loss"] >= kept["passages"][1]["loss"]
    assert main(["runs", "show", str(run.folder), "--worst", "--passage", "2", "--json"]) == 0
    followed = json.loads(capsys.readouterr().out)
    assert [each["step"] for each in followed["checkpoints"]] == [4, 8, 12]
    assert followed["checkpoints"][-1]["loss"] == pytest.approx(kept["passages"][1]["loss"], rel=1e-4)
    assert followed["prompt"] == "".join(kept["passages"][1]["texts"][:8])
    assert followed["checkpoints"][0]["loss"] > followed["checkpoints"][-1]["loss"]  # it has learned
    assert main(["runs", "show", str(run.folder), "--worst", "--passage", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + 3


def test_a_checkpoint_that_cannot_be_read_is_left_out_of_those_that_are_followed(trained, monkeypatch, capsys):
    load = generation.load

    def failing(reference, **options):
        if reference.endswith("8"):
            raise CheckpointError("step 8 is gone")
        return load(reference, **options)

    monkeypatch.setattr(generation, "load", failing)
    assert main(["runs", "show", str(trained[0].run.folder), "--worst", "--passage", "1", "--json"]) == 0
    captured = capsys.readouterr()
    assert [each["step"] for each in json.loads(captured.out)["checkpoints"]] == [4, 12]
    assert "step 8 is left out: step 8 is gone" in captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--worst", "--passage", "11"], "not between 1 and 10"), (["--passage", "1"], "--passage goes with --worst")],
)
def test_a_passage_that_is_not_there_is_a_usage_error(trained, capsys, options, message):
    assert main(["runs", "show", str(trained[0].run.folder), *options]) == 2
    assert message in capsys.readouterr().err


def test_without_an_evaluation_there_are_none(tmp_path):
    run = runs.create("tiny")
    with pytest.raises(UsageError, match="has no worst passages yet"):
        read_worst_passages(run)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"v": 2}', '{"v": 1, "step": 1, "whole": true, "passages": [{"loss": 1}]}']
)
def test_a_damaged_file_is_reported(tmp_path, content):
    run = runs.create("tiny")
    (run.folder / "worst.json").write_text(content)
    with pytest.raises(UsageError, match="cannot be read"):
        read_worst_passages(run)


def test_a_full_disk_is_a_warning_and_the_run_goes_on(tmp_path, monkeypatch):
    trainer = tiny_runs.trainer(tmp_path)

    def full(run, worst):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpt2tui.training.trainer.write_worst_passages", full)
    events = list(trainer.train())
    assert events[-1].name == "run_finished"
    assert any("the worst passages are not kept: No space left" in getattr(e, "message", "") for e in events)


def test_what_is_written_is_read(tmp_path):
    run = runs.create("tiny")
    passage = Passage(1.5, [1, 2], ["a", "\ud7ff"], [None, 1.5], [None, "b"])
    write_worst_passages(run, WorstPassages(3, False, [passage]))
    assert read_worst_passages(run) == WorstPassages(3, False, [passage])
