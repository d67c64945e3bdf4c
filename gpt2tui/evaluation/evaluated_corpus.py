"""The text that a model is evaluated on: of its own corpus, that of `--source`, or the file of `--text`."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gpt2tui.errors import DataError, UsageError
from gpt2tui.evaluation.report import Watcher
from gpt2tui.evaluation.request import EvaluationRequest

if TYPE_CHECKING:
    from gpt2tui.data.corpus import Corpus, Split
    from gpt2tui.data.tokenizer_kinds import Tokens
    from gpt2tui.generation import TextModel
    from gpt2tui.preset.schema import DataTable


class EvaluatedCorpus(NamedTuple):
    """A corpus, the splits to measure on, and whether the model was trained with it; None where that is unknown."""

    source: str
    corpus: "Corpus"
    splits: "list[Split]"
    is_own: bool | None


def open_evaluated_corpus(request: EvaluationRequest, model: "TextModel", watcher: Watcher) -> EvaluatedCorpus:
    """Opens the corpus, and warns of one that the model was not trained with.

    Raises UsageError where neither the model nor the request names a corpus, DataError for a split that it lacks.
    """
    from gpt2tui.data.corpora import hash_content, open_corpus

    table = _data_table(request, model)
    for done, _ in watcher.over(hash_content(table), "blocks hashed"):
        if not done:
            watcher.say(f"hashing {table.source}")
    corpus = open_corpus(table)
    if request.split == "test" and not corpus.has_test:
        raise DataError(f"{table.source} has no test split; measure with --split validation")
    splits: list[Split] = ["validation", "test"] if corpus.has_test else ["validation"]
    if request.split is not None:
        splits = [request.split]
    is_own = _is_own_corpus(model, corpus)
    if is_own is False and table.source in _sources_of(model):
        is_own = None  # a source of a mix: its validation text may be used, which is not recorded by itself
    if is_own is False:
        watcher.warn(
            f"{table.source} is not the text that {model.source} was trained with (the fingerprints differ): these are "
            "not its validation and test losses, and it may have been trained on parts of this text"
        )
    return EvaluatedCorpus(table.source, corpus, splits, is_own)


def _data_table(request: EvaluationRequest, model: "TextModel") -> "DataTable":
    """The corpus to measure on. Raises UsageError where neither the model nor the request names one."""
    from gpt2tui.preset import files as preset_files
    from gpt2tui.preset.schema import DataTable

    is_imported = model.saved is not None and model.saved.data_fingerprint == ""
    preset = preset_files.load_frozen(model.saved.folder / "preset.toml") if model.saved and not is_imported else None
    if preset is None and request.source is None:
        raise UsageError(
            f"{model.source} does not record what it was trained on; name a corpus with --source, or a file with --text"
        )
    table = preset.data if preset else DataTable()
    if table.mix and request.source is None:
        raise UsageError(
            f"{model.source} was trained on a mix; name one of its sources with --source: {', '.join(table.sources)}"
        )
    changes = {"source": request.source, "text_column": request.text_column}
    table = table.of_source(request.source) if request.source else table
    return table.model_copy(update={key: value for key, value in changes.items() if value is not None})


def _sources_of(model: "TextModel") -> list[str]:
    """The sources of the mix that a model was trained on; none where it was not on one."""
    from gpt2tui.preset import files as preset_files

    if model.saved is None:
        return []
    return [each.source for each in preset_files.load_frozen(model.saved.folder / "preset.toml").data.mix]


def _is_own_corpus(model: "TextModel", corpus: "Corpus") -> bool | None:
    """Whether the corpus is the one that the model was trained with; None where the model does not record it."""
    from gpt2tui.run import checkpoint

    if model.saved is None:
        return None
    fingerprint = checkpoint.read_json(model.saved.folder / "trainer.json").get("data_fingerprint")
    return None if not fingerprint else bool(fingerprint == corpus.fingerprint)


def text_tokens(path: str, model: "TextModel", watcher: Watcher) -> "Tokens":
    """The tokens of a text file, read as one document. Raises DataError where there are none to predict."""
    from gpt2tui.data.file_reading import blocks

    if model.saved is not None:
        watcher.warn(
            f"{path} is not compared with the text that {model.source} was trained with: this is not its "
            "validation loss, and it may have been trained on parts of this text"
        )
    tokens = model.tokenizer.encode_array("".join(blocks(Path(path))))
    if len(tokens) < 2:
        raise DataError(f"{path} has {len(tokens)} tokens; at least 2 are needed to predict one")
    return tokens
