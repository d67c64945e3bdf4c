"""The schema of a preset: one typed object for TOML files, `--set`, the form, `--help` and checkpoints.

A setting is defined by one field here and nowhere else: the form, the validation and `gpt2tui presets schema` all use
its type, bounds, unit and docstring. Imports no torch.
"""

import difflib
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator, model_validator

from gpt2tui.model.config import LONGEST_CONTEXT, GPT2Config, Inconsistency
from gpt2tui.preset.mix import LONGEST_PERIOD, whole_weights
from gpt2tui.preset.template import Template

DEFAULT_BPE_VOCAB_SIZE = 4096
GPT2_VOCAB_SIZE = 50257
BYTE_VOCAB_SIZE = 257  # 256 bytes and <|endoftext|>
# The vocabulary of a preset without model.vocab_size; that of `char` is not known before the corpus has been read.
LORA_TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
VOCAB_SIZES = {"gpt2": GPT2_VOCAB_SIZE, "bpe": DEFAULT_BPE_VOCAB_SIZE, "byte": BYTE_VOCAB_SIZE}
EVALUATION_METRICS = ("accuracy", "bleu", "chrf", "rouge", "distinct", "repetition")
EXAMPLE_COLUMNS = ("prompt_column", "completion_column", "messages_column")


class Table(BaseModel):
    """The base of all tables: immutable, without unknown keys, silent conversions or NaN."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelTable(GPT2Config):
    """The shape of the network, and the weights that it starts from."""

    init_from: str | None = Field(default=None, min_length=1, max_length=4096)
    """The weights to start from, instead of random ones: openai-community/gpt2 or another model of the Hugging Face
    Hub, a folder in Hugging Face's GPT-2 form, a checkpoint, RUN or RUN@STEP. Shape and tokenizer are theirs."""

    @property
    def shape(self) -> GPT2Config:
        """The shape alone."""
        return GPT2Config(**self.model_dump(exclude={"init_from"}))


MIX = "data.mix"
"""The `data.source` of a corpus of several sources."""


class MixedSource(Table):
    """One of several sources of the training text."""

    source: str = Field(min_length=1, max_length=4096)
    """As data.source."""

    weight: float = Field(default=1.0, gt=0.0, le=1e6)
    """The source's share of the training sequences, relative to the weights of the others."""


