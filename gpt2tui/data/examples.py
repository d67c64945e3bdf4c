"""Prompts and answers as a corpus, and how they are laid into windows.

The tokens are windows of T = sequence_length tokens after one end-of-text token. Each window holds whole examples and
is filled up with end-of-text tokens that do not count. The tokens of an example are, for each of its turns, the prompt
in the template, the answer, and end of text. A mask says which tokens the loss is over: those of the answers with
their end of text, or with loss_on = "all" every token of the examples.

As in pretraining, a token attends to everything before it in its window: to the examples that precede its own too,
which end-of-text tokens set apart. No answer is ever without its prompt.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from gpt2tui.data.corpus import Corpus, Position, Split, TextPiece, digest
from gpt2tui.data.row_content import Turn, decoded, row_content
from gpt2tui.data.rows import RowCorpus
from gpt2tui.data.tokenizer_kinds import Tokenizer, Tokens
from gpt2tui.errors import DataError
from gpt2tui.preset.schema import DataTable
from gpt2tui.preset.template import Template

Mask = npt.NDArray[np.uint8]
"""1 where a token counts in the loss, else 0."""

EXAMPLES_AT_ONCE = 1024
OPEN_WINDOWS = 64
"""Windows that are filled at the same time: the more, the fewer tokens fill them up."""


class ExampleCorpus(Corpus):
    """The rows of a table of prompts and answers. As text, an example is in its template."""

    def __init__(self, rows: RowCorpus, table: DataTable) -> None:
        assert table.example_template is not None
        self.name = rows.name
        self.has_test = rows.has_test
        self.template = table.example_template
        self.counts_prompts = table.loss_on == "all"
        self.fingerprint = digest(rows.fingerprint, json.dumps([row_content(table).columns, self.template.text]))
        self.notices = rows.notices
        self._rows = rows

    def pieces(self, split: Split, start: Position = None) -> Iterator[TextPiece]:
        """The examples as text, for a tokenizer to be trained on and for checks; always from the start."""
        assert start is None
        for turns in self.examples(split):
            yield TextPiece("".join(parts_of(turns, self.template)), True, None)

    def examples(self, split: Split) -> Iterator[list[Turn]]:
        """The examples of a split in their fixed order. Raises DataError when they cannot be read."""
        return map(decoded, self._rows.documents(split))

    def size(self, split: Split) -> int | None:
        """About how many bytes the split has."""
        return self._rows.size(split)

    def reading_notices(self) -> list[str]:
        """Sentences about the rows that have been read."""
        return self._rows.reading_notices()


def parts_of(turns: Iterable[Turn], template: Template) -> list[str]:
    """Prompts and answers in turn, as the model reads and writes them; end of text follows each answer."""
    return [part for prompt, answer in turns for part in (template.asked(prompt), template.answered(answer))]


def tokens_of(turns: Iterable[Turn], prompt: str, template: Template, tokenizer: Tokenizer) -> list[int]:
    """The tokens of a conversation that ends in a prompt: as in training, after an end of text."""
    ids = [tokenizer.eot]
    for number, part in enumerate([*parts_of(turns, template), template.asked(prompt)]):
        ids += [*tokenizer.encode(part), *([tokenizer.eot] if number % 2 else [])]
    return ids


@dataclass
class ExampleLayout:
    """Lays the examples of a split into windows of T tokens; counts what it does."""

    corpus: ExampleCorpus
    split: Split
    tokenizer: Tokenizer
    T: int
    examples: int = 0
    cut: int = 0
    """Examples whose end is cut off, because they are longer than a window."""
    left_out: int = 0
    """Examples without an answer in the window that their prompts fill."""
    text_bytes: int = 0
    """UTF-8 bytes of all examples in their template."""

    def windows(self) -> Iterator[tuple[Tokens, Mask]]:
        """The tokens and their mask in parts, shape (n,) each: one end-of-text token, then a window (T,) at a time.

        Raises DataError when there is no window.
        """
        eot = self.tokenizer.eot
        yield np.array([eot], dtype=np.uint32), np.zeros(1, dtype=np.uint8)
        found = False
        for tokens, mask in _packed(self._examples(), self.T):
            found = True
            missing = self.T - len(tokens)
            yield np.pad(tokens, (0, missing), constant_values=eot), np.pad(mask, (0, missing))
        if not found:
            raise DataError(
                f"{self.corpus.name}: no {self.split} example fits into a window of {self.T:,} tokens "
                "(training.sequence_length), which its prompt alone fills; take a longer one"
            )

    def whole(self) -> tuple[Tokens, Mask]:
        """All windows at once. Raises DataError when there is none."""
        tokens, masks = zip(*self.windows(), strict=True)
        return np.concatenate(tokens), np.concatenate(masks)

    def _examples(self) -> Iterator[tuple[Tokens, Mask]]:
        """The tokens and the mask of each example, at most T of them; the last token is end of text."""
        eot = np.array([self.tokenizer.eot], dtype=np.uint32)
        examples = self.corpus.examples(self.split)
        while batch := list(islice(examples, EXAMPLES_AT_ONCE)):
            parts = [parts_of(turns, self.corpus.template) for turns in batch]
            texts = [text for each in parts for text in each]
            encoded = iter(self.tokenizer.encode_documents(texts, threads=os.cpu_count() or 1))
            for each in parts:
                self.examples += 1
                self.text_bytes += sum(len(text.encode()) for text in each)
                tokens: list[Tokens] = []
                counted: list[Mask] = []
                for number in range(len(each)):
                    ids = next(encoded)
                    ids = np.append(ids, eot) if number % 2 else ids  # after an answer
                    tokens.append(ids.astype(np.uint32))
                    counted.append(np.full(len(ids), number % 2, dtype=np.uint8))
                if fitting := self._fitting(np.concatenate(tokens), np.concatenate(counted)):
                    yield fitting

    def _fitting(self, tokens: Tokens, answers: Mask) -> tuple[Tokens, Mask] | None:
        """The example, cut to T tokens if it is longer; None where no token of an answer is left."""
        mask = np.ones_like(answers) if self.corpus.counts_prompts else answers
        if len(tokens) <= self.T:
            return tokens, mask
        last = self.T - 1  # an end of text that does not count, because the answer does not end there
        if not answers[:last].any():
            self.left_out += 1
            return None
        self.cut += 1
        return np.append(tokens[:last], tokens[-1:]), np.append(mask[:last], np.zeros(1, dtype=np.uint8))


def layout_notices(layouts: Sequence[ExampleLayout]) -> list[str]:
    """Sentences about examples that are cut or left out, of all splits together."""
    name, T = layouts[0].corpus.name, layouts[0].T
    examples, cut, left_out = (
        sum(getattr(each, count) for each in layouts) for count in ("examples", "cut", "left_out")
    )
    window = f"a window of {T:,} tokens (training.sequence_length)"
    notices = []
    if cut:
        notices.append(f"{cut:,} of {examples:,} examples of {name} are longer than {window}: their ends are cut off")
    if left_out:
        notices.append(
            f"{left_out:,} of {examples:,} examples of {name} are left out: their prompts alone fill {window}"
        )
    return notices


def _packed(examples: Iterable[tuple[Tokens, Mask]], T: int) -> Iterator[tuple[Tokens, Mask]]:
    """Whole examples joined to at most T tokens: each is put into the first open window that has room for it."""
    windows: list[list[tuple[Tokens, Mask]]] = []
    lengths: list[int] = []
    for example in examples:
        length = len(example[0])
        place = next((i for i, taken in enumerate(lengths) if taken + length <= T), None)
        if place is None:
            if len(windows) == OPEN_WINDOWS:
                fullest = lengths.index(max(lengths))
                lengths.pop(fullest)
                yield _joined(windows.pop(fullest))
            place = len(windows)
            windows.append([])
            lengths.append(0)
        windows[place].append(example)
        lengths[place] += length
    yield from map(_joined, windows)


def _joined(examples: Sequence[tuple[Tokens, Mask]]) -> tuple[Tokens, Mask]:
    tokens, masks = zip(*examples, strict=True)
    return np.concatenate(tokens), np.concatenate(masks)
