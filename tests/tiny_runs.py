"""A model of a few thousand parameters on a text of a few thousand bytes: a whole run in a second."""

import contextlib
import random
from dataclasses import replace

import pytest

from gpt2tui.data.token_store import prepare
from gpt2tui.errors import DivergedError
from gpt2tui.preset import files as preset_files
from gpt2tui.run import folder as runs
from gpt2tui.system.files import cache_folder
from gpt2tui.training.trainer import Trainer
from gpt2tui.training.update import Update

SETTINGS = (
    "model.n_positions=16",
    "model.n_embd=16",
    "model.n_layer=2",
    "model.n_head=2",
    "data.tokenizer=byte",
    "data.validation_fraction=0.2",
    "training.sequence_length=16",
    "training.batch_size=2",
    "training.num_iterations=12",
    "training.eval_frequency=4",
    "training.eval_tokens=64",
    "training.checkpoint_frequency=4",
    "training.keep_checkpoints=10",
    "training.compile=off",
    "training.device=cpu",
    "training.precision=fp32",
    "sampling.max_length=8",
    "schedule.name=cosine",
    "schedule.warmup_iterations=3",
    "optimizer.lr=0.01",
)


@contextlib.contextmanager
def folders_in(folder):
    """Runs, cache and configuration in `folder`, for fixtures that several tests share; yields its MonkeyPatch."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RUNS", "CACHE", "CONFIG"):
            patch.setenv(f"GPT2TUI_{name}", str(folder / name.lower()))
        yield patch


def corpus_file(folder):
    """A text of repeated words, the same each time."""
    words = random.Random(0).choices(["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"], k=900)
    path = folder / "words.txt"
    path.write_text("\n".join(" ".join(words[i : i + 9]) for i in range(0, len(words), 9)))
    return path


def options(folder, *overrides):
    """The `--set` values of a tiny run on a corpus in `folder`."""
    return [f"data.source={corpus_file(folder)}", *SETTINGS, *overrides]


def preset(folder, *overrides):
    return preset_files.load(["default"], options(folder, *overrides)).preset


def finish(generator):
    """What a generator returns."""
    try:
        while True:
            next(generator)
    except StopIteration as end:
        return end.value


def trainer(folder, *overrides, run=None, **arguments):
    loaded = preset(folder, *overrides)
    corpus = finish(prepare(loaded, cache_folder()))
    loaded = loaded.with_vocab_size(corpus.tokenizer.vocab_size)
    run = run or runs.create("tiny")
    return Trainer(run, loaded, corpus, preset_name="tiny", **arguments)


def exploding_after(monkeypatch, last_good, diverged):
    """Steps after `last_good` report a large loss, and the step after `diverged` that it is not a number."""
    begin = Update.begin

    class Exploded:
        def __init__(self, metrics):
            self.metrics = metrics

        def read(self):
            return replace(self.metrics.read(), train_loss=500.0)

    def exploding(self, micro_batches, iteration, *rest):
        if iteration == diverged:
            raise DivergedError("the loss is nan")
        metrics = begin(self, micro_batches, iteration, *rest)
        return Exploded(metrics) if iteration > last_good else metrics

    monkeypatch.setattr(Update, "begin", exploding)