class DataTable(Table):
    """Where the text comes from and how it becomes tokens."""

    source: str = Field(default="python-stdlib", min_length=1, max_length=4096)
    """The corpus: python-stdlib, python-docstrings (prompts and answers), wikitext-103, wikitext-2,
    hf:<id>[:<config>], or a file, folder or glob of text, rows or .bin tokens, relative to the preset's file."""

    tokenizer: Literal["gpt2", "bpe", "char", "byte"] = "gpt2"
    """How text is cut into tokens: GPT-2's own vocabulary, byte pairs trained on the corpus (on its first 32 MiB, in
    UTF-8), characters, or bytes."""

    validation_fraction: float = Field(default=0.05, gt=0.0, le=0.5)
    """The fraction of documents used for validation and not for training, unless the corpus has its own validation
    split."""

    streaming: bool = False
    """Read the corpus while training instead of preparing it on disk first; for corpora larger than the disk."""

    text_column: str | None = Field(default=None, min_length=1, max_length=256, json_schema_extra={"default": "text"})
    """The column that holds the text, in jsonl, json, csv, tsv, parquet and Hub data sets; data.text is text inside
    of data."""

    prompt_column: str | None = Field(default=None, min_length=1, max_length=256)
    """For prompts and answers instead of text: the column of the prompts."""

    completion_column: str | None = Field(default=None, min_length=1, max_length=256)
    """The column of the answers to the prompts in prompt_column."""

    messages_column: str | None = Field(default=None, min_length=1, max_length=256)
    """The column of conversations, instead of prompt_column and completion_column: lists of messages with a role
    (system, user or assistant) and their content."""

    template: str | None = Field(default=None, min_length=1, max_length=10_000)
    """The text that a prompt and its answer become: {prompt} and {completion} stand for them. Left out, it is that of
    the model to start from, else a line that begins with User: and one that begins with Assistant:."""

    loss_on: Literal["completion", "all"] = "completion"
    """Which tokens of prompts and answers the loss is over: those of the answers, or all."""

    split_on_end_of_text: bool = True
    """Whether <|endoftext|> alone on a line or between documents divides a text file into documents; within a sentence
    or quotes it is text."""

    mix: tuple[MixedSource, ...] = Field(default=(), max_length=64, strict=False)
    """Several sources instead of one, each with its weight: the share of its sequences in the training."""

    @field_serializer("mix")
    def _mix_as_list(self, mix: tuple[MixedSource, ...]) -> list[dict[str, Any]]:
        """As TOML and JSON give it back; a tuple only makes the table hashable."""
        return [each.model_dump() for each in mix]

    @model_validator(mode="before")
    @classmethod
    def _name_mix(cls, values: Any) -> Any:
        """Fills in the source of a mix."""
        return {"source": MIX, **values} if isinstance(values, dict) and values.get("mix") else values

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, values: Any) -> Any:
        """Fills in text_column, unless columns of prompts and answers are named."""
        if not isinstance(values, dict) or any(values.get(name) for name in EXAMPLE_COLUMNS):
            return values
        return values if values.get("text_column") is not None else {**values, "text_column": "text"}

    @property
    def sources(self) -> list[str]:
        """The sources of the corpus: one, or those of the mix."""
        return [each.source for each in self.mix] or [self.source]

    def of_source(self, source: str) -> "DataTable":
        """The same table for one source alone."""
        return self.model_copy(update={"source": source, "mix": ()})

    @property
    def has_examples(self) -> bool:
        """Whether the corpus is prompts and answers, not text."""
        return any(getattr(self, name) for name in EXAMPLE_COLUMNS)

    @property
    def example_template(self) -> Template | None:
        """The template of prompts and answers; None where the corpus is text."""
        if not self.has_examples:
            return None
        return Template() if self.template is None else Template(self.template)

    def inconsistencies(self) -> list[Inconsistency]:
        """The settings of a mix, and of prompts and answers, that do not fit each other."""
        found = self._mix_inconsistencies()

        def add(key: str, message: str, *partners: str) -> None:
            found.append(Inconsistency(key, message, partners))

        for one, other in (("prompt_column", "completion_column"), ("completion_column", "prompt_column")):
            if getattr(self, one) and not getattr(self, other) and not self.messages_column:
                add(one, f"{other} is missing, which goes with it")
        if self.messages_column and (self.prompt_column or self.completion_column):
            add(
                "messages_column",
                "a row is either a prompt and an answer or a list of messages; leave out this or prompt_column and "
                "completion_column",
                *(name for name in ("prompt_column", "completion_column") if getattr(self, name)),
            )
        if self.has_examples and self.text_column:
            named = next(name for name in EXAMPLE_COLUMNS if getattr(self, name))
            add(
                "text_column",
                f"the corpus is either text or prompts and answers; leave out text_column or {named}",
                named,
            )
        if self.template is not None and not self.has_examples:
            add("template", "it is for prompts and answers; name their columns in prompt_column and completion_column")
        elif self.template is not None and (problem := Template(self.template).problem):
            add("template", problem)
        if self.has_examples and self.streaming:
            add(
                "streaming",
                "prompts and answers are laid into windows before training; leave out streaming",
                next(name for name in EXAMPLE_COLUMNS if getattr(self, name)),
            )
        return found

    def _mix_inconsistencies(self) -> list[Inconsistency]:
        found = []
        if self.tokenizer != "gpt2" and any(source.endswith(".bin") for source in self.sources):
            message = f"{self.tokenizer} is not gpt2, whose tokens are in files that end in .bin"
            found.append(Inconsistency("tokenizer", message, ("mix" if self.mix else "source",)))
        if self.source == MIX and not self.mix:
            found.append(Inconsistency("source", "it stands for the sources of [[data.mix]], and there are none", ()))
        if not self.mix:
            return found
        if self.source != MIX:
            found.append(Inconsistency("mix", "the corpus is either a source or a mix; leave out one", ("source",)))
        if twice := [name for name in dict.fromkeys(self.sources) if self.sources.count(name) > 1]:
            found.append(Inconsistency("mix", f"it names {twice[0][:200]} twice; add the weights up", ()))
        if MIX in self.sources:
            found.append(Inconsistency("mix", "a mix cannot be a source of itself", ()))
        period = sum(whole_weights([each.weight for each in self.mix]))
        if period > LONGEST_PERIOD:
            message = (
                f"as whole numbers the weights add up to {period:,}, and {LONGEST_PERIOD:,} is the most; round them, "
                "or write 1 and 2 for thirds"
            )
            found.append(Inconsistency("mix", message, ()))
        if self.streaming:
            message = "the windows of a mix are taken from prepared tokens; leave out streaming"
            found.append(Inconsistency("streaming", message, ("mix",)))
        return found


