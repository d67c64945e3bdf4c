"""Several sources with weights: which window of which source a position of the run is, and their tokens."""

from fractions import Fraction

import numpy as np
import pytest

from gpt2tui.data.batches import Batches, MixedBatches
from gpt2tui.data.corpora import MixedCorpus, open_corpus
from gpt2tui.data.mix import SourceOrder, validation_windows
from gpt2tui.data.token_store import find_prepared, prepare
from gpt2tui.errors import DataError
from gpt2tui.preset.mix import whole_weights
from gpt2tui.preset.schema import DataTable, ModelTable, Preset, TrainingTable
from tests.data.corpus_files import write
from tests.tiny_runs import finish

WEIGHTS = [[1], [1, 1], [3, 1], [7, 2, 1], [5, 5, 5, 1], [1, 2, 3, 4, 5, 6], [97, 1, 1, 1]]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_after_any_number_of_windows_each_source_has_had_its_share_to_within_one(weights):
    total, k = sum(weights), max(2, len(weights))
    sources, _ = SourceOrder(weights).of(np.arange(3 * total + 1))
    had = [0] * len(weights)
    for n, source in enumerate(sources.tolist(), 1):
        had[source] += 1
        for count, weight in zip(had, weights, strict=True):
            assert abs(count - Fraction(n * weight, total)) <= 1 - Fraction(1, 2 * k - 2)  # Tijdeman's bound


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_the_windows_of_each_source_are_counted_without_a_gap(weights):
    sources, numbers = SourceOrder(weights).of(np.arange(5 * sum(weights)))
    for source, weight in enumerate(weights):
        assert numbers[sources == source].tolist() == list(range(5 * weight))


def test_a_far_position_is_found_without_those_before_it():
    order = SourceOrder([7, 2, 1])
    near, far = order.of(np.arange(100)), order.of(np.arange(100) + 10**15)
    assert near[0].tolist() == far[0].tolist()
    shifts = np.array([7, 2, 1])[near[0]] * 10**14
    assert (near[1] + shifts).tolist() == far[1].tolist()


def test_weights_are_the_proportions_as_they_are_written():
    assert whole_weights([0.7, 0.2, 0.1]) == [7, 2, 1]
    assert whole_weights([3, 1.5]) == [2, 1]
    assert whole_weights([10.0]) == [1]
    assert whole_weights([1e-3, 1]) == [1, 1000]


def test_validation_windows_stand_in_the_proportions_of_the_weights():
    assert validation_windows([3, 1], [300, 1000]) == [300, 100]
    assert validation_windows([3, 1], [300, 50]) == [150, 50]
    assert validation_windows([100, 1], [50, 50]) == [50, 1]


# ---- batches

TEXTS = [(np.arange(1000, 1420, dtype=np.uint16), None), (np.arange(5000, 5150, dtype=np.uint16), None)]


def mixed_batches(**changes):
    settings = {"seed": 7, "batch_size": 3, "gradient_accumulation": 4, "sequence_length": 8}
    return MixedBatches(TEXTS, [3, 1], **(settings | changes))


def windows_of(batches, steps):
    """The inputs and targets of steps, as lists of tokens."""
    return [
        [*x.tolist(), int(y[-1])]
        for step in steps
        for xs, ys in batches.micro_batches(step)
        for x, y in zip(xs, ys, strict=True)
    ]


