"""One update: what is averaged, what moves, and that nothing does after a gradient that is not finite."""

import contextlib
import functools

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from gpt2tui.errors import DivergedError
from gpt2tui.model import loss as loss_module
from gpt2tui.model.cpu import tune_for_cpu
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.preset import files as preset_files
from gpt2tui.training.optimizers import Optimizers
from gpt2tui.training.update import Update, fresh_update, micro_batch_seed

V, T = 31, 8
SETTINGS = (
    "data.tokenizer=char", f"model.vocab_size={V}", f"model.n_positions={T}",
    "model.n_embd=16", "model.n_layer=2", "model.n_head=2",
    f"training.sequence_length={T}", "optimizer.name=muon", "optimizer.lr=0.01", "optimizer.weight_decay=0.1",
    "schedule.warmup_iterations=0",
)  # fmt: skip
SCALE = 2.0**10


def new_update(*overrides, late=False, scaled=False):
    update = fresh_update(preset_files.load(["default"], [*SETTINGS, *overrides]).preset, torch.device("cpu"), "fp32")
    update.async_metrics = late
    if scaled:
        update.scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    return update


def batch(rows=2, seed=1):
    return tuple(torch.randint(V, (2, rows, T), generator=torch.Generator().manual_seed(seed)))


def everything(update):
    """Copies of all weights, moments and step counters."""
    weights = {f"weight {name}": p.detach().clone() for name, p in update.model.named_parameters()}
    return weights | {name: tensor.clone() for name, tensor in update.optimizers.state_tensors().items()}


def spoil(update, name, value):
    """The next gradients of this parameter have this number in them."""
    parameter = dict(update.model.named_parameters())[name]
    return parameter.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor([1]), value))


BY_ADAMW, BY_MUON = ("wte.weight", "h.0.ln_1.bias"), ("h.0.attn.c_attn.weight", "h.1.mlp.c_fc.weight")


@pytest.mark.parametrize("name", [*BY_ADAMW, *BY_MUON])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("late", [False, True])
def test_with_a_scaler_one_gradient_that_is_not_finite_moves_nothing_and_halves_the_scale(name, value, late):
    update = new_update(late=late, scaled=True)
    update.run([batch()], 0)
    before = everything(update)
    hook = spoil(update, name, value)
    result = update.run([batch()], 1)
    assert not torch.tensor(result.grad_norm).isfinite()
    after = everything(update)
    assert after.keys() == before.keys()
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    assert update.scaler.get_scale() == SCALE / 2
    assert all(p.grad is None for p in update.model.parameters())

    hook.remove()  # the next update is that of a run which never saw the overflow
    untroubled = new_update(late=late, scaled=True)
    untroubled.run([batch()], 0)
    for each in (update, untroubled):
        each.run([batch()], 1)
    for key, tensor in everything(untroubled).items():
        torch.testing.assert_close(everything(update)[key], tensor, rtol=1e-5, atol=1e-7, msg=key)


@pytest.mark.parametrize("name", [*BY_ADAMW, *BY_MUON])
@pytest.mark.parametrize("late", [False, True])
def test_without_a_scaler_it_is_divergence_before_anything_has_moved(name, late):
    update = new_update(late=late)
    update.run([batch()], 0)
    before = everything(update)
    spoil(update, name, float("inf"))
    with pytest.raises(DivergedError, match="diverged at step 2"):
        update.run([batch()], 1)
    after = everything(update)
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    assert all(p.grad is None for p in update.model.parameters())


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_finite_gradient_moves_every_weight_moment_and_counter(late, scaled):
    update = new_update(late=late, scaled=scaled)
    update.run([batch()], 0)
    before = everything(update)
    update.run([batch(seed=2)], 1)
    after = everything(update)
    assert [key for key in before if torch.equal(before[key], after[key])] == []
    assert not scaled or update.scaler.get_scale() == SCALE


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_results_that_are_read_late_are_those_of_waiting_bit_for_bit(optimizer):
    now, later = (new_update(f"optimizer.name={optimizer}", late=late) for late in (False, True))
    for step in range(3):
        assert now.run([batch(seed=step)], step) == later.run([batch(seed=step)], step)
    waited, unwaited = everything(now), everything(later)
    assert [key for key in waited if not torch.equal(waited[key], unwaited[key])] == []


