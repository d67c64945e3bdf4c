"""Preparing a small corpus of text files, as the tests of token stores do."""

from gpt2tui.data.token_store import prepare
from gpt2tui.preset.schema import DataTable, ModelTable, Preset, TrainingTable

TEXTS = {f"{i:02}.txt": f"file {i} says: déjà vu\nand {i * i} more\n" * 20 for i in range(40)}


def preset(source, tokenizer="byte", vocab_size=None, sequence_length=8, **table):
    return Preset(
        model=ModelTable(vocab_size=vocab_size),
        data=DataTable(source=str(source), tokenizer=tokenizer, **table),
        training=TrainingTable(sequence_length=sequence_length),
    )


def run(preset, cache):
    """The prepared corpus, and the stages that were told."""
    stages = []
    generator = prepare(preset, cache)
    while True:
        try:
            stages.append(next(generator))
        except StopIteration as end:
            return end.value, stages


def built(stages):
    return any("tokenizing" in progress.stage for progress in stages)


def stores(cache):
    """What is in the cache, without the locks."""
    return sorted(path.name for path in (cache / "tokens").iterdir() if path.suffix != ".lock")
