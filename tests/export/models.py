"""A small model with weights of every kind, and GPT-2's tokenizer cut after its first merges."""

import torch

from gpt2tui.data.split_patterns import GPT2_PATTERN
from gpt2tui.data.tokenizer_kinds import EOT_TEXT, BytePairTokenizer, gpt2_ranks
from gpt2tui.generation import TextModel
from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import GPT2

TOKENS = 400


def tokenizer(pattern=GPT2_PATTERN, tokens=TOKENS):
    ranks = {token: rank for token, rank in gpt2_ranks().items() if rank < tokens}
    return BytePairTokenizer("bpe", pattern, ranks, {EOT_TEXT: tokens})


def text_model(tokens=None, *, bias=True, padding=0, context=16, std=0.2):
    """Its biases and layer norms are as random as its matrices, so that each of them matters."""
    tokens = tokens or tokenizer()
    config = GPT2Config(
        vocab_size=tokens.vocab_size + padding, n_positions=24, n_embd=16, n_layer=2, n_head=2, bias=bias
    )
    network = GPT2(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=std, generator=generator)
    return TextModel(network, tokens, "a model", context)
