"""A random GPT-2 made by transformers, with the byte tokenizer or GPT-2's own, in the form in which it is published."""

import torch
import transformers

from gpt2tui.data import tokenizers
from gpt2tui.data.tokenizer_kinds import ByteTokenizer


def random_gpt2(folder, n_positions=64, tokenizer=None, scale=4.0):
    """`scale` 1 is a new model, whose predictions are almost uniform; 0 a model whose predictions are exactly so."""
    torch.manual_seed(0)
    tokenizer = tokenizer or ByteTokenizer()
    config = transformers.GPT2Config(
        vocab_size=tokenizer.vocab_size, n_positions=n_positions, n_embd=16, n_layer=2, n_head=2
    )
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    model.save_pretrained(folder)
    tokenizers.save(tokenizer, folder)
    return folder


def logits(folder, ids):
    """What transformers computes: (T, V)."""
    model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]
