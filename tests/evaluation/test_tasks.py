"""The tasks, against hand-computed values, transformers and, where it is installed, lm-evaluation-harness."""

import math
import random
import re

import pytest
import torch

from gpt2tui import generation
from gpt2tui.data import tokenizers
from gpt2tui.errors import DataError
from gpt2tui.evaluation.tasks import TASKS, Question, detokenized, encode_pair, is_best, pages, score, without_brackets
from tests.evaluation.random_gpt2 import logits, random_gpt2

LN_V = math.log(257)
HELLASWAG = {
    "activity_label": "Roof",
    "ctx_a": "A man sits.",
    "ctx_b": "he",
    "ctx": "A man sits. he",
    "endings": ["jumps.", "is [step] using wrap.", "runs off", "eats."],
    "label": 1,
}


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    """Gives each of 257 tokens the same probability."""
    return generation.load(str(random_gpt2(tmp_path_factory.mktemp("uniform"), scale=0.0)), "cpu", "fp32")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return random_gpt2(tmp_path_factory.mktemp("random"))


@pytest.fixture(scope="module")
def model(published):
    return generation.load(str(published), "cpu", "fp32")


def measured(model, task, rows):
    return TASKS[task].measure(model, rows, "fp32")


def test_a_uniform_model_knows_no_last_word_and_is_as_surprised_as_its_vocabulary_is_large(uniform):
    result = measured(uniform, "lambada", [{"text": "the lazy dog"}, {"text": "a fox"}])
    assert result.documents == 2
    assert result.metrics["acc"] == 0  # all tokens are equally probable, and ties count as wrong
    assert math.log(result.metrics["perplexity"]) == pytest.approx(4 * LN_V, rel=1e-6)  # " dog" and " fox"
    assert result.standard_errors["perplexity"] == pytest.approx(0, abs=1e-3)


def test_a_uniform_model_prefers_the_shortest_ending_and_ties_count_as_wrong(uniform):
    shortest = {**HELLASWAG, "label": 3}  # "eats." has 5 characters
    results = [measured(uniform, "hellaswag", [row]) for row in (HELLASWAG, shortest)]
    assert [result.metrics["acc"] for result in results] == [0, 1]
    # Per character, a space and n characters cost (n + 1) / n: the longest ending is the best.
    assert [result.metrics["acc_norm"] for result in results] == [1, 0]
    tie = {**shortest, "endings": ["jumps.", "is using.", "runs.", "eats."]}
    assert measured(uniform, "hellaswag", [tie]).metrics["acc"] == 0
    # The mean loss of a token is the same for all.
    assert measured(uniform, "hellaswag-completion", [shortest]).metrics == {"acc": 1, "acc_norm": 0}
    question = {"query": "What?", "choices": ["this", "that one"], "gold": 0}
    assert measured(uniform, "multiple-choice", [question]).metrics == {"acc": 0}


def test_the_standard_error_of_a_mean(uniform):
    rows = [{**HELLASWAG, "label": label} for label in (3, 3, 3, 0)]
    result = measured(uniform, "hellaswag", rows)
    assert result.metrics["acc"] == 0.75
    assert result.standard_errors["acc"] == pytest.approx(0.25)  # sqrt((3 * 0.25**2 + 0.75**2) / 3 / 4)


def test_words_bytes_and_tokens_of_wikitext_are_the_divisors(uniform):
    page = " = Fox = \n \n The fox , he said , ran 1 @,@ 000 miles . \n"
    text = detokenized(page)
    assert text == " = Fox =\n\nThe fox, he said, ran 1,000 miles.\n"
    result = measured(uniform, "wikitext", [{"page": page}])
    nats = len(text) * LN_V
    words = 17  # 15, and an empty one before the first and after the last space, as the harness splits
    assert len(page.split()) == 15
    assert math.log(result.metrics["word_perplexity"]) == pytest.approx(nats / words, rel=1e-6)
    assert result.metrics["token_perplexity"] == pytest.approx(257, rel=1e-5)
    assert result.metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(page), rel=1e-6)


