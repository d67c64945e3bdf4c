"""One update of the weights: forward and backward over the micro-batches of a step, clipping, the optimizers."""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gpt2tui.device import Precision, autocast
from gpt2tui.errors import DivergedError
from gpt2tui.model.cpu import tune_for_cpu
from gpt2tui.model.gpt2 import GPT2, network_without_weights
from gpt2tui.model.lora import add_adapters, scale_of
from gpt2tui.model.nf4 import quantize_matrices
from gpt2tui.preset.schema import Preset
from gpt2tui.system.host_memory import give_back_freed_memory
from gpt2tui.training.activation_checkpointing import checkpoint_activations
from gpt2tui.training.distributed import Ranks, whole
from gpt2tui.training.optimizers import Optimizers

MASK = 2**64 - 1


@dataclass(frozen=True)
class StepMetrics:
    """Mean loss in nats per token, gradient norm before clipping, AdamW's learning rate."""

    train_loss: float
    grad_norm: float
    learning_rate: float


class AsyncStepMetrics:
    """The metrics of an update that the device may still be computing."""

    def __init__(
        self, loss: Tensor, grad_norm: Tensor, learning_rate: float, iteration: int, scale: Tensor | None = None
    ) -> None:
        """All tensors are scalars; `scale` is the factor by which the gradient scaler multiplied the loss."""
        self.learning_rate = learning_rate
        self.iteration = iteration
        scale = torch.ones_like(loss) if scale is None else scale
        self._numbers = torch.stack((loss.detach(), grad_norm.detach(), scale))  # (3,) on the device
        self._arrived: torch.cuda.Event | None = None
        if self._numbers.is_cuda:
            self._numbers = self._numbers.to("cpu", non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def read(self) -> StepMetrics:
        """Waits for the device. Raises DivergedError when the loss or the gradient norm is not finite.

        A gradient that is not finite is no error while the loss is scaled by more than 1: then the scale was too large.
        """
        if self._arrived is not None:
            self._arrived.synchronize()
        train_loss, grad_norm, scale = self._numbers.tolist()
        if not math.isfinite(train_loss) or (scale <= 1 and not math.isfinite(grad_norm)):
            raise DivergedError(
                f"training diverged at step {self.iteration + 1}: the loss is {train_loss:.4g}, the gradient norm "
                f"{grad_norm:.4g}"
            )
        return StepMetrics(train_loss, grad_norm, self.learning_rate)


class Update:
    """A network and its optimizers: computes and applies one step's gradient."""

    def __init__(
        self, model: GPT2, optimizers: Optimizers, device: torch.device, precision: Precision, seed: int = 0
    ) -> None:
        """`model` is on `device`, and `optimizers` hold its parameters. `seed` decides what dropout drops."""
        self.model = model
        self.seed = seed
        self.optimizers = optimizers
        self.device = device
        self.precision = precision
        self.forward: Callable[..., Tensor] = model
        """(inputs, targets) -> mean loss: the network itself, or its compiled or wrapped form."""
        self.no_sync: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        """The context for every micro-batch of a step but the last, so that ranks exchange gradients once per step."""
        self.ranks = Ranks()
        """The processes that share the micro-batches of a step."""
        self.is_sharded = False
        """Whether each rank has only a share of the weights, gradients and moments."""
        self.scaler = torch.amp.GradScaler(device.type) if precision == "fp16" else None
        self.async_metrics = device.type == "cuda"
        """Whether the caller should begin the next update before it reads metrics, so that the device never idles."""

    def run(
        self, micro_batches: Sequence[tuple[Tensor, Tensor]], iteration: int, learning_rate_factor: float = 1.0
    ) -> StepMetrics:
        """`begin`, then waits for the metrics."""
        return self.begin(micro_batches, iteration, learning_rate_factor).read()

    def begin(
        self, micro_batches: Sequence[tuple[Tensor, Tensor]], iteration: int, learning_rate_factor: float = 1.0
    ) -> AsyncStepMetrics:
        """The update after `iteration` earlier ones, on micro-batches of (inputs, targets) on the CPU.

        Both are (B, T) int64; negative targets are ignored, and the loss is the mean over all others of the step. Every
        optimizer's learning rate is its peak times `learning_rate_factor`. After a loss or a gradient that is not
        finite nothing changes: no weight, no moment, no step counter of any optimizer. A gradient scaler then halves
        its scale, if only the gradient is not finite; else a DivergedError is raised, here, or on CUDA when the metrics
        are read.
        """
        if not self.model.training:
            self.model.train()
        learning_rate = self.optimizers.set_learning_rate(learning_rate_factor)
        loss = self._forward_backward(micro_batches, iteration)
        norm = self._gradient_norm()
        scale = None if self.scaler is None else self.scaler.scale(torch.ones_like(loss))
        pending = AsyncStepMetrics(loss, norm, learning_rate, iteration, scale)
        try:
            if self.async_metrics:
                self._clip(norm)
                self.optimizers.step(found_inf=1.0 - (loss.isfinite() & norm.isfinite()).float())
            elif math.isfinite(pending.read().grad_norm):
                self._clip(norm)
                self.optimizers.step()
        finally:
            self.optimizers.zero_grad()
        if self.scaler is not None:
            self.scaler.update()
        return pending

    def forget(self) -> None:
        """Returns optimizers and gradient scaler to their state before the first step."""
        for optimizer, _ in self.optimizers.all:
            optimizer.state.clear()
        self.optimizers.zero_grad()
        if self.scaler is not None:
            self.scaler = torch.amp.GradScaler(self.device.type)

    def _forward_backward(self, micro_batches: Sequence[tuple[Tensor, Tensor]], iteration: int) -> Tensor:
        """Accumulates the gradient of the step's mean loss over all ranks; returns that loss, a scalar.

        Several ranks take the mean of their gradients, so each of their losses is multiplied by the number of ranks.
        """
        counts = [int((targets >= 0).sum()) for _, targets in micro_batches]
        (counted,) = self.ranks.sums(sum(counts))
        first, world_size = self.ranks.rank * len(counts), self.ranks.world_size
        total = torch.zeros((), device=self.device)
        for number, ((inputs, targets), count) in enumerate(zip(micro_batches, counts, strict=True), start=1):
            divisor = counted / (count * world_size) if count else math.inf  # loss / divisor is its part of the mean
            seed_generator(self.device, micro_batch_seed(self.seed, iteration, first + number - 1))
            with contextlib.nullcontext() if number == len(counts) else self.no_sync():
                with autocast(self.device, self.precision):
                    loss = self.forward(self._moved(inputs), self._moved(targets)) / divisor
                scaled = loss if self.scaler is None else self.scaler.scale(loss)
                scaled.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return self.ranks.add(total) / world_size if world_size > 1 else total

    def _moved(self, tokens: Tensor) -> Tensor:
        """The tokens on the device; on CUDA the copy is asynchronous."""
        if self.device.type == "cuda":
            return tokens.pin_memory().to(self.device, non_blocking=True)
        return tokens.to(self.device)

    def _gradient_norm(self) -> Tensor:
        """The norm of the unscaled gradient, a scalar."""
        if self.scaler is not None:
            for optimizer, _ in self.optimizers.all:
                self.scaler.unscale_(optimizer)
        return whole(torch.nn.utils.get_total_norm([p.grad for p in self._trained if p.grad is not None]))

    def _clip(self, norm: Tensor) -> None:
        """Scales a gradient of this norm down to `grad_clip`, unless that is 0."""
        limit = self.optimizers.table.grad_clip
        # Comparing the norm on a GPU would wait for it, so there the gradients are always scaled.
        if limit and (self.async_metrics or not norm <= limit):
            torch.nn.utils.clip_grads_with_norm_(self._trained, limit, norm)

    @functools.cached_property
    def _trained(self) -> list[nn.Parameter]:
        """The parameters in the network's order; collecting them takes a tenth of a step of a tiny network."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def micro_batch_seed(seed: int, iteration: int, micro_batch: int) -> int:
    """The seed of what is random in a micro-batch, of 64 bits; micro-batches of a step are counted over all ranks.

    By the mixing function of SplitMix64 (Steele et al. 2014). So a resumed run needs no random state, and a run is the
    same on any number of ranks.
    """
    z = seed
    for part in (iteration, micro_batch):
        z = (z + (part + 1) * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
    return z


def seed_generator(device: torch.device, seed: int) -> None:
    """Seeds the generator from which dropout on this device draws; not those of all devices, which takes 20 times as
    long."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def fresh_update(
    preset: Preset, device: torch.device, precision: Precision, weights: dict[str, Tensor] | None = None
) -> Update:
    """A network with the preset's optimizers; seeds the global random generator.

    Its weights are initialised from the preset's seed, or are those of `weights`. With [lora] they are frozen, and
    adapters are trained. With lora.quantize the weights are NF4. `weights` is emptied, so that each matrix is released
    when it has been copied or quantised.
    """
    torch.manual_seed(preset.training.seed)
    if weights is None:
        network = GPT2(preset.model)
    else:
        network = network_without_weights(preset.model)
        network.load_state_dict({name: weights.pop(name) for name in list(weights)}, assign=True)
    if preset.lora is not None and preset.lora.quantize is not None:
        quantize_matrices(network, device)
    if weights is not None:
        for parameter in network.parameters():
            # Tensors of a mapped file are not aligned as torch aligns its own, which can change the last bits.
            if not parameter.untyped_storage().resizable():  # memory that torch has not allocated
                parameter.data = parameter.detach().clone()
        give_back_freed_memory()
    model = tune_for_cpu(network).to(device)
    if lora := preset.lora:
        scale = scale_of(lora.alpha, lora.rank, lora.use_rslora)
        add_adapters(model, rank=lora.rank, scale=scale, dropout=lora.dropout, targets=lora.targets)
    if preset.training.activation_checkpointing:
        checkpoint_activations(model)
    return Update(model, Optimizers(model, preset.optimizer), device, precision, preset.training.seed)
