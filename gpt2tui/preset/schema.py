"""The schema of a preset: one typed object for TOML files, `--set`, the form, `--help` and checkpoints.

A setting is one field here and nowhere else: its type, its bounds, its unit and the sentence under it are what
the form shows, what the validation says and what `gpt2tui presets schema` prints. Imports no torch.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from model.config import GPT2Config, Inconsistency

DEFAULT_BPE_VOCAB_SIZE = 4096
GPT2_VOCAB_SIZE = 50257
BYTE_VOCAB_SIZE = 257  # 256 bytes and <|endoftext|>
# What a preset that leaves model.vocab_size out will have; `char` is known only when the corpus has been read.
VOCAB_SIZES = {"gpt2": GPT2_VOCAB_SIZE, "bpe": DEFAULT_BPE_VOCAB_SIZE, "byte": BYTE_VOCAB_SIZE}


class Table(BaseModel):
    """What all tables share: no unknown key, no silent conversion, no NaN, never changed once made."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class DataTable(Table):
    """Where the text comes from and how it becomes tokens."""

    source: str = Field(default="python-stdlib", min_length=1, max_length=4096)
    """The corpus: python-stdlib, wikitext-103, wikitext-2, hf:<id>[:<config>], or a path or glob of .txt .md .py
    .jsonl .csv .parquet files, gzipped or not."""

    tokenizer: Literal["gpt2", "bpe", "char", "byte"] = "gpt2"
    """How text is cut into tokens: GPT-2's own vocabulary, byte pairs trained on the corpus (on its first 32 MiB, in
    UTF-8), characters, or bytes."""

    validation_fraction: float = Field(default=0.05, gt=0.0, le=0.5)
    """The share of the documents held out to measure with, unless the corpus has a validation split of its own."""

    streaming: bool = False
    """Read the corpus while training instead of preparing it on disk first; for corpora that do not fit."""

    text_column: str = Field(default="text", min_length=1, max_length=256)
    """The column that holds the text, in jsonl, csv, parquet and Hub data sets."""


class OptimizerTable(Table):
    """How the gradient becomes a change of the weights."""

    name: Literal["adamw", "muon"] = "adamw"
    """AdamW for everything, or Muon for the hidden matrices and AdamW for the rest."""

    lr: float = Field(default=3e-4, gt=0.0, le=10.0)
    """The peak learning rate of AdamW."""

    muon_lr: float = Field(default=0.02, gt=0.0, le=10.0)
    """The peak learning rate of Muon; used only with name = "muon", and scheduled like lr."""

    weight_decay: float = Field(default=0.1, ge=0.0, le=10.0)
    """How strongly matrices are pulled towards zero each step; biases and layer norms are left alone."""

    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """How long AdamW remembers the direction of the gradient."""

    beta2: float = Field(default=0.95, ge=0.0, lt=1.0)
    """How long AdamW remembers the size of the gradient."""

    muon_momentum: float = Field(default=0.95, ge=0.0, lt=1.0)
    """How long Muon remembers the direction of the gradient."""

    grad_clip: float = Field(default=1.0, ge=0.0, le=1e6)
    """Gradients whose norm is larger are scaled down to it; 0 turns clipping off."""


class ScheduleTable(Table):
    """How the learning rate changes along the run."""

    name: Literal["constant", "linear", "cosine", "wsd"] = "constant"
    """After the warm-up: stay, fall in a line, fall along a half cosine, or (wsd) stay and then fall in a line."""

    warmup_iterations: int = Field(default=0, ge=0, le=1_000_000_000, json_schema_extra={"unit": "steps"})
    """The learning rate rises in a line from zero to its peak over this many steps."""

    min_lr: float = Field(default=0.0, ge=0.0, le=10.0)
    """Where the learning rate ends; must not be above optimizer.lr."""

    decay_fraction: float = Field(default=0.2, gt=0.0, le=1.0)
    """The share of the run, at its end, in which wsd falls from the peak to min_lr."""