def test_only_a_value_above_all_others_is_best():
    assert is_best([-1.0, -2.0], 0)
    assert not is_best([-1.0, -2.0], 1)
    assert not is_best([-1.0, -1.0], 0)
    assert not is_best([math.nan, math.nan], 0)


def summed(folder, context, continuation):
    """The log-probability of a continuation from transformers' logits, and whether it is the greedy one."""
    own = logits(folder, [*context, *continuation][:-1])[-len(continuation) :].log_softmax(-1)
    wanted = torch.tensor(list(continuation))
    return float(own.gather(-1, wanted[:, None]).sum()), bool((own.argmax(-1) == wanted).all())


def test_scores_equal_transformers_in_a_batch_of_unequal_lengths_and_beyond_the_context(published, model):
    pairs = [(b"The fox ", b"jumps"), (b"x", b"y"), (b"a long context " * 10, b" and its end")]
    expected = [summed(published, context[-(65 - len(after)) :], after) for context, after in pairs]
    scores = score(model, [(list(a), list(b)) for a, b in pairs])
    assert [each.log_probability for each in scores] == pytest.approx([value for value, _ in expected], abs=1e-4)
    assert [each.tokens for each in scores] == [5, 1, 12]
    greedy = int(logits(published, list(b"The fox"))[-1].argmax())
    assert score(model, [(list(b"The fox"), [greedy])])[0].is_greedy
    assert not score(model, [(list(b"The fox"), [greedy - 1])])[0].is_greedy


def test_wikitext_equals_transformers_in_windows_of_whole_contexts(published, model):
    page = "word " * 40  # 200 bytes: three windows of 64 and a last one that begins earlier
    ids = [256, *detokenized(page).encode()]
    nats = -summed(published, ids[:1], ids[1:65])[0]
    nats -= sum(summed(published, ids[end - 65 : end - new], ids[end - new : end])[0]
                for end, new in ((129, 64), (193, 64), (201, 8)))  # fmt: skip
    result = measured(model, "wikitext", [{"page": page}])
    assert math.log(result.metrics["token_perplexity"]) == pytest.approx(nats / 200, abs=1e-5)


def test_a_space_belongs_to_the_continuation_and_an_empty_context_is_the_end_of_text():
    gpt2 = tokenizers.gpt2()
    assert encode_pair(gpt2, Question("The fox", (), 0), " jumps") == (gpt2.encode("The fox"), gpt2.encode(" jumps"))
    assert encode_pair(gpt2, Question("The fox ", (), 0), "jumps") == (gpt2.encode("The fox"), gpt2.encode(" jumps"))
    assert encode_pair(gpt2, Question("", (), 0), "The")[0] == [gpt2.eot]
    assert encode_pair(gpt2, Question("a ", (), 0, separate_tokens=True), " b") == (
        gpt2.encode("a "),
        gpt2.encode(" b"),
    )


def test_marks_of_wikihow_are_removed():
    assert without_brackets(" Clean it [title] Use soap. [step] Rub  well.") == "Clean it. Use soap. Rub well."


def test_articles_of_wikitext_go_from_title_to_title():
    lines = ["", " = One = \n", "", " text \n", " = = Part = = \n", " = Two = \n", " more \n"]
    assert list(pages({"text": line} for line in lines)) == [
        " \n = One = \n \n text \n = = Part = = \n",
        " = Two = \n more \n",
    ]
    assert list(pages([{"page": "a"}, {"page": "b"}])) == ["a", "b"]


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("lambada", {"txt": "a b"}, "row 1 is not in the layout of this task: it has no text"),
        ("lambada", {"text": 3}, "row 1 is not in the layout"),
        ("hellaswag", {**HELLASWAG, "label": ""}, "row 1 is not in the layout"),  # of the test split
        ("hellaswag", {**HELLASWAG, "label": 4}, "the answer 4 is none of 4 choices"),
        ("wikitext", {"page": None}, "it has no text in page or text"),
        ("lambada", {"text": "a " + "b" * 65}, "a continuation has 66 tokens; the model reads from 1 to 64"),
    ],
)
def test_rows_of_another_layout_are_data_errors(model, task, row, message):
    with pytest.raises(DataError, match=message):
        measured(model, task, [row])


