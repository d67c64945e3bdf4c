"""The network spread over ranks, from outside: it knows nothing of them.

The order: weights, then adapters, then torch.compile (`compilation`), then DDP around all of it; or without compilation
FSDP2 (`sharding`), block by block. Muon's matrices are divided among the ranks.
"""

import itertools
import operator
import warnings
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gpt2tui.data.batches import IGNORED, evaluation_batches
from gpt2tui.data.token_store import TokenizedCorpus
from gpt2tui.evaluation.validation import ValidationLoss, validation_loss
from gpt2tui.evaluation.worst_windows import WorstWindows
from gpt2tui.model.gpt2 import GPT2, network_without_weights
from gpt2tui.preset.schema import DistributedTable, Preset
from gpt2tui.training.distributed import Ranks, whole
from gpt2tui.training.muon import Muon, orthogonalize
from gpt2tui.training.optimizers import Optimizers
from gpt2tui.training.update import Update


def spread(update: Update, preset: Preset, ranks: Ranks) -> None:
    """Spreads the network over the ranks, as [distributed] strategy says; "auto" is "ddp".

    Call it before the first step, when the forward pass is compiled, and before the optimizers have moments.
    """
    if ranks.world_size == 1:
        return
    update.ranks = ranks
    if preset.is_sharded:
        from gpt2tui.training.sharding import ShardedMuon, shard, without_exchange

        table = preset.distributed or DistributedTable()
        shard(update.model, ranks.world_size, reshard_after_forward=table.reshard_after_forward)
        update.optimizers = Optimizers(update.model, preset.optimizer, ShardedMuon)
        update.no_sync = lambda: without_exchange(update.model)
        update.is_sharded = True
    else:
        _replicate(update)
    for optimizer, _ in update.optimizers.all:
        if isinstance(optimizer, Muon):
            optimizer.orthogonalize = lambda stack, dtype: divided(stack, dtype, ranks)


def _replicate(update: Update) -> None:
    """Gives each rank the whole network (DDP); gradients are averaged while the backward pass runs."""
    assert isinstance(update.forward, nn.Module), "compiled or not, the forward pass is a module"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers has another name from torch 2.13 on
        wrapped = DistributedDataParallel(
            update.forward,
            device_ids=[update.device] if update.device.type == "cuda" else None,
            broadcast_buffers=False,  # there are none that change
            gradient_as_bucket_view=True,
        )
    update.forward, update.no_sync = wrapped, wrapped.no_sync


def whole_copy(model: GPT2) -> GPT2:
    """A network that is divided among ranks, whole, for generation; all ranks call it."""
    state = {name: whole(tensor.detach()) for name, tensor in model.state_dict().items()}
    copy = network_without_weights(model.config)
    copy.load_state_dict(state, assign=True)
    return copy.eval()


def divided(stack: Tensor, dtype: torch.dtype, ranks: Ranks) -> Tensor:
    """`orthogonalize` of a stack (n, rows, columns), the same on every rank: each takes a share of whole matrices."""
    part = own_part(stack, dtype, ranks)
    parts = [torch.empty_like(part) for _ in range(ranks.world_size)]
    dist.all_gather(parts, part)
    return torch.cat(parts)[: len(stack)]


def own_part(stack: Tensor, dtype: torch.dtype, ranks: Ranks) -> Tensor:
    """This rank's share of `divided`, (n / ranks rounded up, rows, columns); zeros where it has fewer matrices."""
    share = -(-len(stack) // ranks.world_size)
    own = stack[ranks.rank * share : (ranks.rank + 1) * share]
    part = torch.zeros((share, *stack.shape[1:]), dtype=dtype, device=stack.device)
    if len(own):
        part[: len(own)] = orthogonalize(own, dtype)
    return part


def divided_validation_loss(
    update: Update,
    corpus: TokenizedCorpus,
    preset: Preset,
    ranks: Ranks,
    stopping: Callable[[], bool],
    whole: bool,
    windows: WorstWindows,
) -> ValidationLoss | None:
    """`corpus_validation_loss` with its batches divided among the ranks, each token counted once; all ranks call it.

    Rank 0 decides before each round of a batch a rank whether to stop. `windows` observe the batches of all ranks.
    """
    table, with_accuracy = preset.training, preset.evaluation is not None and "accuracy" in preset.evaluation.metrics
    tokens, lengths = None if whole else table.eval_tokens, corpus.tokenizer.token_bytes()
    batches = evaluation_batches(
        corpus.validation, table.batch_size, table.sequence_length, tokens, corpus.validation_mask
    )
    sums = (0.0, 0, 0, 0)  # nats, tokens, bytes, tokens predicted right
    while batch := list(itertools.islice(batches, ranks.world_size)):
        if ranks.decided(stopping()):
            return None
        own = batch[ranks.rank : ranks.rank + 1]
        if update.is_sharded and not own:  # the others need this rank's share of the weights
            inputs, targets = batch[0]
            own = [(inputs, torch.full_like(targets, IGNORED))]
        loss = validation_loss(
            update.model, own, lengths, update.precision, with_accuracy=with_accuracy, observer=windows
        )
        found = (loss.nats, loss.tokens, loss.bytes, loss.correct or 0)
        sums = tuple(map(operator.add, sums, found))
    nats, *counts = ranks.sums(*sums)
    windows.add_those_of_others(ranks.gathered(windows.kept))
    if ranks.decided(stopping()):
        return None
    counted, text_bytes, correct = map(int, counts)
    return ValidationLoss(nats, counted, text_bytes, correct if with_accuracy else None)
