"""The shape of a GPT-2, without torch, so that presets and estimates can be read in milliseconds."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

LAYER_NORM_EPSILON = 1e-5  # the published GPT-2's; not a setting
LONGEST_CONTEXT = 1_048_576  # tokens
INITIAL_STD = 0.02  # OpenAI's code; there the positions have 0.01, in transformers and nanoGPT 0.02 as here


@dataclass(frozen=True)
class Inconsistency:
    """A setting whose value does not fit those of others, its partners; all are keys."""

    key: str
    message: str
    partners: tuple[str, ...]


class GPT2Config(BaseModel):
    """The `[model]` table of a preset. The defaults are the smallest published GPT-2 (124,439,808 parameters)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    vocab_size: int | None = Field(default=None, ge=2, le=1_000_000, json_schema_extra={"unit": "tokens"})
    """How many different tokens the model knows. Left out, it is the tokenizer's own; with `bpe`, the size to train."""

    n_positions: int = Field(default=1024, ge=1, le=LONGEST_CONTEXT, json_schema_extra={"unit": "tokens"})
    """The longest text the model can look back on: its context window."""

    n_embd: int = Field(default=768, ge=1, le=65_536)
    """The width: how many numbers describe one token inside the model. Must be divisible by n_head."""

    n_layer: int = Field(default=12, ge=1, le=1_000)
    """The depth: how many transformer blocks are stacked."""

    n_head: int = Field(default=12, ge=1, le=1_024)
    """How many attention heads share the width; 64 numbers a head is usual."""

    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """The share of activations set to zero while training; helps when a small corpus is read many times."""

    bias: bool = True
    """Whether linear layers and layer norms have a bias, as the published GPT-2 does."""

    @property
    def head_dim(self) -> int:
        """The width of one attention head."""
        return self.n_embd // self.n_head

    def inconsistencies(self) -> list[Inconsistency]:
        """What single-field bounds cannot see; empty when the shape is sound."""
        if self.n_embd % self.n_head:
            message = f"{self.n_embd} is not divisible by n_head = {self.n_head}"
            return [Inconsistency("n_embd", message, ("n_head",))]
        return []

    def parameter_count(self) -> int:
        """The exact number of trainable parameters; the tied embedding counts once.

        Raises ValueError while vocab_size is not known.
        """
        if self.vocab_size is None:
            raise ValueError("vocab_size is not known yet: it comes from the tokenizer")
        C, bias = self.n_embd, int(self.bias)
        layer_norm = C + bias * C
        attention = C * 3 * C + bias * 3 * C + C * C + bias * C
        mlp = C * 4 * C + bias * 4 * C + 4 * C * C + bias * C
        embeddings = (self.vocab_size + self.n_positions) * C
        return embeddings + self.n_layer * (2 * layer_norm + attention + mlp) + layer_norm
