"""Scores of generated texts: against references BLEU, chrF and ROUGE, alone their variety and repetition.

BLEU and chrF are sacrebleu's, ROUGE is that of the package rouge-score, both of the extra `metrics`.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from gpt2tui.errors import UsageError

REPEATED = 4
"""The length of the n-grams whose repetition is counted."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "bleu": ("bleu",),
    "chrf": ("chrf",),
    "rouge": ("rouge_1", "rouge_2", "rouge_l"),
    "distinct": ("distinct_1", "distinct_2"),
    "repetition": ("repetition",),
}
"""The scores that are measured together, by the name under which they are asked for."""

MEANINGS: Mapping[str, str] = {
    "bleu": "over all documents, 0 to 100 (Papineni et al. 2002)",
    "chrf": "over all documents, F-score of character n-grams, 0 to 100 (Popovic 2015)",
    "rouge_1": "F-score of words, mean over the documents, 0 to 1 (Lin 2004)",
    "rouge_2": "F-score of pairs of words, mean over the documents, 0 to 1",
    "rouge_l": "F-score of the longest common subsequence of words, mean over the documents, 0 to 1",
    "distinct_1": "different words divided by all words of the completions (Li et al. 2016); words as split at spaces",
    "distinct_2": "different pairs of words divided by all pairs",
    "repetition": f"share of the {REPEATED}-grams of words that repeat an earlier one of the same completion, mean "
    "over the completions that have any (seq-rep-4, Welleck et al. 2020)",
}
_PACKAGES = {"bleu": "sacrebleu", "chrf": "sacrebleu", "rouge": "rouge_score"}


@dataclass(frozen=True)
class TextScores:
    """Scores by name, and what the packages call the way in which they measure."""

    metrics: Mapping[str, float]
    signatures: Mapping[str, str]


def require_packages(groups: Iterable[str]) -> None:
    """Raises UsageError, with the command that installs them, when packages for these scores are missing."""
    wanted = sorted({_PACKAGES[group] for group in groups if group in _PACKAGES})
    missing = [name.replace("_", "-") for name in wanted if find_spec(name) is None]
    if missing:
        needed = f"{', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise UsageError(
            f"BLEU, chrF and ROUGE need {needed}: python -m pip install 'gpt2tui[metrics]', or in a checkout uv sync "
            "--extra metrics"
        )


def text_scores(
    completions: Sequence[str], references: Sequence[str], groups: Collection[str] = tuple(GROUPS)
) -> TextScores:
    """The scores of `completions`, each against the reference of the same index.

    A score that is not defined, as the repetition in texts of three words, is NaN. Raises UsageError as
    `require_packages` does, ValueError without completions or with another number of references.
    """
    if not completions or len(completions) != len(references):
        raise ValueError(f"{len(completions)} completions, {len(references)} references")
    require_packages(groups)
    metrics: dict[str, float] = {}
    signatures: dict[str, str] = {}
    if "bleu" in groups or "chrf" in groups:
        from sacrebleu.metrics import BLEU, CHRF

        for name, scorer in (("bleu", BLEU()), ("chrf", CHRF())):
            if name in groups:
                metrics[name] = scorer.corpus_score(completions, [references]).score
                signatures[name] = f"sacrebleu {scorer.get_signature()}"
    if "rouge" in groups:
        metrics |= _rouge(completions, references)
        signatures |= dict.fromkeys(GROUPS["rouge"], "rouge-score, without stemming")
    if "distinct" in groups:
        words = [text.split() for text in completions]
        metrics |= {f"distinct_{n}": distinct(words, n) for n in (1, 2)}
    if "repetition" in groups:
        metrics["repetition"] = repetition([text.split() for text in completions])
    return TextScores(metrics, signatures)


def _rouge(completions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    names = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
    scorer = RougeScorer(list(names.values()), use_stemmer=False)
    scores = [scorer.score(reference, text) for text, reference in zip(completions, references, strict=True)]
    return {ours: math.fsum(each[theirs].fmeasure for each in scores) / len(scores) for ours, theirs in names.items()}


def distinct(texts: Iterable[Sequence[str]], n: int) -> float:
    """The different n-grams of all texts divided by their number; NaN where no text has n words."""
    found = [gram for words in texts for gram in n_grams(words, n)]
    return len(set(found)) / len(found) if found else math.nan


def repetition(texts: Iterable[Sequence[str]], n: int = REPEATED) -> float:
    """1 - different n-grams / n-grams of a text, the mean over the texts of n words or more; NaN where none is."""
    shares = [1 - distinct([words], n) for words in texts if len(words) >= n]
    return math.fsum(shares) / len(shares) if shares else math.nan


def n_grams(words: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """The n words from each place on."""
    return zip(*(words[start:] for start in range(n)), strict=False)