def generated_documents(count):
    """Rows of LAMBADA, HellaSwag and WikiText from random words."""
    draw = random.Random(1)
    words = ["the", "quick", "fox", "jumps", "over", "dog", ",", "it", "said", ":", "(", "twice", ")", "1", "@,@", "'s"]

    def sentence(n):
        return " ".join(draw.choices(words, k=n))

    for _ in range(count):
        endings = [f"{sentence(draw.randint(2, 6))} [step] {sentence(2)}." for _ in range(4)]
        yield (
            {"text": sentence(9)},
            {
                "activity_label": sentence(2),
                "ctx_a": sentence(5),
                "ctx_b": sentence(2),
                "endings": endings,
                "label": str(draw.randrange(4)),
            },
            {"page": f" = {sentence(2)} = \n \n {sentence(40)} \n"},
        )


@pytest.mark.slow
def test_scores_of_50_documents_equal_the_harness(tmp_path):
    reason = "lm_eval is not installed, so the scores of 50 documents were NOT compared with lm-evaluation-harness"
    harness = pytest.importorskip("lm_eval.models.huggingface", reason=reason, exc_type=ImportError)
    from lm_eval.api.instance import Instance
    from lm_eval.tasks.hellaswag.utils import preprocess
    from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = random_gpt2(tmp_path, n_positions=32, tokenizer=tokenizers.gpt2())
    ours = generation.load(str(folder), "cpu", "fp32")
    theirs = harness.HFLM(
        AutoModelForCausalLM.from_pretrained(folder), tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=4
    )

    def asked(kind, *arguments):
        return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)

    passages, stories, articles = zip(*generated_documents(50), strict=True)
    pairs = [row["text"].rsplit(" ", 1) for row in passages]
    answers = theirs.loglikelihood([asked("loglikelihood", a, f" {b}") for a, b in pairs])
    lambada = measured(ours, "lambada", passages).metrics
    assert lambada["acc"] == sum(greedy for _, greedy in answers) / 50
    mean = sum(value for value, _ in answers) / 50
    assert math.log(lambada["perplexity"]) == pytest.approx(-mean, abs=1e-4)

    correct = {"acc": 0, "acc_norm": 0}
    for row in stories:
        query = preprocess(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
        choices = [preprocess(ending) for ending in row["endings"]]
        values = [v for v, _ in theirs.loglikelihood([asked("loglikelihood", query, f" {c}") for c in choices])]
        by_length = [value / len(choice) for value, choice in zip(values, choices, strict=True)]
        correct["acc"] += values.index(max(values)) == int(row["label"])
        correct["acc_norm"] += by_length.index(max(by_length)) == int(row["label"])
    assert measured(ours, "hellaswag", stories).metrics == {name: count / 50 for name, count in correct.items()}

    whole = [asked("loglikelihood_rolling", wikitext_detokenizer(row)) for row in articles]
    # A sum for each page, with whether it is the greedy text in versions from 0.4.13 on.
    sums = [value[0] if isinstance(value, tuple) else value for value in theirs.loglikelihood_rolling(whole)]
    texts = [row["page"] for row in articles]
    words = sum(len(re.split(r"\s+", text)) for text in texts)  # as its process_results counts them
    wikitext = measured(ours, "wikitext", articles).metrics
    assert math.log(wikitext["word_perplexity"]) == pytest.approx(-sum(sums) / words, rel=1e-4)
    assert wikitext["bits_per_byte"] == pytest.approx(-sum(sums) / math.log(2) / len("".join(texts)), rel=1e-4)
