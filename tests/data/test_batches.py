import hashlib

import numpy as np
import pytest
import torch

from gpt2tui.data.batches import Batches, evaluation_batches

TOKENS = np.arange(1000, dtype=np.uint16)


def batches(tokens=TOKENS, **changes):
    settings = {"seed": 1, "batch_size": 3, "gradient_accumulation": 4, "sequence_length": 8}
    return Batches(tokens, **(settings | changes))


def equal(left, right):
    return len(left) == len(right) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(left, right, strict=True)
    )


def epoch_starts(b, epoch_windows, step_windows, T=8):
    """The first tokens of all windows, epoch by epoch; TOKENS are their own positions."""
    steps = -(-3 * epoch_windows // step_windows)
    first = [int(x) for step in range(steps) for xs, _ in b.micro_batches(step) for x in xs[:, 0]]
    return [first[i * epoch_windows : (i + 1) * epoch_windows] for i in range(3)]


def test_targets_are_the_next_tokens_as_int64():
    for x, y in batches().micro_batches(0):
        assert x.shape == y.shape == (3, 8)
        assert x.dtype == y.dtype == torch.int64
        assert torch.equal(x + 1, y)
        assert x.is_contiguous()
        assert y.is_contiguous()


def test_a_step_is_a_pure_function_of_seed_and_step():
    forward, backward = batches(), batches()
    steps = list(range(60))
    seen = {step: forward.micro_batches(step) for step in steps}
    for step in reversed(steps):
        assert equal(backward.micro_batches(step), seen[step])
    assert not equal(batches(seed=2).micro_batches(0), seen[0])


def test_the_order_never_changes():
    # A run must resume with the same batches after an upgrade of this program or of numpy.
    first_step = batches(batch_size=1, gradient_accumulation=8).micro_batches(0)
    assert [int(x[0, 0]) for x, _ in first_step] == [119, 71, 167, 903, 759, 927, 679, 367]


def test_an_epoch_takes_each_window_once_and_shuffles():
    b = batches()
    windows = b.tokens_per_epoch // 8
    epochs = epoch_starts(b, windows, 12)
    for starts in epochs:
        assert len(set(starts)) == windows
        assert np.all(np.diff(sorted(starts)) == 8)
        assert starts != sorted(starts)
    assert epochs[0] != epochs[1]


def test_epochs_cut_windows_at_other_places():
    b = batches()
    offsets = {min(starts) for starts in epoch_starts(b, b.tokens_per_epoch // 8, 12)}
    assert len(offsets) > 1
    assert max(offsets) < 8


def test_a_step_may_span_two_epochs():
    b = batches(np.arange(50, dtype=np.uint16), batch_size=4, gradient_accumulation=1)
    windows = b.tokens_per_epoch // 8
    assert windows == 5
    first = [int(x[0]) for step in range(5) for xs, _ in b.micro_batches(step) for x in xs]
    for epoch in range(4):
        assert len(set(first[epoch * 5 : epoch * 5 + 5])) == 5


@pytest.mark.parametrize("length", [9, 10, 16, 17, 24])
def test_short_corpora_give_whole_windows(length):
    tokens = np.arange(length, dtype=np.uint16)
    for step in range(20):
        for x, y in batches(tokens).micro_batches(step):
            assert torch.equal(x + 1, y)


def test_fewer_tokens_than_a_window_are_refused():
    with pytest.raises(ValueError, match=r"8 tokens are fewer than one window of 8 \+ 1"):
        batches(np.arange(8, dtype=np.uint16))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_the_same_step_in_the_same_order(world_size):
    alone = batches()
    ranks = [batches(rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in (0, 1, 9, 10, 11, 57):
        together = [batch for rank in ranks for batch in rank.micro_batches(step)]
        assert equal(together, alone.micro_batches(step))


def test_ranks_that_do_not_divide_the_accumulation_are_refused():
    with pytest.raises(ValueError, match="cannot be shared evenly by 3 ranks"):
        batches(world_size=3)


def test_epochs_are_counted_in_windows():
    b = batches()
    assert b.tokens_per_epoch == 8 * 124
    assert b.epoch_of(0) == 0
    assert b.epoch_of(31) == 31 * 12 / 124


@pytest.mark.parametrize("length", [2, 9, 10, 16, 17, 100, 999])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_whole_evaluation_predicts_every_token_but_the_first_once(length, batch_size):
    tokens = np.arange(length, dtype=np.uint16)
    predicted = []
    for x, y in evaluation_batches(tokens, batch_size, 8, None):
        assert x.shape == y.shape
        assert x.shape[1] == 8
        assert x.shape[0] <= batch_size
        counted = y != -1
        assert torch.equal(x[counted] + 1, y[counted])
        predicted += y[counted].tolist()
    assert predicted == list(range(1, length))


def test_evaluation_windows_are_fixed_spread_and_do_not_overlap():
    first = list(evaluation_batches(TOKENS, 4, 8, 96))
    again = list(evaluation_batches(TOKENS, 4, 8, 96))
    assert equal(first, again)
    assert len(first) == 3
    starts = [int(x[0]) for xs, _ in first for x in xs]
    gaps = np.diff(starts)
    assert gaps.min() >= 8
    assert gaps.max() - gaps.min() <= 8
    assert starts[-1] > 800
    assert all((y != -1).all() for _, y in first)


def test_the_validation_tokens_do_not_depend_on_the_batch_size():
    digests = set()
    for batch_size in (1, 3, 8):
        batches = list(evaluation_batches(TOKENS, batch_size, 8, 100))
        assert max(len(x) for x, _ in batches) == batch_size
        x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert x.shape == y.shape == (12, 8)  # whole windows: 96 of the 100 tokens
        digests.add(hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest())
    assert len(digests) == 1


def test_an_evaluation_reads_one_window_at_least():
    assert [x.shape for x, _ in evaluation_batches(TOKENS, 4, 8, 1)] == [(1, 8)]


@pytest.mark.parametrize("eval_tokens", [999, 10**12])
def test_more_tokens_than_there_are_are_the_whole_text(eval_tokens):
    assert equal(list(evaluation_batches(TOKENS, 4, 8, 10**12)), list(evaluation_batches(TOKENS, 4, 8, None)))