def test_a_gradient_that_stays_infinite_whatever_the_scale_is_divergence():
    update = new_update(scaled=True)
    spoil(update, "wte.weight", float("inf"))
    with pytest.raises(DivergedError):
        for step in range(12):  # 2^10, 2^9, ... 1
            update.run([batch()], step)
    assert update.scaler.get_scale() == 1.0


# ---- the mean of a step


@pytest.fixture
def gradients(monkeypatch):
    """What the update would have moved the weights with, and nothing moves."""
    found = {}

    def keep(self, found_inf=None):
        found.update({name: p.grad.clone() for name, p in update_under_test[0].model.named_parameters()})

    update_under_test = []
    monkeypatch.setattr(Optimizers, "step", keep)

    def of(update, micro_batches):
        update_under_test[:] = [update]
        return update.run(micro_batches, 0).train_loss, dict(found)

    return of


def masked(counts, ignored):
    """One micro-batch for each number of targets that count."""
    batches = []
    for seed, count in enumerate(counts):
        inputs, targets = batch(seed=seed)
        targets.view(-1)[torch.randperm(targets.numel())[count:]] = ignored
        batches.append((inputs, targets))
    return batches


@pytest.mark.parametrize("ignored", [-1, -100])
@pytest.mark.parametrize("counts", [(16, 16), (16, 3, 9), (1, 0, 16), (0, 5)])
def test_the_loss_of_a_step_is_the_mean_over_counted_targets(gradients, counts, ignored):
    micro_batches = masked(counts, ignored)
    whole = tuple(torch.cat(parts) for parts in zip(*micro_batches, strict=True))
    update = new_update("optimizer.grad_clip=0")
    loss, found = gradients(update, micro_batches)
    expected_loss, expected = gradients(update, [whole])
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=2e-5, atol=1e-7, msg=name)

    inputs, targets = whole  # and as plain torch has it
    logits = update.model(inputs)
    counted = targets.masked_fill(targets < 0, -100)
    theirs = F.cross_entropy(logits.flatten(0, 1), counted.flatten(), reduction="sum") / sum(counts)
    assert loss == pytest.approx(theirs.item(), rel=1e-6)
    names, parameters = zip(*update.model.named_parameters(), strict=True)
    for name, gradient in zip(names, torch.autograd.grad(theirs, parameters), strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=2e-5, atol=1e-7, msg=name)


def test_a_step_without_any_counted_target_is_zero_not_nan(gradients):
    loss, found = gradients(new_update(), masked((0, 0), -100))
    assert loss == 0.0
    assert not any(gradient.any() for gradient in found.values())


def test_with_as_many_targets_in_each_it_is_the_mean_of_the_means_to_the_bit(gradients):
    update, micro_batches = new_update("optimizer.grad_clip=0"), [batch(seed=seed) for seed in range(3)]
    _, found = gradients(update, micro_batches)
    for inputs, targets in micro_batches:
        (update.model(inputs, targets) / 3).backward()
    assert all(torch.equal(found[name], p.grad) for name, p in update.model.named_parameters())


# ---- what is handed in


@pytest.mark.parametrize("plain_logits", [loss_module.PLAIN_LOGITS, 0])
def test_a_padded_vocabulary_begins_with_the_same_weights_and_learns_the_same(monkeypatch, plain_logits):
    monkeypatch.setattr(loss_module, "PLAIN_LOGITS", plain_logits)
    plain, padded = new_update(), new_update()
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), padded.model.parameters(), strict=True))
    for step in range(3):
        for update, pads in ((plain, False), (padded, True)):
            monkeypatch.setattr(loss_module, "_pads", lambda weight, pads=pads: pads)
            update.run([batch(seed=step)], step)
    expected = everything(plain)
    for key, tensor in everything(padded).items():
        assert tensor.shape == expected[key].shape
        torch.testing.assert_close(tensor, expected[key], rtol=1e-5, atol=1e-7, msg=key)


