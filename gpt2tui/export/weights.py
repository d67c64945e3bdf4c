"""Export as one safetensors file: the weights alone, under the published names and layouts."""

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from gpt2tui.errors import CheckpointError
from gpt2tui.export.verification import DTYPES, Checked, Dtype, Reference, logits_of, require_same_tensors
from gpt2tui.generation import TextModel
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.huggingface import from_published, to_published
from gpt2tui.model.published_config import published_config
from gpt2tui.run import checkpoint


def write(model: TextModel, path: Path, dtype: Dtype) -> None:
    """Writes the weights as `dtype`."""
    save_file(_published(model, dtype), path, {"format": "pt"})


def check(model: TextModel, path: Path, dtype: Dtype, reference: Reference) -> Checked:
    """Reads the file back and runs it. Raises CheckpointError when it is not the model."""
    tensors = require_written(model, path, dtype)
    config = published_config(model.model.config, model.tokenizer.eot)
    try:
        shape, state = from_published(tensors, config)
    except ValueError as error:
        raise CheckpointError(f"the exported weights are not the model: {error}") from error
    network = GPT2(shape)
    network.load_state_dict(state)
    return Checked((reference.verify("gpt2tui", logits_of(network.eval()), dtype),))


def require_written(model: TextModel, path: Path, dtype: Dtype) -> dict[str, Tensor]:
    """The tensors of a file. Raises CheckpointError unless they are those of the model, rounded to `dtype`."""
    tensors = checkpoint.load_tensors(path)
    require_same_tensors(_published(model, dtype), tensors)
    return tensors


def _published(model: TextModel, dtype: Dtype) -> dict[str, Tensor]:
    tensors = to_published(model.model.state_dict(), model.model.config)
    return {name: tensor.to(DTYPES[dtype]) for name, tensor in tensors.items()}