class OptimizerTable(Table):
    """How the weights are updated from their gradients."""

    name: Literal["adamw", "muon"] = "adamw"
    """AdamW for everything, or Muon for the hidden matrices and AdamW for the rest."""

    lr: float = Field(default=3e-4, gt=0.0, le=10.0)
    """The peak learning rate of AdamW."""

    muon_lr: float = Field(default=0.02, gt=0.0, le=10.0)
    """The peak learning rate of Muon; used only with name = "muon"; follows the same schedule as lr."""

    weight_decay: float = Field(default=0.1, ge=0.0, le=10.0)
    """How strongly each step pulls matrices towards zero; biases and layer norms are not decayed."""

    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """The decay rate of AdamW's moving average of gradients; higher averages over more steps."""

    beta2: float = Field(default=0.95, ge=0.0, lt=1.0)
    """The decay rate of AdamW's moving average of squared gradients; higher averages over more steps."""

    muon_momentum: float = Field(default=0.95, ge=0.0, lt=1.0)
    """The decay rate of Muon's moving average of gradients; higher averages over more steps."""

    grad_clip: float = Field(default=1.0, ge=0.0, le=1e6)
    """The largest norm of the gradient; a larger gradient is scaled down to it. 0 turns clipping off."""


class ScheduleTable(Table):
    """How the learning rate changes during the run."""

    name: Literal["constant", "linear", "cosine", "wsd"] = "constant"
    """After the warm-up: constant, a linear or a cosine decay, or wsd (warmup-stable-decay): constant, then a linear
    decay."""

    warmup_iterations: int = Field(default=0, ge=0, le=1_000_000_000, json_schema_extra={"unit": "steps"})
    """The number of steps over which the learning rate rises linearly from zero to its peak."""

    min_lr: float = Field(default=0.0, ge=0.0, le=10.0)
    """The learning rate at the end of the decay; at most optimizer.lr."""

    decay_fraction: float = Field(default=0.2, gt=0.0, le=1.0)
    """The last fraction of the run, in which wsd decays from the peak to min_lr."""