def test_a_step_of_a_mix_is_a_pure_function_of_seed_and_step():
    assert windows_of(mixed_batches(), [50]) == windows_of(mixed_batches(), range(51))[-12:]
    assert windows_of(mixed_batches(), [50]) != windows_of(mixed_batches(seed=8), [50])


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_the_same_step_of_a_mix(world_size):
    ranks = [mixed_batches(rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in range(5):
        together = [window for rank in ranks for window in windows_of(rank, [step])]
        assert together == windows_of(mixed_batches(), [step])


def test_each_source_comes_whole_in_each_of_its_epochs_and_is_shuffled_anew():
    windows = windows_of(mixed_batches(), range(30))
    for low, high, per_epoch in ((1000, 1420, 51), (5000, 5150, 17)):
        own = [window for window in windows if low <= window[0] < high]
        assert all(window == list(range(window[0], window[0] + 9)) for window in own)
        epochs = [[window[0] for window in own[i * per_epoch : (i + 1) * per_epoch]] for i in range(2)]
        for starts in epochs:
            assert sorted(starts) == list(range(min(starts), min(starts) + 8 * per_epoch, 8))
        places = [[(start - min(starts)) // 8 for start in starts] for starts in epochs]
        assert places[0] != places[1]
    assert mixed_batches().epoch_of(17) == 17 * 12 * 0.75 / 51


def test_a_mix_of_one_source_is_that_source():
    settings = {"seed": 7, "batch_size": 3, "gradient_accumulation": 4, "sequence_length": 8}
    alone = Batches(TEXTS[0][0], **settings)
    assert windows_of(MixedBatches(TEXTS[:1], [1], **settings), range(9)) == windows_of(alone, range(9))


# ---- prepared


@pytest.fixture
def folders(tmp_path):
    for name, word, count in (("prose", "word", 60), ("code", "x = 1", 40)):
        for i in range(count):
            write(tmp_path / name / f"{i:03}.txt", f"{word} number {i}\n" * 25)
    return tmp_path


def preset(folders, weights=(3, 1), tokenizer="byte", **training):
    mix = [
        {"source": str(folders / name), "weight": float(w)} for name, w in zip(("prose", "code"), weights, strict=True)
    ]
    return Preset(
        model=ModelTable(vocab_size=300 if tokenizer == "bpe" else None),
        data=DataTable.model_validate({"mix": mix, "tokenizer": tokenizer, "validation_fraction": 0.2}),
        training=TrainingTable(sequence_length=16, **training),
    )


def test_a_prepared_mix_has_each_source_and_validation_text_in_proportion(folders, tmp_path):
    loaded = preset(folders)
    assert find_prepared(loaded, tmp_path / "cache") is None
    corpus = finish(prepare(loaded, tmp_path / "cache"))
    alone = [finish(prepare(loaded.of_source(str(folders / name)), tmp_path / "cache")) for name in ("prose", "code")]
    assert [part.train.tolist() for part in corpus.mix] == [part.train.tolist() for part in alone]
    assert corpus.weights == (3, 1)
    counts = validation_windows([3, 1], [(len(part.validation) - 1) // 16 for part in alone])
    assert counts[0] == pytest.approx(3 * counts[1], abs=3)
    expected = alone[0].validation[: 16 * counts[0]].tolist() + alone[1].validation[: 16 * counts[1] + 1].tolist()
    assert corpus.validation.tolist() == expected
    assert corpus.validation_bytes == sum(token < 256 for token in expected)
    assert corpus.validation_documents == expected.count(256)
    found = find_prepared(loaded, tmp_path / "cache")
    assert found.fingerprint == corpus.fingerprint
    assert found.validation.tolist() == expected


def test_other_weights_are_another_corpus_with_the_same_stores(folders, tmp_path):
    first = finish(prepare(preset(folders), tmp_path / "cache"))
    stores = sorted((tmp_path / "cache" / "tokens").iterdir())
    second = finish(prepare(preset(folders, weights=(1, 1)), tmp_path / "cache"))
    assert first.fingerprint != second.fingerprint
    assert sorted((tmp_path / "cache" / "tokens").iterdir()) == stores
    assert finish(prepare(preset(folders, weights=(6, 2)), tmp_path / "cache")).fingerprint == first.fingerprint


@pytest.mark.parametrize("tokenizer", ["char", "bpe"])
def test_all_sources_have_the_tokenizer_made_from_all_of_them(tokenizer, folders, tmp_path):
    corpus = finish(prepare(preset(folders, tokenizer=tokenizer), tmp_path / "cache"))
    assert len({part.tokenizer.token_table for part in corpus.mix}) == 1
    for part, text in zip(corpus.mix, ("word number", "x = 1 number"), strict=True):
        decoded = corpus.tokenizer.decode(part.train[:400].tolist())
        assert decoded.startswith(text)
    if tokenizer == "char":
        assert {"w", "x", "="} <= set(corpus.tokenizer.characters)
    assert find_prepared(preset(folders, tokenizer=tokenizer), tmp_path / "cache").fingerprint == corpus.fingerprint


def test_little_validation_text_of_one_source_is_said(folders, tmp_path):
    corpus = finish(prepare(preset(folders, eval_tokens=100_000), tmp_path / "cache"))
    assert any("the sources of the mix have validation text for" in notice for notice in corpus.notices)


def test_a_source_that_is_too_short_is_named(folders, tmp_path):
    write(folders / "code" / "000.txt", "")
    for path in (folders / "code").iterdir():
        path.unlink()
    write(folders / "code" / "a.txt", "x = 1\n" * 4)
    with pytest.raises(DataError, match=r"code is too short"):
        finish(prepare(preset(folders), tmp_path / "cache"))


def test_a_tokenizer_is_trained_on_the_texts_in_the_proportions_of_the_weights(folders):
    mix = open_corpus(preset(folders).data)
    assert isinstance(mix, MixedCorpus)
    lengths = {"w": 0, "x": 0}
    for piece in mix.pieces("train"):
        lengths[piece.text[0]] += len(piece.text)
        if lengths["w"] > 10_000:
            break
    assert lengths["w"] / lengths["x"] == pytest.approx(3, rel=0.05)
