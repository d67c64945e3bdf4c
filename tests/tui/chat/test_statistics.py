"""The numbers under a text, against numbers computed by hand."""

import math

import pytest

from gpt2tui.tui.chat.engine import TokenStatistics, surprisal


def of(*probabilities):
    statistics = TokenStatistics()
    for probability in probabilities:
        statistics.add(probability)
    return statistics


def test_mean_probability_is_arithmetic_and_perplexity_geometric():
    statistics = of(0.5, 0.125)
    assert statistics.mean_probability == pytest.approx(0.3125)
    assert statistics.loss == pytest.approx(2 * math.log(2))  # (1 + 3) bits over two tokens
    assert statistics.perplexity == pytest.approx(4)
    assert statistics.bits_per_byte(8) == pytest.approx(0.5)


def test_without_tokens_or_bytes_nothing_is_known():
    assert (of().mean_probability, of().loss, of().perplexity, of(0.5).bits_per_byte(0)) == (None,) * 4


def test_a_probability_of_zero_has_a_large_but_finite_surprisal():
    assert 100 < surprisal(0.0) < 110
    assert math.isfinite(of(*[0.0] * 10).perplexity)


@pytest.mark.parametrize(("probability", "guessing"), [(1 / 4096, True), (1 / 3000, True), (1 / 500, False)])
def test_a_loss_near_that_of_a_uniform_distribution_is_guessing(probability, guessing):
    assert of(*[probability] * 20).is_guessing(4096) is guessing


def test_a_few_tokens_say_nothing_about_guessing():
    assert not of(0.0001, 0.0001).is_guessing(4096)