class TrainingTable(Table):
    """The training loop: length, batch, device, and how often it evaluates and saves."""

    num_iterations: int = Field(default=10_000, ge=1, le=1_000_000_000, json_schema_extra={"unit": "steps"})
    """How many steps to train; each updates the weights once."""

    time_budget: float = Field(default=0.0, ge=0.0, le=1e9, json_schema_extra={"unit": "seconds"})
    """About how long a run takes, from the preparation of its data to the last evaluation, pauses not counted. Where
    num_iterations would take longer, the run takes fewer steps, estimated from its first ones; 0 means no limit."""

    target_loss: float | None = Field(default=None, gt=0.0, le=1e6, json_schema_extra={"unit": "nats per token"})
    """The run ends at the first evaluation whose validation loss is this low. Left out: the loss ends no run."""

    patience: int | None = Field(default=None, ge=1, le=1_000_000_000, json_schema_extra={"unit": "evaluations"})
    """The run ends after this many evaluations in a row without a new lowest validation loss. Left out: it takes
    all its steps."""

    batch_size: int = Field(default=4, ge=1, le=65_536, json_schema_extra={"unit": "sequences"})
    """How many sequences one device processes at once: a micro-batch."""

    gradient_accumulation: int = Field(default=1, ge=1, le=65_536, json_schema_extra={"unit": "micro-batches"})
    """How many micro-batches make up one step, over all devices; more of them take time, not memory."""

    sequence_length: int = Field(default=1024, ge=1, le=LONGEST_CONTEXT, json_schema_extra={"unit": "tokens"})
    """The number of tokens in a training sequence, at most model.n_positions, which it is where left out. The model
    never uses more context than this, because later positions are not trained."""

    seed: int = Field(default=1337, ge=0, le=2**63 - 1)
    """The random seed of the initial weights and the order of the data; the same seed gives the same run."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """The number format of the matrix products; auto chooses bf16 where the device computes it fast, otherwise fp32
    (fp16 on older GPUs)."""

    compile: Literal["auto", "on", "off"] = "auto"
    """Whether to compile the model with torch.compile; auto compiles long runs on GPUs, and on CPUs in bf16."""

    activation_checkpointing: bool = False
    """Whether to keep only the input of each block and compute the rest again for the backward pass: much less memory,
    about a third more time, the same losses."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")
    """The device to train on: auto (the first of cuda, mps, cpu that is available), cpu, cuda, cuda:1, mps."""

    eval_frequency: int = Field(default=250, ge=0, le=1_000_000_000, json_schema_extra={"unit": "steps"})
    """The number of steps between evaluations of the validation loss; the end of the run is always evaluated. 0: only
    the end."""

    eval_tokens: int = Field(default=65_536, ge=1, le=1_000_000_000_000, json_schema_extra={"unit": "tokens"})
    """How many validation tokens each evaluation predicts, in whole windows of sequence_length: the same ones at every
    evaluation and for any batch_size. The last evaluation uses the whole validation text."""

    checkpoint_frequency: int = Field(default=500, ge=0, le=1_000_000_000, json_schema_extra={"unit": "steps"})
    """The number of steps between checkpoints; the end of the run is always saved. 0: only the end."""

    keep_checkpoints: int = Field(default=3, ge=1, le=1_000_000)
    """How many of the newest checkpoints to keep on disk, besides the best one."""

    sample_frequency: int | None = Field(default=None, ge=0, le=1_000_000_000, json_schema_extra={"unit": "steps"})
    """The number of steps between sample texts of the model. Left out: one at every evaluation; 0: none."""


class LoraTable(Table):
    """Adapters (LoRA, Hu et al. 2021): the weights stay as they are, and a product of two narrow matrices is trained
    beside each."""

    rank: int = Field(default=8, ge=1, le=65_536)
    """The width between the two matrices: the higher, the more an adapter can learn, and the more memory it takes."""

    alpha: float = Field(default=16.0, gt=0.0, le=1e6)
    """The product is multiplied by alpha / rank, or with use_rslora by alpha / sqrt(rank)."""

    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """The share of an adapter's inputs set to zero while training."""

    targets: list[str] = Field(default=list(LORA_TARGETS), min_length=1, max_length=64)
    """The matrices of each block that get an adapter: attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj; "all-linear"
    means all four."""

    use_rslora: bool = False
    """Whether to scale by alpha / sqrt(rank), so that high ranks learn as fast as low ones (rsLoRA, Kalajdzievski
    2023)."""

    quantize: Literal["nf4"] | None = None
    """nf4: keep the frozen matrices in 4 bits (QLoRA, Dettmers et al. 2023), in an eighth of their memory; needs the
    package bitsandbytes. Left out: in fp32."""

    @field_validator("targets", mode="before")
    @classmethod
    def _all_linear(cls, targets: Any) -> Any:
        return list(LORA_TARGETS) if targets in ("all-linear", ["all-linear"]) else targets


