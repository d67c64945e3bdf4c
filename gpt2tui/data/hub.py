"""Hugging Face data sets as a corpus: from the Hub, its cache, or a local folder."""

import contextlib
import errno
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2tui.data.corpus import Corpus, Position, Split, digest
from gpt2tui.data.row_content import RowContent, left_out_notice, missing_column, row_content
from gpt2tui.data.rows import RowCorpus, RowSource
from gpt2tui.errors import DataError, ResourceError
from gpt2tui.preset.schema import DataTable

PREFIX = "hf:"
WIKITEXTS = ("wikitext-103", "wikitext-2")
WIKITEXT = "Salesforce/wikitext"
_ROWS_AT_ONCE = 256
_PROBE_SECONDS = 8.0
_WITHOUT_NETWORK = "connect to the network once, or use local files or data.source = python-stdlib"


def open_hub(table: DataTable) -> Corpus:
    """The corpus of `wikitext-103`, `wikitext-2` or `hf:<id>[:<config>]`, where <id> may be a local folder.

    Without a network the copy in the cache of `datasets` is used, if there is one. Raises DataError
    otherwise, within seconds, and for names, configurations and columns that do not exist.
    """
    dataset, config = _names(table.source)
    import datasets

    _silence()
    folder = _folder(dataset)
    is_local = folder.is_dir()
    offline = not is_local and not hub_is_reachable()
    state = _state(folder) if is_local else ""
    # Left to itself, `datasets` does not notice when files of a local folder change.
    cache = Path(datasets.config.HF_DATASETS_CACHE, f"local-{state}") if is_local else None
    with _offline() if offline else contextlib.nullcontext(), _translated(table.source, offline):
        builder = datasets.load_dataset_builder(str(folder) if is_local else dataset, config, cache_dir=cache)
        if table.streaming:
            splits = builder.as_streaming_dataset()
        else:
            builder.download_and_prepare()
            splits = builder.as_dataset()
    if "train" not in splits:
        raise DataError(f"{table.source} has no train split, only {', '.join(splits)}; choose another data set")
    # The last folders of the cache name the configuration, the version and a hash of the data.
    fingerprint = digest(table.source, state, *Path(builder.cache_dir).parts[-3:])
    source: RowSource = HubRows(table.source, splits, row_content(table), fingerprint)
    if dataset == WIKITEXT:
        source = WikiTextArticles(source)
    elif config in [f"{name}-raw-v1" for name in WIKITEXTS]:  # a copy of it, whose rows are lines too
        source = WikiTextArticles(source)
        source.fingerprint = digest(fingerprint, "articles")
    corpus = RowCorpus(source, table.validation_fraction, table.streaming)
    if offline:
        corpus.notices = (f"the Hugging Face Hub cannot be reached: using the cached copy of {table.source}",)
    return corpus


