"""What the numbers under a text are, by definition."""

import math
from dataclasses import dataclass

SMALLEST_PROBABILITY = 1e-45
"""fp32 has nothing smaller but 0, whose surprise would be infinite."""


def surprise(probability: float) -> float:
    """-ln p, in nats: what a token of that probability costs; never infinite."""
    return -math.log(max(probability, SMALLEST_PROBABILITY))


@dataclass
class TokenStatistics:
    """Sums over the tokens of a text, under the model's own distribution (temperature 1, nothing cut off)."""

    tokens: int = 0
    _probabilities: float = 0.0
    _nats: float = 0.0

    def add(self, probability: float) -> None:
        """Counts one token."""
        self.tokens += 1
        self._probabilities += probability
        self._nats += surprise(probability)

    @property
    def mean_probability(self) -> float | None:
        """The arithmetic mean of the tokens' probabilities; None without tokens."""
        return self._probabilities / self.tokens if self.tokens else None

    @property
    def loss(self) -> float | None:
        """The mean surprise, nats a token, as in training; None without tokens."""
        return self._nats / self.tokens if self.tokens else None

    @property
    def perplexity(self) -> float | None:
        """exp(loss): among how many equally likely tokens the model could just as well have chosen."""
        return None if self.loss is None else math.exp(min(self.loss, 700.0))  # beyond, a double overflows

    def bits_per_byte(self, text_bytes: int) -> float | None:
        """The surprise of all tokens in bits, over the bytes of their text; None for an empty text."""
        return self._nats / math.log(2) / text_bytes if text_bytes else None

    def is_guessing(self, vocab_size: int) -> bool:
        """Whether the text of some length is hardly likelier than one of tokens drawn at random: a loss near ln V."""
        return self.loss is not None and self.tokens >= 8 and self.loss > 0.9 * math.log(vocab_size)
