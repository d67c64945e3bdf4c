"""A copy of the network under training, for the chat, if there is memory for it."""

import copy
from concurrent.futures import Future

import torch

from gpt2tui.data.tokenizers import Tokenizer
from gpt2tui.device import is_out_of_memory
from gpt2tui.errors import ResourceError, first_line
from gpt2tui.generation import (
    ON_CPU_BESIDE_TRAINING,
    SHARE_OF_FREE_MEMORY,
    GpuUse,
    TextModel,
    allowed_device,
    bytes_needed,
)
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.system.host_memory import free_bytes
from gpt2tui.training.state import TrainingState


def copy_weights(reply: "Future[TextModel]", state: TrainingState, tokenizer: Tokenizer, run: str) -> None:
    """Sets the result of `reply`: the network of this step, or an error; raises nothing itself.

    A copy that a GPU has no room for is made on the CPU, and its `placement_note` says so.
    """
    source = f"{run}, live at step {state.step}"
    try:
        device = _device_with_room(state)
        note = None if device == state.model.wte.weight.device else ON_CPU_BESIDE_TRAINING
        copy_of_model = copied(state.model, device)
        length = state.preset.training.sequence_length
        sampling, template = state.preset.sampling, state.preset.data.example_template
        live = TextModel(copy_of_model, tokenizer, source, length, sampling, placement_note=note, template=template)
        reply.set_result(live)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            reply.set_exception(error)
            return
        reply.set_exception(ResourceError(f"the weights could not be copied: {first_line(error)}"))
    except ResourceError as error:
        reply.set_exception(error)


def copied(model: GPT2, device: torch.device) -> GPT2:
    """The network on `device`, for generation only; allocates nothing there but the copy."""
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = torch.nn.Parameter(parameter.detach().to(device, copy=True), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach().to(device, copy=True)
    return copy.deepcopy(model, memo).eval()


def _device_with_room(state: TrainingState) -> torch.device:
    """The model's device or the CPU. Raises ResourceError when neither has room."""
    # Before the first step nobody knows what the training needs.
    gpu: GpuUse = "spare" if state.step > state.first_step else "none"
    device = allowed_device(state.model, state.model.wte.weight.device, gpu)
    if device.type == "cuda":
        return device
    needed = bytes_needed(state.model)
    free = free_bytes()
    if needed > SHARE_OF_FREE_MEMORY * free:
        raise ResourceError(
            f"there is no room beside the training for a copy of the weights: it needs {needed / 1e6:,.0f} MB of "
            f"{free / 1e6:,.0f} MB that are free; stop the training, or wait for its end, and choose a checkpoint"
        )
    return device
