"""The choice of one token: hand-computed cases and frequencies."""

import pytest
import torch

from gpt2tui.model import sampling
from gpt2tui.model.sampling import next_token

INFINITY = float("inf")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(probabilities, n=4000, **settings):
    """How often each token is chosen when the model's probabilities are these."""
    logits = torch.tensor(probabilities).log().expand(n, -1)
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | settings
    tokens = next_token(logits, generator=generator(), **settings)
    return torch.bincount(tokens, minlength=len(probabilities)) / n


def assert_frequencies(frequencies, expected):
    for frequency, probability in zip(frequencies.tolist(), expected, strict=True):
        assert frequency == pytest.approx(probability, abs=0.035)  # more than four standard deviations of 4,000
        assert (frequency == 0) == (probability == 0)


P = [0.1, 0.4, 0.3, 0.2]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, P),
        ({"temperature": 0.5}, [1 / 30, 16 / 30, 9 / 30, 4 / 30]),  # squares of P, normalised
        ({"temperature": 0.0}, [0, 1, 0, 0]),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 3 / 7, 0]),
        ({"top_k": 4}, P),
        ({"top_k": 1000}, P),
        ({"top_p": 1e-9}, [0, 1, 0, 0]),
        ({"top_p": 0.39}, [0, 1, 0, 0]),
        ({"top_p": 0.41}, [0, 4 / 7, 3 / 7, 0]),  # includes the token that crosses
        ({"top_p": 0.69}, [0, 4 / 7, 3 / 7, 0]),
        ({"top_p": 0.71}, [0, 4 / 9, 3 / 9, 2 / 9]),
        ({"top_p": 0.95}, P),
        (
            {"top_k": 3, "top_p": 0.5},
            [0, 4 / 7, 3 / 7, 0],
        ),  # of the three left, 0.4 / 0.9 is less than a half
        ({"top_k": 3, "top_p": 0.44}, [0, 1, 0, 0]),
        ({"temperature": 0.5, "top_p": 0.54}, [0, 16 / 25, 9 / 25, 0]),  # temperature comes first
    ],
    ids=str,
)
def test_frequencies_are_those_computed_by_hand(settings, expected):
    assert_frequencies(drawn(P, **settings), expected)


def test_rows_are_drawn_independently_and_from_their_own_logits():
    logits = torch.tensor([[0.0, -INFINITY, -INFINITY], [-INFINITY, -INFINITY, 0.0]])
    for top_k, top_p in ((0, 1.0), (2, 1.0), (0, 0.9), (2, 0.9)):
        assert next_token(logits, 1.0, top_k, top_p, generator()).tolist() == [0, 2]
    same = next_token(torch.zeros(100, 50), 1.0, 0, 1.0, generator())
    assert len(same.unique()) > 25


@pytest.mark.parametrize("top_k", [0, 2])
@pytest.mark.parametrize("top_p", [0.9, 1.0])
@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-9, 1.0, 100.0])
@pytest.mark.parametrize(
    ("row", "possible"),
    [
        ([3e38, -3e38, 0.0], {0}),
        ([INFINITY, 0.0, 1.0], {0}),
        ([-INFINITY, 5.0, -INFINITY], {1}),
        ([float("nan"), 5.0, -INFINITY], {1}),
        ([-INFINITY] * 3, {0, 1, 2}),
        ([float("nan")] * 3, {0, 1, 2}),
    ],
    ids=str,
)
def test_extreme_logits_give_a_token_that_is_possible(row, possible, temperature, top_k, top_p):
    tokens = next_token(torch.tensor(row).expand(50, -1), temperature, top_k, top_p, generator())
    assert set(tokens.tolist()) <= possible


def test_half_precision_logits_are_sampled_in_full_precision():
    logits = torch.randn(64, 1000, generator=generator())
    for dtype in (torch.bfloat16, torch.float16):
        rounded = logits.to(dtype)
        assert torch.equal(
            next_token(rounded, 0.7, 0, 0.9, generator()),
            next_token(rounded.float(), 0.7, 0, 0.9, generator()),
        )


def test_same_generator_state_same_tokens_and_the_global_one_is_left_alone():
    logits = torch.randn(16, 30, generator=generator())
    state = torch.get_rng_state()
    first = next_token(logits, 1.0, 0, 1.0, generator(3))
    assert torch.equal(first, next_token(logits, 1.0, 0, 1.0, generator(3)))
    assert not torch.equal(first, next_token(logits, 1.0, 0, 1.0, generator(4)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(-1.0, 0, 1.0), (float("nan"), 0, 1.0), (1.0, -1, 1.0), (1.0, 0, 0.0), (1.0, 0, 1.1)],
)
def test_settings_out_of_range_are_refused(temperature, top_k, top_p):
    with pytest.raises(ValueError, match="cannot sample with"):
        next_token(torch.zeros(1, 3), temperature, top_k, top_p, generator())


@pytest.mark.parametrize("width", [0.1, 3.0, 30.0])  # of the distribution: the nucleus is most of it, some, one
@pytest.mark.parametrize("top_p", [0.2, 0.9, 0.999])
def test_a_nucleus_is_found_without_sorting_all_and_is_the_same(monkeypatch, width, top_p):
    logits = width * torch.randn(3, 5000, generator=torch.Generator().manual_seed(2))

    def drawn():
        generator = torch.Generator().manual_seed(4)
        return torch.stack([next_token(logits, 0.8, 0, top_p, generator) for _ in range(200)])

    ours = drawn()
    monkeypatch.setattr(sampling, "NUCLEUS_SIZES", ())
    assert torch.equal(ours, drawn())


def test_a_small_nucleus_needs_no_sorted_vocabulary(monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("sorted")

    monkeypatch.setattr(torch.Tensor, "sort", never)
    logits = torch.zeros(2, 5000)
    logits[:, 7] = 20.0
    assert next_token(logits, 1.0, 0, 0.9, torch.Generator()).tolist() == [7, 7]
