import json

import pytest
import torch

from gpt2tui.data.batches import StreamBatches
from gpt2tui.data.token_stream import TokenStream
from gpt2tui.data.tokenizers import build
from gpt2tui.errors import DataError
from gpt2tui.preset.schema import DataTable
from tests.data.corpus_files import opened, write_hub_folder, write_rows

ROWS = [f"document {i}, with text\n" for i in range(40)]
TOKENIZER = build(DataTable(tokenizer="byte"), None, [])


@pytest.fixture(params=["jsonl", "hub"])
def corpus(request, tmp_path, monkeypatch):
    if request.param == "jsonl":
        return opened(write_rows(tmp_path / "rows.jsonl", ROWS), streaming=True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    return opened(f"hf:{write_hub_folder(tmp_path / 'corpus', {'default': {'train': ROWS}})}", streaming=True)


def whole(corpus):
    """The tokens of one epoch."""
    return [token for text in corpus.documents("train") for token in [*text.encode(), 256]]


def test_the_stream_is_the_documents_with_ends_again_and_again(corpus):
    epoch = whole(corpus)
    stream = TokenStream(corpus, TOKENIZER)
    assert stream.take(3 * len(epoch) + 5).tolist() == epoch * 3 + epoch[:5]
    assert stream.epoch == 3


def test_validation_documents_are_never_in_the_stream(corpus):
    validation = list(corpus.documents("validation"))
    assert validation == ROWS[: len(validation)]
    assert whole(corpus) == [token for text in ROWS[len(validation) :] for token in [*text.encode(), 256]]


@pytest.mark.parametrize("taken", [0, 1, 23, 24, 25, 500])
@pytest.mark.parametrize("epochs", [0, 1])
def test_the_same_tokens_follow_a_state(corpus, taken, epochs):
    count = epochs * len(whole(corpus)) + taken
    stream = TokenStream(corpus, TOKENIZER)
    stream.take(count)
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = TokenStream(corpus, TOKENIZER)
    resumed.load_state_dict(state)
    assert resumed.take(2000).tolist() == stream.take(2000).tolist()
    assert resumed.epoch == stream.epoch


def test_a_state_is_small(corpus):
    stream = TokenStream(corpus, TOKENIZER)
    stream.take(600)
    assert len(json.dumps(stream.state_dict())) < 1000


def test_a_corpus_without_training_text_ends_in_an_error():
    class Nothing:
        name = "nothing"

        def pieces(self, split, start=None):
            return iter(())

    with pytest.raises(DataError, match="nothing has no text"):
        TokenStream(Nothing(), TOKENIZER).take(1)


def stream_batches(corpus, **changes):
    settings = {"batch_size": 2, "gradient_accumulation": 4, "sequence_length": 5}
    return StreamBatches(TokenStream(corpus, TOKENIZER), **(settings | changes))


def test_steps_follow_each_other_through_the_text(corpus):
    batches = stream_batches(corpus)
    epoch = whole(corpus)
    xs, ys = [], []
    for step in range(5):
        for x, y in batches.micro_batches(step):
            assert x.shape == y.shape == (2, 5)
            assert x.dtype == y.dtype == torch.int64
            xs += x.flatten().tolist()
            ys += y.flatten().tolist()
    assert xs == epoch[:200]
    assert ys == epoch[1:201]


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_the_same_step_in_the_same_order(corpus, world_size):
    alone = stream_batches(corpus)
    ranks = [stream_batches(corpus, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in range(4):
        expected = alone.micro_batches(step)
        together = [batch for rank in ranks for batch in rank.micro_batches(step)]
        assert [x.tolist() for x, _ in together] == [x.tolist() for x, _ in expected]
        assert [y.tolist() for _, y in together] == [y.tolist() for _, y in expected]


def test_a_resumed_stream_gives_the_batches_of_the_uninterrupted_one(corpus):
    batches = stream_batches(corpus)
    for step in range(3):
        batches.micro_batches(step)
    resumed = stream_batches(corpus)
    resumed.load_state_dict(json.loads(json.dumps(batches.state_dict())))
    for step in range(3, 40):
        ours, theirs = resumed.micro_batches(step), batches.micro_batches(step)
        assert [x.tolist() for x, _ in ours] == [x.tolist() for x, _ in theirs]
    assert resumed.epoch_of(40) >= 1


def test_a_step_out_of_order_is_refused(corpus):
    batches = stream_batches(corpus)
    batches.micro_batches(0)
    with pytest.raises(ValueError, match="1 is next, not 5"):
        batches.micro_batches(5)