class TrainingTable(Table):
    """The loop: how long, how much at once, on what, and what happens every so often."""

    num_iterations: int = Field(default=10_000, ge=1, le=1_000_000_000, json_schema_extra={"unit": "steps"})
    """How many times the weights are updated."""

    time_budget: float = Field(default=0.0, ge=0.0, le=1e9, json_schema_extra={"unit": "seconds"})
    """Take fewer iterations where more would not fit into this time of training steps; 0 means no limit."""

    batch_size: int = Field(default=4, ge=1, le=65_536, json_schema_extra={"unit": "sequences"})
    """How many sequences one device handles at once (one micro-batch)."""

    gradient_accumulation: int = Field(default=1, ge=1, le=65_536, json_schema_extra={"unit": "micro-batches"})
    """How many micro-batches make one step, counted over all devices; more of them cost time, not memory."""

    sequence_length: int = Field(default=64, ge=1, le=1_048_576, json_schema_extra={"unit": "tokens"})
    """How many tokens one training sequence has; at most model.n_positions."""

    seed: int = Field(default=1337, ge=0, le=2**63 - 1)
    """The start of all randomness: the same seed gives the same run."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """The number format of the matrix products; auto takes bf16 where the device is fast at it, else
    fp32 (fp16 on older GPUs)."""

    compile: Literal["auto", "on", "off"] = "auto"
    """Whether torch.compile builds faster code first; auto does for long runs on GPUs, and on CPUs in bf16."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")
    """Where to compute: auto (the first of cuda, mps, cpu that exists), cpu, cuda, cuda:1, mps."""

    eval_frequency: int = Field(default=250, ge=0, le=1_000_000_000, json_schema_extra={"unit": "steps"})
    """The held-out loss is measured every so many steps, and always at the end; 0 means only at the end."""

    eval_tokens: int = Field(default=65_536, ge=1, le=1_000_000_000_000, json_schema_extra={"unit": "tokens"})
    """How many tokens of the validation text each evaluation predicts, in whole windows of sequence_length: always the
    same ones, for any batch_size. The last evaluation reads all of the text."""

    checkpoint_frequency: int = Field(default=500, ge=0, le=1_000_000_000, json_schema_extra={"unit": "steps"})
    """A checkpoint is saved every so many steps, and always at the end; 0 means only at the end."""

    keep_checkpoints: int = Field(default=3, ge=1, le=1_000_000)
    """How many of the newest checkpoints stay on disk, besides the best one."""

    sample_frequency: int | None = Field(default=None, ge=0, le=1_000_000_000, json_schema_extra={"unit": "steps"})
    """The model writes a sample every so many steps. Left out: at every evaluation; 0 means never."""


class SamplingTable(Table):
    """What the model is asked to write while it learns, and the defaults of `sample` and the chat."""

    prompt: str = Field(default="", max_length=100_000)
    """The text to continue. Empty: start a new document."""

    temperature: float = Field(default=0.8, ge=0.0, le=100.0)
    """How daring the choice of each token is: 0 always takes the likeliest, 1 follows the model's own odds."""

    top_k: int = Field(default=50, ge=0, le=1_000_000, json_schema_extra={"unit": "tokens"})
    """Choose only among this many of the likeliest tokens; 0 means among all."""

    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Choose only among the likeliest tokens that together have this probability; 1 means among all."""

    max_length: int = Field(default=100, ge=1, le=1_000_000, json_schema_extra={"unit": "tokens"})
    """How many tokens to write at most, after the prompt."""

    seed: int = Field(default=1337, ge=0, le=2**63 - 1)
    """The same seed writes the same text."""


class TrackingTable(Table):
    """Weights & Biases, beside the run folder that is always written."""

    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Send metrics nowhere, keep them in a local folder to sync later, or send them as they come."""

    project: str = Field(default="gpt2tui", min_length=1, max_length=128)
    """The W&B project that the run belongs to."""

    run_name: str = Field(default="", max_length=128)
    """The run's name in W&B; empty means the name of the run folder."""

    tags: list[str] = Field(default=[], max_length=64)
    """Labels to find the run by in W&B."""


