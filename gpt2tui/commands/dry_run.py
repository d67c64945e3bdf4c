"""`gpt2tui --headless --dry-run`: everything that can be known before the first step."""

import argparse
import sys
from dataclasses import dataclass

from gpt2tui import runs
from gpt2tui.commands.train import load_preset, print_json
from gpt2tui.data import hub
from gpt2tui.data.corpora import WIKITEXTS, open_corpus
from gpt2tui.data.corpus_check import check_beginning, check_tokens, check_vocabulary
from gpt2tui.data.token_store import find_prepared
from gpt2tui.device import choose_device, choose_precision
from gpt2tui.device_speed import measure
from gpt2tui.errors import DataError
from gpt2tui.estimate import as_dict, estimate, report
from gpt2tui.folders import cache_folder
from gpt2tui.launch import resumed_preset
from gpt2tui.preset_files import LoadedPreset, check, dumps, shipped_folder
from gpt2tui.terminal_text import sanitize

CHARACTERS_OF_A_TEXT = 128  # stands for a vocabulary that only the corpus can tell: ASCII, generously


@dataclass(frozen=True)
class DataState:
    """What is known of the corpus without downloading or preparing it."""

    source: str
    state: str
    train_tokens: int | None = None
    vocab_size: int | None = None


def dry_run(options: argparse.Namespace) -> int:
    """Prints the resolved preset's cost and the state of its data; trains, downloads and writes nothing."""
    loaded = _loaded(options)
    preset = loaded.preset
    device = choose_device(preset.training.device)
    data = look_at_data(loaded, window=preset.training.sequence_length + 1)
    if data.vocab_size is not None:
        check_vocabulary(preset, data.vocab_size)
    speed = measure(device, choose_precision(preset, device))
    known = data.vocab_size or preset.known_vocab_size
    vocab_size = known or CHARACTERS_OF_A_TEXT
    costs = estimate(preset, vocab_size=vocab_size, train_tokens=data.train_tokens, device=speed)
    if options.json:
        print_json(
            {
                "preset": loaded.name,
                "layers": [str(path) for path in loaded.layers],
                "resolved": preset.model_dump(),
                "estimate": as_dict(costs),
                "vocab_size": vocab_size,
                "vocab_size_is_exact": known is not None,
                "data": vars(data),
            }
        )
        return 0
    print(f"preset      {loaded.name}: {sanitize(preset.description, keep_newlines=False)}")
    print(f"corpus      {sanitize(data.source)}: {sanitize(data.state)}")
    for line in report(costs):
        print(line)
    if known is None:
        print(f"            a vocabulary of {CHARACTERS_OF_A_TEXT} characters is assumed until the corpus is read")
    print("\n" + sanitize(dumps(preset)), file=sys.stderr, end="")
    return 0


def look_at_data(loaded: LoadedPreset, window: int = 1) -> DataState:
    """Checks the corpus as far as that needs no network and no preparation.

    Raises DataError when files are missing, their first blocks are not UTF-8, hold no text, or a split is certainly
    shorter than `window` tokens. Only of a shipped preset that names a file for its user to bring is the absence told
    instead of raised.
    """
    preset = loaded.preset
    source, streaming = preset.data.source, preset.data.streaming
    if prepared := find_prepared(preset, cache_folder()):
        check_tokens(source, len(prepared.train), len(prepared.validation), window, streaming)
        return DataState(source, "prepared", len(prepared.train), prepared.tokenizer.vocab_size)
    if source in WIKITEXTS or source.startswith(hub.PREFIX):
        return DataState(source, "read from the Hugging Face Hub, or its local cache, when training begins")
    try:
        corpus = open_corpus(preset.data)
    except DataError as error:
        shipped = [path for path in loaded.layers if path.parent == shipped_folder()]
        if any(check(path).preset.data.source == source for path in shipped):
            return DataState(source, f"not here yet: {error}")
        raise
    check_beginning(corpus, window, streaming)
    size = corpus.size("train")
    return DataState(source, "found" if size is None else f"found, {size / 1e6:,.1f} MB of text for training")


def _loaded(options: argparse.Namespace) -> LoadedPreset:
    """The preset of the command line; with --resume the run's own, under what --preset and --set change."""
    if not options.resume:
        return load_preset(options)
    run = runs.find(options.resume)
    return resumed_preset(run, runs.resume_point(run), options.preset, options.overrides)[0]
