"""Generation, timed: prompts of random tokens continued by a fixed number of tokens, one alone and several at once."""

import time

import torch
from torch import Tensor

from gpt2tui.benchmark.job import Generate, Job, Precisions, ReadyCandidate, Round, batch_sizes
from gpt2tui.benchmark.machine import peak_memory
from gpt2tui.generation import decoder_of
from gpt2tui.model.cpu import tune_for_cpu
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.sampling import generate
from gpt2tui.preset.schema import Preset

LONGEST_PROMPT = 64
MOST_TOKENS = 128
WARM_UP_TOKENS = 4


def lengths(preset: Preset) -> tuple[int, int]:
    """Tokens of the prompt and tokens to generate; together at most n_positions, unless that is 1."""
    n_positions = preset.model.n_positions
    prompt = max(1, min(LONGEST_PROMPT, n_positions // 4))
    return prompt, max(1, min(MOST_TOKENS, n_positions - prompt))


def generation_candidate(job: Job) -> ReadyCandidate:
    """One candidate's generation; prompts and sampling settings are the same for all, the weights random.

    Its rounds hold the seconds to the first token and to the last for each batch size: "first 1", "all 1", "first 16",
    "all 16".
    """
    device = torch.device(job.preset.training.device)
    (length, count), sizes = lengths(job.preset), batch_sizes(device)
    if job.candidate == "gpt2tui":
        run, precision = our_generation(job.preset, device)
    else:
        from gpt2tui.benchmark.baselines import transformers_generation

        run, precision = transformers_generation(job.preset, device, best=job.candidate == "transformers-best")
    generator = torch.Generator().manual_seed(job.preset.sampling.seed)
    prompts = torch.randint(job.preset.model.vocab_size or 0, (max(sizes), length), generator=generator)

    def warm_up() -> None:
        for size in sizes:
            run(prompts[:size], min(WARM_UP_TOKENS, count))

    def generate_for(seconds: float) -> Round:
        if job.warm_up_rounds:
            warm_up()
        measured: dict[str, list[float]] = {}
        end = time.perf_counter() + seconds
        while not measured or time.perf_counter() < end:
            for size in sizes:
                for what, taken in zip(("first", "all"), run(prompts[:size], count), strict=True):
                    measured.setdefault(f"{what} {size}", []).append(taken)
        return Round(measured, peak_memory(device))

    warm_up()
    return {"precision": precision}, generate_for


def our_generation(preset: Preset, device: torch.device) -> tuple[Generate, Precisions]:
    """Generation as in `sample`, with the preset's sampling settings."""
    torch.manual_seed(preset.training.seed)
    model, s = tune_for_cpu(GPT2(preset.model)).to(device).eval(), preset.sampling
    decoder = decoder_of(model, "auto", graphs=True)

    def run(prompt: Tensor, count: int) -> tuple[float, float]:
        generator = torch.Generator().manual_seed(s.seed)
        chosen = {"temperature": s.temperature, "top_k": s.top_k, "top_p": s.top_p}
        started = time.perf_counter()
        marks = [
            time.perf_counter() - started
            for _ in generate(model, prompt, max_length=count, generator=generator, decoder=decoder, **chosen)  # type: ignore[arg-type]
        ]
        assert len(marks) == count
        return marks[0], marks[-1]

    def precision(size: int) -> str:
        return "fp16" if decoder and decoder.dtype == torch.float16 and decoder.reads(size, 1) else "fp32"

    return run, {size: precision(size) for size in batch_sizes(device)}
