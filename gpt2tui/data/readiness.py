"""What is known of a corpus before it is downloaded or prepared: for estimates, dry runs and the Presets screen."""

from dataclasses import dataclass, replace

from gpt2tui.data import hub, token_files
from gpt2tui.data.corpora import open_corpus
from gpt2tui.data.corpus_check import check_beginning, check_tokens
from gpt2tui.data.token_store import find_prepared
from gpt2tui.errors import DataError
from gpt2tui.preset.files import LoadedPreset, check, shipped_folder
from gpt2tui.system.files import cache_folder
from gpt2tui.system.numbers import byte_size

ASSUMED_CHAR_VOCAB_SIZE = 128  # where the corpus must be read to know its characters: ASCII, generously


@dataclass(frozen=True)
class DataState:
    """What is known of the corpus without downloading or preparing it."""

    source: str
    state: str
    train_tokens: int | None = None
    vocab_size: int | None = None
    share: float = 1.0
    """Of the training sequences, those that are of this source."""
    mix: "tuple[DataState, ...]" = ()
    """The state of each source of a mix."""


def check_data(loaded: LoadedPreset, window: int = 1) -> DataState:
    """Checks the corpus as far as that needs no network and no preparation.

    Raises DataError when files are missing, their first blocks are not UTF-8 or hold no text, or a split is certainly
    shorter than `window` tokens. A shipped preset may name a file that the user has yet to download: then `state` says
    so and nothing is raised.
    """
    preset = loaded.preset
    if not preset.data.mix:
        return _check_source(loaded, window)
    prepared = find_prepared(preset, cache_folder())
    total = sum(each.weight for each in preset.data.mix)
    parts = []
    for number, each in enumerate(preset.data.mix):
        if prepared:
            part = DataState(each.source, "prepared", len(prepared.mix[number].train))
        else:
            part = _check_source(replace(loaded, preset=preset.of_source(each.source)), window)
        parts.append(replace(part, share=each.weight / total))
    missing = next((f"{part.source}: {part.state}" for part in parts if part.state.startswith("not here")), None)
    return DataState(
        preset.data.source,
        missing or ("prepared" if prepared else f"{len(parts)} sources, not all of them prepared"),
        len(prepared.train) if prepared else None,
        prepared.tokenizer.vocab_size if prepared else None,
        mix=tuple(parts),
    )


def _check_source(loaded: LoadedPreset, window: int) -> DataState:
    """`check_data` of a preset with one source."""
    preset = loaded.preset
    source, streaming = preset.data.source, preset.data.streaming
    if prepared := find_prepared(preset, cache_folder()):
        check_tokens(source, len(prepared.train), len(prepared.validation), window, streaming)
        return DataState(source, "prepared", len(prepared.train), prepared.tokenizer.vocab_size)
    if source in hub.WIKITEXTS or source.startswith(hub.PREFIX):
        return DataState(source, "read from the Hugging Face Hub, or its local cache, when training begins")
    try:
        if token_files.find(source):
            token_files.refuse_other_settings(preset.data, None)
        corpus = open_corpus(preset.data)
    except DataError as error:
        shipped = [path for path in loaded.layers if path.parent == shipped_folder()]
        if any(source in check(path).preset.data.sources for path in shipped):
            return DataState(source, f"not here yet: {error}")
        raise
    # Examples fill up windows of their own, so there need only be some.
    check_beginning(corpus, 1 if preset.data.has_examples else window, streaming)
    size = corpus.size("train")
    return DataState(source, "found" if size is None else f"found, {_size(size)} of text for training")


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else byte_size(size)
