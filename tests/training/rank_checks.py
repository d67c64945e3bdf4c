"""One rank of two, under torchrun: writes what it has found into a folder, for test_rank_checks.py."""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from gpt2tui.model.config import GPT2Config
from gpt2tui.model.cpu import tune_for_cpu
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.training.distributed import join, leave, whole
from gpt2tui.training.sharding import shard

V, T, C = 10, 4, 8


def tied(ranks, folder):
    """Each rank fills its share of the embedding with its own number; returns what both uses have made of it."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=V, n_positions=T, n_embd=C, n_layer=2, n_head=2)
    model = tune_for_cpu(GPT2(config))
    shard(model, ranks.world_size, reshard_after_forward=True)
    with torch.no_grad():
        model.wte.weight.to_local().fill_(0.1 * (ranks.rank + 1)).add_(torch.arange(C) / 100)
    file = folder / f"saved-{ranks.rank}.safetensors"
    save_file({name: whole(tensor.detach()).contiguous() for name, tensor in model.state_dict().items()}, file)
    reloaded = GPT2(config)
    reloaded.load_state_dict(load_file(file))
    tokens, targets = torch.arange(V)[None, :T], torch.arange(V)[None, T : 2 * T]
    losses = [network(tokens, targets) for network in (model, reloaded)]
    for loss in losses:
        loss.backward()
    ours, theirs = whole(model.wte.weight.grad), reloaded.wte.weight.grad
    with torch.no_grad():
        hidden = reloaded.hidden(tokens)
        logits_are_of_the_embedding = torch.allclose(reloaded(tokens), F.linear(hidden, reloaded.wte.weight))
    return {
        "embedding": reloaded.wte.weight[:, 0].tolist(),
        "names": sorted(load_file(file)),
        "losses": [loss.item() for loss in losses],
        "gradients": (ours - theirs).abs().max().item(),
        "gradient_size": theirs.abs().max().item(),
        "logits_are_of_the_embedding": logits_are_of_the_embedding,
    }


def exchanged(ranks):
    number = float(ranks.rank + 1)
    largest = ranks.exchange([number, -number], 15 if ranks.rank else 0)
    return {
        "largest": largest,
        "stopped_by": ranks.stopped_by,
        "sums": ranks.sums(number, 10 * number),
        "decided": ranks.decided(ranks.rank == 0),
        "gathered": ranks.gathered(ranks.rank),
    }


if __name__ == "__main__":
    out, this = Path(sys.argv[1]), join()
    if this.rank:
        this.assignment()
    else:
        this.assign({}, 60.0, on_gpu=False)
    found = {"tied": tied(this, out), "exchanged": exchanged(this)}
    (out / f"rank-{this.rank}.json").write_text(json.dumps(found))
    leave(0)