def table_rows(name: str, splits: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows, with all their columns, of the first of these splits that a data set has; it is downloaded at once.

    `name` is <id>[:<config>], with or without `hf:`; <id> may be a local folder. Without a network the cached copy is
    used. Raises DataError as `open_hub` does, and where the data set has none of the splits.
    """
    dataset, config = _names(PREFIX + name.removeprefix(PREFIX))
    import datasets

    _silence()
    folder = _folder(dataset)
    offline = not folder.is_dir() and not hub_is_reachable()
    with _offline() if offline else contextlib.nullcontext(), _translated(name, offline):
        found = datasets.load_dataset(str(folder) if folder.is_dir() else dataset, config)
        split = next((split for split in splits if split in found), None)
        if split is None:
            raise DataError(f"{name} has no split {' or '.join(splits)}, only {', '.join(found)}")
        return iter(found[split])


class HubRows(RowSource):
    """The rows of a `datasets` data set, memory-mapped or streaming."""

    def __init__(self, name: str, splits: Mapping[str, Any], content: RowContent, fingerprint: str) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.has_validation = "validation" in splits
        self.has_test = "test" in splits
        self._splits = splits
        self.content = content
        self._left_out: dict[Split, tuple[int, int, int]] = {}  # rows, left out, the number of the first of those
        self._streaming = not hasattr(splits["train"], "num_rows")
        self._check_columns()

    def size(self, split: Split) -> int | None:
        """The size of all columns in memory, as the data set's description has it."""
        described = (self._splits["train"].info.splits or {}).get(split)
        return None if described is None else described.num_bytes or None

    def reading_notices(self) -> list[str]:
        """How many rows of prompts and answers are left out, of the splits that have been read to their ends."""
        return [
            left_out_notice(f"{self.name} ({split})", self.content, rows, left_out, f"first row {first}")
            for split, (rows, left_out, first) in self._left_out.items()
            if left_out and self.content.is_example
        ]

    def rows(self, split: Split, start: Position = None) -> Iterator[tuple[str, Position]]:
        """A position is a row's number; with streaming, the data set's state and a number of rows after it."""
        data = self._splits[split].select_columns(list(self.content.columns))
        with _translated(self.name, offline=False):
            yield from self._streamed(data, start) if self._streaming else self._mapped(data, split, start)

    def _mapped(self, data: Any, split: Split, start: Position) -> Iterator[tuple[str, Position]]:
        number, left_out, first = start or 0, 0, 0
        for batch in data.select(range(number, data.num_rows)).iter(batch_size=_ROWS_AT_ONCE):
            for values in zip(*(batch[column] for column in self.content.columns), strict=True):
                number += 1
                text = self._encoded(values, number)
                if text is None:
                    left_out, first = left_out + 1, first or number
                yield text or "", number
        if not start:
            self._left_out[split] = number, left_out, first

    def _encoded(self, values: Sequence[Any], number: int) -> str | None:
        try:
            return self.content.encode(values)
        except ValueError as error:
            raise DataError(f"{self.name}, row {number}, has in column {self.content.columns[0]} {error}") from None

    def _streamed(self, data: Any, start: Position) -> Iterator[tuple[str, Position]]:
        state, skipped = start or (None, 0)
        if state is not None:
            data.load_state_dict(state)
        after = 0
        for row in data:
            after += 1
            if after == 1:
                self._refuse_without_position(data)
            is_new = after > skipped
            if after == _ROWS_AT_ONCE:
                # Taking the state is slow, so it is taken now and then, and rows after it are counted.
                state, after, skipped = data.state_dict(), 0, 0
            if is_new:
                yield self.content.encode([row[column] for column in self.content.columns]) or "", [state, after]

    def _refuse_without_position(self, data: Any) -> None:
        """Raises DataError for a stream whose position cannot be saved, from which a run could not be resumed."""
        try:
            if data.state_dict() is not None:
                return
            reason = "it has none"
        except NotImplementedError as error:
            reason = str(error)
        raise DataError(
            f"{self.name} cannot be streamed: its position cannot be saved ({reason}), so that a run could not be "
            "resumed; leave out data.streaming"
        )

    def _check_columns(self) -> None:
        train = self._splits["train"]
        with _translated(self.name, offline=False):
            features: dict[str, Any] = train.features or next(iter(train), {})
        for column in self.content.columns:
            if column not in features:
                raise missing_column(self.name, column, self.content, list(features))
            kind = getattr(features[column], "dtype", None if self.content.is_example else "string")
            if self.content.are_texts and kind not in ("string", "large_string"):
                raise DataError(
                    f"{self.name} has {kind or 'lists'} in column {column}, not text; choose another "
                    f"{self.content.setting}"
                )


def _folder(name: str) -> Path:
    # Unlike Path.expanduser, this leaves the ~ of an unknown user alone.
    return Path(os.path.expanduser(name))  # noqa: PTH111


def is_remote(source: str) -> bool:
    """Whether the source is a data set that lives on the Hub, not on this machine."""
    if not source.startswith(PREFIX):
        return source in WIKITEXTS
    spec = source.removeprefix(PREFIX)
    return not any(_folder(name).is_dir() for name in (spec, spec.rpartition(":")[0]) if name)


def cached_bytes(source: str) -> int:
    """The bytes of a data set of the Hub in the download cache, incomplete files included."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE, f"datasets--{_names(source)[0].replace('/', '--')}", "blobs")
    sizes = 0
    for path in folder.glob("*"):
        with contextlib.suppress(OSError):  # renamed when it is complete
            sizes += path.stat().st_size
    return sizes


def _names(source: str) -> tuple[str, str | None]:
    """The data set's id or folder, and its configuration."""
    if source in WIKITEXTS:
        return WIKITEXT, f"{source}-raw-v1"
    spec = source.removeprefix(PREFIX)
    if spec and _folder(spec).is_dir():
        return spec, None
    dataset, separator, config = spec.rpartition(":")
    if not separator:
        dataset, config = spec, ""
    if not dataset:
        raise DataError(f"data.source {source!r} names no data set: write hf:<id> or hf:<id>:<configuration>")
    if dataset.startswith(("/", "./", "../", "~")) and not _folder(dataset).is_dir():
        raise DataError(f"the folder {dataset} does not exist; check data.source")
    return dataset, config or None


def _state(folder: Path) -> str:
    """A fingerprint of a folder's files by name, size and time of change."""
    states = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return digest(*(f"{path.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}" for path, stat in states))


def _silence() -> None:
    """Turns off progress bars and log lines, which would be drawn over the screen."""
    import datasets
    import huggingface_hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    datasets.disable_progress_bars()
    disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    huggingface_hub.logging.set_verbosity(logging.CRITICAL)


def hub_is_reachable() -> bool:
    """Whether the Hub answers at all. `datasets` alone would try for 23 seconds without a network."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    answered = threading.Event()

    def probe() -> None:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # an answer all the same
        except OSError:
            return
        answered.set()

    # A name lookup has no time limit, so it runs in a thread that is abandoned when it takes too long.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return answered.is_set()


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keeps `datasets` from trying the network; it then looks into its cache at once."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _translated(source: str, offline: bool) -> Iterator[None]:
    """Turns what `datasets` raises, which is of many libraries' types, into one clear sentence."""
    from datasets.exceptions import DatasetNotFoundError

    try:
        yield
    except (DataError, ResourceError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(f"no space left on the disk to download {source}: free some, or set HF_HOME") from error
        if offline:
            raise DataError(
                f"{source} is not in the cache and the Hugging Face Hub cannot be reached: {_WITHOUT_NETWORK}"
            ) from error
        if isinstance(error, DatasetNotFoundError):
            raise DataError(
                f"{source} does not exist on the Hugging Face Hub, or needs a login (hf auth login): {reason}"
            ) from error
        if isinstance(error, ConnectionError):
            raise DataError(f"{source} cannot be downloaded ({reason}): {_WITHOUT_NETWORK}") from error
        raise DataError(f"{source} cannot be loaded: {reason}") from error


# ---- WikiText (Merity et al. 2016), whose rows are lines


class WikiTextArticles(RowSource):
    """Lines joined to one row per article, which begins with its title, ` = Title = `."""

    def __init__(self, lines: RowSource) -> None:
        self.name = lines.name
        self.fingerprint = lines.fingerprint
        self.has_validation = lines.has_validation
        self.has_test = lines.has_test
        self.content = lines.content
        self._lines = lines

    def size(self, split: Split) -> int | None:
        """The size of the lines."""
        return self._lines.size(split)

    def rows(self, split: Split, start: Position = None) -> Iterator[tuple[str, Position]]:
        """A position is that of the title's line."""
        article: list[str] = []
        before, previous, has_text = start, "", False
        for line, after in self._lines.rows(split, start):
            if has_text and not previous.strip() and is_article_title(line):
                yield "".join(article), before
                article, has_text = [], False
            # The data set stores empty lines as nothing; the published files have a space and a line end there.
            article.append(line or " \n")
            has_text = has_text or bool(line.strip())
            before, previous = after, line
        if article:
            yield "".join(article), before


def is_article_title(line: str) -> bool:
    """Whether the line is a heading of the first level; deeper ones have more equals signs."""
    inside = line.strip()
    return len(inside) > 4 and inside.startswith("= ") and inside.endswith(" =") and not inside.startswith("= =")