class EvaluationTable(Table):
    """What is measured at each evaluation beside the loss."""

    metrics: list[str] = Field(default=["accuracy"], min_length=1, max_length=64)
    """accuracy: the share of tokens that are predicted right. Of continuations of 8 windows of the validation text:
    bleu, chrf and rouge, which compare them with the text (they need the extra metrics), distinct and repetition."""

    def inconsistencies(self, data: DataTable) -> list[Inconsistency]:
        """The metrics that do not exist, or do not fit the corpus."""
        found = []
        for name in self.metrics:
            if name not in EVALUATION_METRICS:
                near = difflib.get_close_matches(name[:100], EVALUATION_METRICS, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(EVALUATION_METRICS)}"
                found.append(Inconsistency("evaluation.metrics", f"{name[:100]!r} is no metric; {hint}", ()))
            elif name != "accuracy" and data.has_examples:
                named = next(column for column in EXAMPLE_COLUMNS if getattr(data, column))
                message = f"{name} is of the continuations of a text; for prompts and answers there is accuracy"
                found.append(Inconsistency("evaluation.metrics", message, (f"data.{named}",)))
        return found


class DistributedTable(Table):
    """Several devices that train one run, each with a process that torchrun starts."""

    ranks: int | None = Field(default=None, ge=1, le=1024, json_schema_extra={"unit": "processes"})
    """How many processes of torchrun the workbench trains with, on this machine; they share gradient_accumulation. Left
    out: one for each GPU. Without the workbench it is torchrun's --nproc-per-node that counts."""

    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How the network is spread over the devices. ddp: each has all of it, and they exchange gradients. fsdp: each has
    a share of the weights, gradients and moments, for networks that do not fit into one device. auto is ddp."""

    reshard_after_forward: bool = True
    """With fsdp: release each block after the forward pass and gather it again for the backward pass, which takes time
    instead of memory."""

    timeout: float = Field(default=600.0, ge=1.0, le=86_400.0, json_schema_extra={"unit": "seconds"})
    """How long the devices wait for one that does not answer, before the run ends on all of them."""


class SamplingTable(Table):
    """The sample texts during training, and the defaults of `gpt2tui sample` and the chat."""

    prompt: str = Field(default="", max_length=100_000)
    """The text to continue; empty starts a new document."""

    temperature: float = Field(default=0.8, ge=0.0, le=100.0)
    """How random the choice of each token is: 0 always takes the most probable token, 1 samples from the model's own
    distribution."""

    top_k: int = Field(default=50, ge=0, le=1_000_000, json_schema_extra={"unit": "tokens"})
    """Sample only from this many most probable tokens; 0 means from all."""

    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Sample only from the most probable tokens that together have this probability; 1 means from all."""

    max_length: int = Field(default=100, ge=1, le=1_000_000, json_schema_extra={"unit": "tokens"})
    """The most tokens to generate after the prompt."""

    seed: int = Field(default=1337, ge=0, le=2**63 - 1)
    """The random seed of sampling; the same seed gives the same text."""


WANDB_PROJECT_MAY_NOT_HOLD = "/\\#?%:"
WANDB_LONGEST_TAG = 64  # in characters


class TrackingTable(Table):
    """Weights & Biases and TensorBoard, in addition to the run folder."""

    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """disabled, offline (metrics in a local folder, to sync later) or online (metrics sent during training)."""

    project: str = Field(default="gpt2tui", min_length=1, max_length=128)
    """The W&B project that the run belongs to."""

    run_name: str = Field(default="", max_length=128)
    """The run's name in W&B; empty means the name of the run folder."""

    tags: list[str] = Field(default=[], max_length=64)
    """The run's tags in W&B."""

    artifacts: bool = False
    """Whether W&B also gets each checkpoint, as an artifact of the type model."""

    tensorboard: bool = False
    """Whether to write event files for TensorBoard, into the folder tensorboard of the run; needs the extra
    tensorboard."""

    def refused_by_wandb(self) -> list[tuple[str, str]]:
        """The names of settings that W&B would refuse when the run starts, each with what is wrong."""
        refused = []
        if wrong := [character for character in WANDB_PROJECT_MAY_NOT_HOLD if character in self.project]:
            refused.append(("project", f"W&B takes no {' '.join(wrong)} in the name of a project"))
        for tag in self.tags:
            if not 1 <= len(tag) <= WANDB_LONGEST_TAG:
                refused.append(("tags", f"W&B takes tags of 1 to {WANDB_LONGEST_TAG} characters, not of {len(tag):,}"))
        return refused


