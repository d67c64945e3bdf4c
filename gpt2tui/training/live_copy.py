"""A copy of the network for the chat while it is being trained, where there is room for one."""

import copy
from concurrent.futures import Future

import psutil
import torch

from gpt2tui.data.tokenizers import Tokenizer
from gpt2tui.device import is_out_of_memory
from gpt2tui.errors import ResourceError, first_line
from gpt2tui.generation import POSITIONS_AT_ONCE, TextModel
from gpt2tui.training.state import TrainingState
from model.gpt2 import GPT2

SHARE_OF_FREE_MEMORY = 0.5  # a copy that would take more, with what writing needs, is not made there


def copy_weights(wanted: "Future[TextModel]", state: TrainingState, tokenizer: Tokenizer, run: str) -> None:
    """Answers `wanted` with the network of this step, or with a ResourceError; raises neither.

    A copy that a GPU has no room for is made on the CPU, and its `source` says so.
    """
    source = f"{run}, live at step {state.step}"
    try:
        device = _device_with_room(state)
        if device != state.model.wte.weight.device:
            source += ", on the CPU (the GPU has no room)"
        wanted.set_result(TextModel(copied(state.model, device), tokenizer, source, state.preset.sampling))
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            wanted.set_exception(error)
            return
        wanted.set_exception(ResourceError(f"the weights could not be copied: {first_line(error)}"))
    except ResourceError as error:
        wanted.set_exception(error)


def copied(model: GPT2, device: torch.device) -> GPT2:
    """The network on `device`, for writing only; nothing but the copy takes memory there."""
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = torch.nn.Parameter(parameter.detach().to(device, copy=True), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach().to(device, copy=True)
    return copy.deepcopy(model, memo).eval()


def bytes_needed(model: GPT2) -> int:
    """Memory for a copy and for one text of the model's whole context, of which a part may be read at once."""
    config = model.config
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    keys_and_values = 2 * config.n_layer * config.n_positions * config.n_embd * 4
    hidden = config.n_positions * 12 * config.n_embd * 4  # of the widest block: residual, qkv, MLP before and after
    logits = 3 * POSITIONS_AT_ONCE * model.wte.num_embeddings * 4  # logits, their softmax, and what is sorted
    return weights + keys_and_values + hidden + logits


def _device_with_room(state: TrainingState) -> torch.device:
    """The model's device or the CPU. Raises ResourceError when neither has room."""
    device, needed = state.model.wte.weight.device, bytes_needed(state.model)
    if (
        device.type == "cuda" and state.step > state.first_step
    ):  # before the first step nobody knows what training needs
        # What torch holds and does not use now is left to the next step.
        free, _ = torch.cuda.mem_get_info(device)
        if needed <= SHARE_OF_FREE_MEMORY * free:
            return device
    free = psutil.virtual_memory().available
    if needed > SHARE_OF_FREE_MEMORY * free:
        raise ResourceError(
            f"there is no room beside the training for a copy of the weights: it needs {needed / 1e6:,.0f} MB of "
            f"{free / 1e6:,.0f} MB that are free; choose a checkpoint after the training, or stop it"
        )
    return device if device.type == "mps" else torch.device("cpu")
