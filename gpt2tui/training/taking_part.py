"""What a rank other than 0 does: each thing that rank 0 tells, until the end. It decides nothing and writes nothing."""

from gpt2tui.data.token_store import TokenizedCorpus
from gpt2tui.evaluation.worst_windows import WorstWindows
from gpt2tui.training.controls import Controls
from gpt2tui.training.distributed import Ranks
from gpt2tui.training.parallel import divided_validation_loss, whole_copy
from gpt2tui.training.state import TrainingState, tensors_to_save
from gpt2tui.training.step_meter import StepMeter


def take_part(state: TrainingState, corpus: TokenizedCorpus, ranks: Ranks, controls: Controls) -> int:
    """Trains until rank 0 ends the run; returns its exit code. A signal that `controls` have noted is passed to it.

    Raises DivergedError where rank 0 does, and RuntimeError when a rank has failed.
    """
    meter = StepMeter(state.preset, state.device, state.precision, ranks)
    while True:
        command, number = ranks.receive()
        match command:
            case "step":
                state.update.begin(state.batches.micro_batches(state.step), state.step, number)
                state.step += 1
                meter.exchange(controls.stop_signal)
            case "wait":
                meter.exchange(controls.stop_signal)
            case "evaluate":
                windows = WorstWindows()
                divided_validation_loss(state.update, corpus, state.preset, ranks, lambda: False, bool(number), windows)
            case "gather" if number:  # with moments, for a checkpoint
                tensors_to_save(state)
            case "gather":
                whole_copy(state.model)
            case "end":
                return int(number)
