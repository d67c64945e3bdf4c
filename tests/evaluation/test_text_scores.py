"""BLEU, chrF, ROUGE, variety and repetition: by hand, and against implementations that nobody here wrote."""

import math
import sys

import pytest

from gpt2tui.errors import UsageError
from gpt2tui.evaluation.text_scores import GROUPS, MEANINGS, distinct, repetition, require_packages, text_scores

WRITTEN = ["the cat sat on the mat", "it rained all day and all night"]
REFERENCES = ["the cat sat on a mat", "it rained all night and all day long"]


def test_scores_computed_by_hand():
    scores = text_scores(WRITTEN[:1], REFERENCES[:1]).metrics
    # 5 of 6 words ("the" counts once), 3 of 5 pairs, 2 of 4 triples, 1 of 3 quadruples; no text is shorter.
    assert scores["bleu"] == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert scores["rouge_1"] == pytest.approx(5 / 6)
    assert scores["rouge_2"] == pytest.approx(3 / 5)
    assert scores["rouge_l"] == pytest.approx(5 / 6)  # the cat sat on mat
    assert scores["distinct_1"] == pytest.approx(5 / 6)
    assert scores["distinct_2"] == 1.0


def test_chrf_computed_by_hand():
    # One of two characters, none of one pair; there are no longer n-grams. Precision and recall are both a quarter.
    assert text_scores(["ab"], ["ac"], ["chrf"]).metrics == {"chrf": pytest.approx(25.0)}


def test_rouge_does_not_stem():
    assert text_scores(["cats"], ["cat"], ["rouge"]).metrics["rouge_1"] == 0.0


def test_bleu_equals_nltks_over_several_documents():
    from nltk.translate.bleu_score import corpus_bleu  # slow to import

    expected = corpus_bleu([[text.split()] for text in REFERENCES], [text.split() for text in WRITTEN])
    assert text_scores(WRITTEN, REFERENCES, ["bleu"]).metrics["bleu"] == pytest.approx(100 * expected)


def test_variety_and_repetition():
    from nltk.util import ngrams

    words = [text.split() for text in ["a b c d a b c d", "x y z", "a a a a a a"]]
    for n in (1, 2):
        every = [gram for each in words for gram in ngrams(each, n)]
        assert distinct(words, n) == len(set(every)) / len(every)
    # abcd bcda cdab dabc abcd: one of five repeats; x y z has no 4-gram; of three times aaaa two repeat.
    assert repetition(words) == pytest.approx((1 / 5 + 2 / 3) / 2)
    assert math.isnan(repetition([["x", "y", "z"]]))
    assert math.isnan(distinct([], 1))


def test_how_a_package_measures_is_named():
    signatures = text_scores(WRITTEN, REFERENCES).signatures
    assert signatures["bleu"].startswith("sacrebleu nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert signatures["chrf"].startswith("sacrebleu nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert signatures["rouge_l"] == "rouge-score, without stemming"


def test_every_score_has_a_meaning():
    names = [name for names in GROUPS.values() for name in names]
    assert list(text_scores(WRITTEN, REFERENCES).metrics) == names == list(MEANINGS)


@pytest.mark.parametrize("package", ["sacrebleu", "rouge_score"])
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("gpt2tui.evaluation.text_scores.find_spec", lambda name: None if name == package else object())
    with pytest.raises(UsageError) as refused:
        require_packages(GROUPS)
    assert package.replace("_", "-") in str(refused.value)
    assert "pip install 'gpt2tui[metrics]'" in str(refused.value)
    assert "\n" not in str(refused.value)
    require_packages(["distinct", "repetition"])  # which need none
