"""Which errors are expected failures of a training, as messages that say what happened, where and what to do."""

from gpt2tui.data.batches import StreamBatches
from gpt2tui.data.token_store import TokenizedCorpus
from gpt2tui.device import is_out_of_memory
from gpt2tui.errors import DataError, Gpt2TuiError, ResourceError, first_line
from gpt2tui.preset.schema import Preset
from gpt2tui.run.folder import Run
from gpt2tui.system.files import cache_folder
from gpt2tui.training.state import TrainingState


def expected_failure(
    error: BaseException, run: Run, preset: Preset, corpus: TokenizedCorpus, state: TrainingState | None
) -> Gpt2TuiError | None:
    """The failure to show for an error in a training; None if it is a bug. `state` is None before the first event."""
    step = state.step if state else 0
    if isinstance(error, Gpt2TuiError):
        return error
    if is_out_of_memory(error):
        return ResourceError(
            f"out of memory on {state.device if state else preset.training.device} at step {step}: choose a smaller "
            "training.batch_size (with more gradient_accumulation), sequence_length or model"
        )
    if isinstance(error, OSError):
        return ResourceError(f"{error.filename or run.folder} cannot be used: {error.strerror or first_line(error)}")
    if isinstance(error, IndexError | RuntimeError) and state is not None and _reads_damaged_tokens(state):
        return DataError(
            f"the prepared tokens of {corpus.source} are damaged: step {step + 1} reads tokens beyond the "
            f"{state.preset.model.vocab_size:,} of the vocabulary; delete {cache_folder() / 'tokens'}, to have them "
            "prepared again, and resume the run"
        )
    return None


def _reads_damaged_tokens(state: TrainingState) -> bool:
    """Whether the batch of this step or of the previous one has tokens outside the vocabulary."""
    if isinstance(state.batches, StreamBatches):
        return False
    size = state.preset.model.vocab_size or 0
    batches = [state.batches.micro_batches(step) for step in (state.step, max(0, state.step - 1))]
    return any(int(tokens.max()) >= size for batch in batches for pair in batch for tokens in pair)
