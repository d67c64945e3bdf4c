"""AdamW and Muon over the right parameters: matrices decay, biases and layer norms do not."""

import torch
from torch import Tensor, nn

from gpt2tui.preset import Preset
from gpt2tui.training.muon import Muon
from gpt2tui.training.schedules import learning_rate_factor


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
        """Drops the gradients, so that the next backward pass writes instead of adding."""
        for optimizer, _ in self.all:
            optimizer.zero_grad()

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