def test_every_micro_batch_but_the_last_runs_without_sync():
    update = new_update()
    story = []

    @contextlib.contextmanager
    def no_sync():
        story.append("enter")
        yield
        story.append("leave")

    update.no_sync = no_sync
    update.model.register_forward_pre_hook(lambda *_: story.append("forward"))
    update.model.wte.weight.register_hook(lambda _: story.append("backward"))
    update.run([batch(seed=seed) for seed in range(3)], 0)
    alone = ["enter", "forward", "backward", "leave"]
    assert story == [*alone, *alone, "forward", "backward"]


class Wrapped(torch.nn.Module):
    """As DistributedDataParallel holds what it wraps."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *arguments):
        return self.module(*arguments)


def test_a_wrapped_network_continues_with_the_moments_of_an_unwrapped_one():
    plain = new_update()
    plain.run([batch(seed=0)], 0)
    model = tune_for_cpu(GPT2(plain.model.config))
    model.load_state_dict(plain.model.state_dict())
    wrapper = Wrapped(model)
    wrapped = Update(model, Optimizers(wrapper, plain.optimizers.table), torch.device("cpu"), "fp32")
    wrapped.forward = wrapper
    wrapped.optimizers.load_state_tensors(plain.optimizers.state_tensors())
    for step in range(1, 3):
        assert wrapped.run([batch(seed=step)], step) == plain.run([batch(seed=step)], step)
    expected, found = everything(plain), everything(wrapped)
    assert found.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


def test_dropout_depends_on_seed_step_and_micro_batch_alone():
    update = new_update("model.dropout=0.5")
    tokens = batch()

    def loss(iteration, index, seed=7):
        update.seed = seed
        return float(update._forward_backward([tokens] * (index + 1), iteration))

    alone = [loss(3, 0), loss(3, 1), loss(4, 0), loss(3, 0, seed=8)]
    assert len(set(alone)) == 4
    torch.manual_seed(5)
    assert [loss(3, 0), loss(3, 1), loss(4, 0), loss(3, 0, seed=8)] == alone


def test_seeds_of_micro_batches_differ():
    seeds = [micro_batch_seed(s, i, m) for s in (0, 1, 2**63 - 1) for i in range(40) for m in range(40)]
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)  # the CPU's generator reads 32 bits
    assert micro_batch_seed(1337, 0, 0) == micro_batch_seed(1337, 0, 0) < 2**64


# ---- activation checkpointing


def losses_of_five_steps(*overrides):
    update = new_update("model.dropout=0.2", "training.batch_size=2", *overrides)
    two = [[batch(seed=2 * step), batch(seed=2 * step + 1)] for step in range(5)]
    return [update.run(micro_batches, step).train_loss for step, micro_batches in enumerate(two)]


CHECKPOINTED = "training.activation_checkpointing=true"


def test_losses_are_bit_for_bit_the_same_with_activation_checkpointing():
    assert losses_of_five_steps(CHECKPOINTED) == losses_of_five_steps()


def test_a_recomputation_that_drops_something_else_gives_other_losses(monkeypatch):
    careless = functools.partial(checkpoint, preserve_rng_state=False)
    monkeypatch.setattr("gpt2tui.training.activation_checkpointing.checkpoint", careless)
    same, other = losses_of_five_steps(), losses_of_five_steps(CHECKPOINTED)
    assert other[0] == same[0]  # before the first backward pass
    assert max(abs(a - b) for a, b in zip(same, other, strict=True)) > 1e-4


def test_adapters_are_trained_with_activation_checkpointing():
    """The input of the first block needs no gradient there, and dropout is on the adapters' inputs too."""
    lora = ("model.init_from=someone/gpt2", "optimizer.name=adamw", "lora.rank=2", "lora.dropout=0.3")
    assert losses_of_five_steps(*lora, CHECKPOINTED) == losses_of_five_steps(*lora)
