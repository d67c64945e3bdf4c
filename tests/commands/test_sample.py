"""`gpt2tui sample` as scripts and people see it."""

import io
import json
import shutil
import sys

import pytest

from gpt2tui.__main__ import main
from tests.commands.command_line import clear_message, gpt2tui


def test_sample_json_is_a_list_with_the_contracts_keys(trained):
    run, _ = trained
    result = gpt2tui("sample", run, "--prompt", "the ", "--max-length", 5, "--num-samples", 2, "--json", "--seed", 3)
    documents = json.loads(result.stdout)
    assert len(documents) == 2
    assert set(documents[0]) == {
        "prompt",
        "text",
        "tokens",
        "seconds",
        "tokens_per_second",
        "time_to_first_token",
    }
    assert documents[0]["prompt"] == "the "
    assert 1 <= documents[0]["tokens"] <= 5
    again = gpt2tui("sample", run, "--prompt", "the ", "--max-length", 5, "--num-samples", 2, "--json", "--seed", 3)
    assert [d["text"] for d in json.loads(again.stdout)] == [d["text"] for d in documents]


def test_sample_prints_several_texts_with_lines_between_them(trained):
    run, _ = trained
    words = ("sample", run, "--prompt", "the ", "--max-length", 5, "--num-samples", 3, "--seed", 3)
    texts = [document["text"] for document in json.loads(gpt2tui(*words, "--json").stdout)]
    assert gpt2tui(*words).stdout == f"\n\n{'-' * 20}\n".join(f"the {text}" for text in texts) + "\n"


def test_writing_that_runs_out_of_memory_says_what_to_do(trained, monkeypatch, capsys):
    from gpt2tui import generation

    def no_room(*arguments, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1002700800 bytes")

    monkeypatch.setattr(generation, "generate", no_room)
    assert main(["sample", str(trained[0]), "--num-samples", "2"]) == 6
    assert "out of memory while writing; ask for shorter texts (--max-length)" in capsys.readouterr().err


def test_sample_takes_a_run_a_checkpoint_an_empty_prompt_and_one_longer_than_the_context(trained):
    run, _ = trained
    for where, prompt in ((run, ""), (run / "checkpoints" / "step-00000004", "x" * 500)):
        result = gpt2tui("sample", where, "--prompt", prompt, "--max-length", 3, "--temperature", 0)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(prompt)


def test_all_mistakes_in_sampling_options_are_reported_at_once(trained):
    run, _ = trained
    message = clear_message(gpt2tui("sample", run, "--temperature", "-1", "--top-p", "0", "--max-length", "0"), 2)
    assert all(name in message for name in ("--temperature", "--top-p", "--max-length"))


def test_a_checkpoint_that_lost_its_manifest_is_damaged(trained, tmp_path):
    import shutil

    run, _ = trained
    copy = tmp_path / "anything"
    shutil.copytree(run / "checkpoints" / "step-00000012", copy)
    (copy / "MANIFEST.json").unlink()
    assert "no MANIFEST.json" in clear_message(gpt2tui("sample", copy), 4)


def test_an_interrupt_while_several_texts_are_written_prints_all_of_them(trained, monkeypatch, capsys):
    from gpt2tui.generation import TextModel

    write = TextModel.streams

    def interrupted(*arguments, **options):
        for index, found in enumerate(write(*arguments, **options)):
            if index == 6:  # two tokens of each of three texts
                raise KeyboardInterrupt
            yield found

    words = ["sample", str(trained[0]), "--prompt", "the ", "--num-samples", "3", "--seed", "3", "--max-length"]
    assert main([*words, "2"]) == 0
    shorter = capsys.readouterr().out
    monkeypatch.setattr(TextModel, "streams", interrupted)
    assert main([*words, "5"]) == 130
    assert capsys.readouterr().out == shorter


def test_more_texts_than_anybody_waits_for_begin_at_once(trained):
    from gpt2tui import generation
    from gpt2tui.preset.schema import SamplingTable

    groups = generation.load(str(trained[0])).seeds_together("a", SamplingTable(seed=5), 10**12)
    assert next(groups).start == 5


@pytest.mark.parametrize(
    ("stdin", "words"),
    [
        (None, "standard input, which is closed"),
        (io.TextIOWrapper(io.BytesIO(b"ab\xff")), "not UTF-8: invalid start byte at byte 2"),
    ],
)
def test_a_prompt_that_standard_input_does_not_have_is_a_usage_error(trained, monkeypatch, stdin, words):
    monkeypatch.setattr(sys, "stdin", stdin)
    assert words in clear_message(gpt2tui("sample", trained[0], "--prompt", "-"), 2)


def test_a_wrong_prompt_is_not_repeated_at_length(trained):
    message = clear_message(gpt2tui("sample", trained[0], "--prompt", "é" * 150_000), 2)
    assert message.startswith("gpt2tui: --prompt: a text of 150,000 characters is not")
    assert len(message) < 200
    assert "which is not UTF-8" in clear_message(gpt2tui("sample", trained[0], "--prompt", "\udc80"), 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(trained, tmp_path, value):
    import torch
    from safetensors.torch import load_file, save_file

    (tmp_path / "model").mkdir()
    for file in (trained[0] / "checkpoints" / "step-00000012").glob("*tokenizer*"):
        shutil.copy(file, tmp_path / "model")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(trained[0] / "checkpoints" / "step-00000012" / name, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"][0, 0] = torch.tensor(value)
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    message = clear_message(gpt2tui("sample", tmp_path / "model"), 4)
    assert "h.1.mlp.c_fc.weight holds NaN or infinite numbers" in message
