"""AdamW and Muon over the right parameters: matrices decay, biases and layer norms do not."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gpt2tui.preset import Preset
from gpt2tui.training.schedules import learning_rate_factor

# The quintic of Newton and Schulz whose slope at zero is steepest (Jordan et al. 2024, the Muon post).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def orthogonalize(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values of (..., m, n) go to about 1.

    The products run in `dtype`. In bf16 that is what torch.optim.Muon does; a CPU without bf16 instructions
    emulates them a hundred times slower than fp32.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.size(-2) > matrix.size(-1)
    x = matrix.to(dtype)
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        polynomial = (
            torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            if x.ndim == 3
            else torch.addmm(gram, gram, gram, beta=b, alpha=c)
        )
        x = torch.baddbmm(x, polynomial, x, beta=a) if x.ndim == 3 else torch.addmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Muon):
    """torch.optim.Muon with two differences, both inside `step`.

    The iteration runs in fp32 where bf16 is not native, and a fused qkv of shape (3C, C) is three matrices, each
    orthogonalised by itself as Jordan et al. recommend. State and arguments are torch's.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; `closure` is not used."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                momentum = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(momentum, group["momentum"])  # Nesterov
                rows, columns = parameter.shape
                if rows == 3 * columns:
                    update = update.view(3, columns, columns)
                    rows = columns
                update = orthogonalize(update, product_dtype(parameter.device)).reshape(parameter.shape)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * math.sqrt(max(1.0, rows / columns)))


def product_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the device multiplies it natively, else fp32."""
    from gpt2tui.training.precision import bf16_is_native

    return torch.bfloat16 if bf16_is_native(device) else torch.float32


class Optimizers:
    """The optimizers of a run as one thing: schedule, step, and state as named tensors."""

    def __init__(self, model: nn.Module, preset: Preset) -> None:
        """Splits the parameters of `model`, whose hidden matrices live in its blocks."""
        table = preset.optimizer
        self.preset = preset
        self.learning_rate_factor = 1.0
        """What a person has changed the schedule by, for all parameters alike; 1 is the preset's own."""
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        matrices = [p for p in self.names if p.ndim >= 2]
        vectors = [p for p in self.names if p.ndim < 2]
        hidden = [p for p in matrices if table.name == "muon" and self.names[p].startswith("h.")]
        rest = [p for p in matrices if not any(p is h for h in hidden)]
        groups = [
            {"params": rest, "weight_decay": table.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.all: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.AdamW(groups, lr=table.lr, betas=(table.beta1, table.beta2), fused=True), table.lr)
        ]
        if hidden:
            muon = Muon(hidden, lr=table.muon_lr, weight_decay=table.weight_decay, momentum=table.muon_momentum)
            self.all.append((muon, table.muon_lr))

    def set_learning_rate(self, iteration: int) -> float:
        """Sets the rates for the update that follows `iteration` earlier ones; returns AdamW's."""
        factor = learning_rate_factor(self.preset, iteration) * self.learning_rate_factor
        for optimizer, peak in self.all:
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
        return self.preset.optimizer.lr * factor

    def step(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """Updates the weights and drops the gradients; with a scaler, not after an overflow."""
        for optimizer, _ in self.all:
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drops the gradients, so that the next backward pass writes instead of adding to zeros."""
        for optimizer, _ in self.all:
            optimizer.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """The moments as `<parameter>.<moment>` tensors; scalars as 0-d tensors."""
        tensors = {}
        for optimizer, _ in self.all:
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    tensors[f"{self.names[parameter]}.{key}"] = torch.as_tensor(value)
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Puts the moments back; none at all are those of an optimizer that has not taken a step.

        Raises ValueError when they are not those of this model and optimizer.
        """
        if not tensors:
            return
        expected = dict(self._expected_state())
        if wrong := sorted(set(expected) ^ set(tensors)):
            raise ValueError(f"the optimizer state has other tensors than this optimizer: {', '.join(wrong[:4])}")
        for key, shape in expected.items():
            if tensors[key].shape != shape:
                raise ValueError(f"{key} has shape {tuple(tensors[key].shape)}, not {tuple(shape)}")
            if tensors[key].dtype != torch.float32:
                raise ValueError(f"{key} is {tensors[key].dtype}, not torch.float32")
        for optimizer, _ in self.all:
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                prefix = self.names[parameter] + "."
                optimizer.state[parameter] = {
                    key: tensors[prefix + key].to(
                        device=parameter.device if tensors[prefix + key].ndim else None, copy=True
                    )
                    for key in _state_keys(optimizer)
                }

    def _expected_state(self) -> list[tuple[str, torch.Size]]:
        return [
            (f"{self.names[p]}.{key}", torch.Size() if key == "step" else p.shape)
            for optimizer, _ in self.all
            for group in optimizer.param_groups
            for p in group["params"]
            for key in _state_keys(optimizer)
        ]


def _state_keys(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    return ("momentum_buffer",) if isinstance(optimizer, Muon) else ("step", "exp_avg", "exp_avg_sq")