class Preset(Table):
    """Everything that defines a training run."""

    description: str = Field(default="", max_length=10_000)
    """What the preset is for, in a sentence."""

    model: ModelTable = ModelTable()
    data: DataTable = DataTable()
    optimizer: OptimizerTable = OptimizerTable()
    schedule: ScheduleTable = ScheduleTable()
    training: TrainingTable = TrainingTable()
    lora: LoraTable | None = None
    evaluation: EvaluationTable | None = None
    distributed: DistributedTable | None = None
    sampling: SamplingTable = SamplingTable()
    tracking: TrackingTable = TrackingTable()

    @model_validator(mode="before")
    @classmethod
    def _train_all_positions(cls, values: Any) -> Any:
        """Fills in training.sequence_length from a given model.n_positions."""
        model, training = (values.get(table, {}) for table in ("model", "training"))
        if isinstance(model, dict) and isinstance(training, dict):
            length = model.get("n_positions")
            if type(length) is int and 1 <= length <= LONGEST_CONTEXT:
                return {**values, "training": {"sequence_length": length, **training}}
        return values

    @property
    def tokens_per_step(self) -> int:
        """The number of tokens in one step, over all micro-batches and ranks."""
        t = self.training
        return t.batch_size * t.gradient_accumulation * t.sequence_length

    @property
    def known_vocab_size(self) -> int | None:
        """The vocabulary size where the preset determines it; None for `char`, where the corpus does."""
        return self.model.vocab_size or VOCAB_SIZES.get(self.data.tokenizer)

    @property
    def known_parameters(self) -> int | None:
        """The number of parameters where the preset determines it; None for `char`, where the corpus does."""
        size = self.known_vocab_size
        return self.with_vocab_size(size).model.parameter_count() if size else None

    @property
    def is_sharded(self) -> bool:
        """Whether each of several ranks keeps only a share of the network (FSDP)."""
        return self.distributed is not None and self.distributed.strategy == "fsdp"

    @property
    def rank_timeout(self) -> float:
        """How long ranks wait for each other, in seconds."""
        return (self.distributed or DistributedTable()).timeout

    def with_vocab_size(self, vocab_size: int) -> "Preset":
        """The preset with the vocabulary size filled in, as a run stores it."""
        return self.model_copy(update={"model": self.model.model_copy(update={"vocab_size": vocab_size})})

    def with_sources(self, place: Callable[[str], str]) -> "Preset":
        """The preset with another place of its corpus: what `place` returns for the source, or each one of a mix."""
        data = self.data
        if data.mix:
            mix = tuple(each.model_copy(update={"source": place(each.source)}) for each in data.mix)
            return self.model_copy(update={"data": data.model_copy(update={"mix": mix})})
        return self.of_source(place(data.source))

    def of_source(self, source: str) -> "Preset":
        """The preset with one source alone as its corpus."""
        return self.model_copy(update={"data": self.data.of_source(source)})

    def with_init_from(self, reference: str) -> "Preset":
        """The preset with another reference to the weights that it starts from."""
        return self.model_copy(update={"model": self.model.model_copy(update={"init_from": reference})})

    def with_training(self, **changes: object) -> "Preset":
        """The preset with other values in its [training]; they are not validated."""
        return self.model_copy(update={"training": self.training.model_copy(update=changes)})

    def inconsistencies(self) -> list[Inconsistency]:
        """The settings that do not fit each other, with dotted keys. Each setting alone is within its bounds."""
        found = [
            Inconsistency(f"{table}.{each.key}", each.message, tuple(f"{table}.{key}" for key in each.partners))
            for table, owner in (("model", self.model), ("data", self.data))
            for each in owner.inconsistencies()
        ]

        def add(key: str, message: str, *partners: str) -> None:
            found.append(Inconsistency(key, message, partners))

        t, data, schedule = self.training, self.data, self.schedule
        if t.sequence_length > self.model.n_positions:
            add(
                "training.sequence_length",
                f"{t.sequence_length} is more than model.n_positions = {self.model.n_positions}, "
                "the context length of the model",
                "model.n_positions",
            )
        if schedule.warmup_iterations > t.num_iterations:
            add(
                "schedule.warmup_iterations",
                f"{schedule.warmup_iterations} is more than training.num_iterations = {t.num_iterations}; a shorter "
                f"run needs a shorter warm-up, such as schedule.warmup_iterations={t.num_iterations // 10}",
                "training.num_iterations",
            )
        for name, rule in (("target_loss", t.target_loss), ("patience", t.patience)):
            if rule is not None and t.eval_frequency == 0:
                add(
                    f"training.{name}",
                    f"{rule} needs evaluations during the run, and training.eval_frequency = 0 makes none",
                    "training.eval_frequency",
                )
        if schedule.min_lr > self.optimizer.lr:
            add(
                "schedule.min_lr",
                f"{schedule.min_lr} is above optimizer.lr = {self.optimizer.lr}, the peak learning rate",
                "optimizer.lr",
            )
        if t.precision == "fp16" and t.device == "cpu":
            add("training.precision", "fp16 needs a GPU; on the CPU choose fp32, bf16 or auto", "training.device")
        smallest = {"gpt2": GPT2_VOCAB_SIZE, "byte": BYTE_VOCAB_SIZE, "bpe": BYTE_VOCAB_SIZE, "char": 2}[data.tokenizer]
        starts_from_weights = self.model.init_from is not None  # whose tokenizer is not made from the corpus
        if self.model.vocab_size is not None and self.model.vocab_size < smallest and not starts_from_weights:
            add(
                "model.vocab_size",
                f"{self.model.vocab_size} is smaller than the {data.tokenizer} tokenizer needs, {smallest}; "
                'leave it out, or write "auto" to leave out an inherited one, to have it filled in',
                "data.tokenizer",
            )
        if data.streaming and data.tokenizer == "char" and not starts_from_weights:
            add(
                "data.tokenizer",
                "char needs the whole corpus before training, which streaming never reads at once; choose byte",
                "data.streaming",
            )
        if self.lora is not None:
            found += self._lora_inconsistencies(self.lora)
        if self.evaluation is not None:
            found += self.evaluation.inconsistencies(data)
        if self.is_sharded and self.lora is not None:
            add("distributed.strategy", "adapters are small, so fsdp saves nothing; choose ddp", "lora")
        if self.is_sharded and t.precision == "fp16":
            add("distributed.strategy", "fsdp cannot scale the loss as fp16 needs; choose bf16", "training.precision")
        if self.tracking.wandb != "disabled":
            for name, message in self.tracking.refused_by_wandb():
                add(f"tracking.{name}", message, "tracking.wandb")
        return found

    def _lora_inconsistencies(self, lora: LoraTable) -> list[Inconsistency]:
        found = []
        if self.model.init_from is None:
            message = "adapters need weights to be trained beside; name them in model.init_from"
            found.append(Inconsistency("lora", message, ()))
        if lora.rank > self.model.n_embd:
            message = f"{lora.rank} is more than model.n_embd = {self.model.n_embd}, the width of the matrices"
            found.append(Inconsistency("lora.rank", message, ("model.n_embd",)))
        for target in lora.targets:
            if target not in LORA_TARGETS:
                near = difflib.get_close_matches(target[:100], LORA_TARGETS, n=2, cutoff=0.4)
                hint = f"did you mean {' or '.join(near)}?" if near else f"they are {', '.join(LORA_TARGETS)}"
                found.append(Inconsistency("lora.targets", f"{target[:100]!r} is no matrix of a block; {hint}", ()))
        if self.optimizer.name == "muon":
            message = (
                "muon orthogonalizes the update of a whole matrix, and an adapter is two factors of one, of which one "
                "begins as zeros; choose adamw"
            )
            found.append(Inconsistency("optimizer.name", message, ("lora",)))
        return found