class Preset(Table):
    """Everything that defines a training run."""

    description: str = Field(default="", max_length=10_000)
    """What the preset is for, in a sentence."""

    model: GPT2Config = GPT2Config()
    data: DataTable = DataTable()
    optimizer: OptimizerTable = OptimizerTable()
    schedule: ScheduleTable = ScheduleTable()
    training: TrainingTable = TrainingTable()
    sampling: SamplingTable = SamplingTable()
    tracking: TrackingTable = TrackingTable()

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one update of the weights has seen, over all micro-batches and ranks."""
        t = self.training
        return t.batch_size * t.gradient_accumulation * t.sequence_length

    @property
    def known_vocab_size(self) -> int | None:
        """The size of the vocabulary where the preset alone decides it, as it does for all but `char`."""
        return self.model.vocab_size or VOCAB_SIZES.get(self.data.tokenizer)

    @property
    def known_parameters(self) -> int | None:
        """The exact number of parameters where the preset alone decides it, as it does for all but `char`."""
        size = self.known_vocab_size
        return self.with_vocab_size(size).model.parameter_count() if size else None

    def with_vocab_size(self, vocab_size: int) -> "Preset":
        """The same preset with the vocabulary's size filled in, as a run freezes it."""
        return self.model_copy(update={"model": self.model.model_copy(update={"vocab_size": vocab_size})})

    def with_training(self, **changes: object) -> "Preset":
        """The same preset with other values in its [training], which are not validated."""
        return self.model_copy(update={"training": self.training.model_copy(update=changes)})

    def inconsistencies(self) -> list[Inconsistency]:
        """What bounds of single fields cannot see, with dotted keys; empty when all fits together."""
        found = [
            Inconsistency(f"model.{each.key}", each.message, tuple(f"model.{key}" for key in each.partners))
            for each in self.model.inconsistencies()
        ]

        def report(key: str, message: str, *partners: str) -> None:
            found.append(Inconsistency(key, message, partners))

        t, data, schedule = self.training, self.data, self.schedule
        if t.sequence_length > self.model.n_positions:
            report(
                "training.sequence_length",
                f"{t.sequence_length} is more than model.n_positions = {self.model.n_positions}, "
                "the longest text the model can see",
                "model.n_positions",
            )
        if schedule.warmup_iterations > t.num_iterations:
            report(
                "schedule.warmup_iterations",
                f"{schedule.warmup_iterations} is more than training.num_iterations = {t.num_iterations}",
                "training.num_iterations",
            )
        if schedule.min_lr > self.optimizer.lr:
            report(
                "schedule.min_lr",
                f"{schedule.min_lr} is above optimizer.lr = {self.optimizer.lr}, its peak",
                "optimizer.lr",
            )
        if t.precision == "fp16" and t.device == "cpu":
            report("training.precision", "fp16 needs a GPU; on the CPU choose fp32, bf16 or auto", "training.device")
        smallest = {"gpt2": GPT2_VOCAB_SIZE, "byte": BYTE_VOCAB_SIZE, "bpe": BYTE_VOCAB_SIZE, "char": 2}[data.tokenizer]
        if self.model.vocab_size is not None and self.model.vocab_size < smallest:
            report(
                "model.vocab_size",
                f"{self.model.vocab_size} is smaller than the {data.tokenizer} tokenizer needs, {smallest}; "
                "leave it out to have it filled in",
                "data.tokenizer",
            )
        if data.streaming and data.tokenizer == "char":
            report(
                "data.tokenizer",
                "char must read the whole corpus first, which streaming does not; choose byte",
                "data.streaming",
            )
        return found
