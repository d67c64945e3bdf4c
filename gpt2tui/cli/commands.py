"""The commands beside the training: their options, and the function that runs each."""

from gpt2tui.cli.completion import presets_and_settings, run_names
from gpt2tui.cli.parser import Parser, command_in, decimal
from gpt2tui.cli.training import add_preset_layers, add_set, at_least_one

RUN = "a run: its folder, its name or the unique beginning of it, or latest"
CHECKPOINT = (
    "a run (its best checkpoint; latest for the run begun last), RUN@STEP, RUN@latest, a tag (@NAME), a checkpoint's "
    "folder, a folder in Hugging Face GPT-2 form, or the id of such a model on the Hub (owner/name)"
)


def add_sample(top: Parser) -> None:
    parser = top.add_command(
        "sample",
        help="generate text with a model",
        description="Generates text with a model. Prompt, sampling settings and seed default to those of the run's "
        "preset ([sampling]).",
    )
    parser.set_defaults(command=command_in("sample", "sample"))
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help=f"{CHECKPOINT}; or an ONNX file of gpt2tui export, or its folder",
    ).completer = run_names  # type: ignore[attr-defined]
    parser.add_argument("text", metavar="TEXT", nargs="?", help="the same as --prompt TEXT")
    parser.add_argument(
        "--prompt", metavar="TEXT", help="the text to continue; - reads it from stdin (default: the run's own)"
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="continue the prompt as it is, also with a model that was trained on prompts and answers, which otherwise "
        "answers it in its template",
    )
    parser.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="the most tokens to generate after the prompt (default: the run's own, else 100)",
    )
    parser.add_argument(
        "--temperature",
        type=decimal,
        metavar="T",
        help="0 always takes the most probable token, 1 samples from the model's own distribution (default: the run's "
        "own, else 0.8)",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="sample only from the K most probable tokens; 0: from all (default: the run's own, else 50)",
    )
    parser.add_argument(
        "--top-p",
        type=decimal,
        metavar="P",
        help="sample only from the most probable tokens that together have probability P (default: the run's "
        "own, else 1)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="S",
        help="the random seed: the same seed gives the same text (default: the run's own, else 1337)",
    )
    parser.add_argument(
        "--num-samples",
        type=int,
        default=1,
        metavar="N",
        help="how many texts to write, with the seeds S, S+1, ...: several at once, of which the first is shown while "
        "it is written and the others behind it (default: 1)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "fp16"),
        default="auto",
        help="precision of the weights on a CPU; auto (the default): fp16 from 50 million parameters on, because it is "
        "faster there",
    )
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--json", action="store_true", help="print a JSON list with an object for each text")


def add_evaluate(top: Parser) -> None:
    parser = top.add_command(
        "eval",
        help="measure a model's loss on text, or its scores in tasks",
        description="Measures a model: without TASK its loss and perplexity on the validation and test text of its "
        "corpus, with TASK its scores (lambada, hellaswag, hellaswag-completion, multiple-choice, wikitext), or BLEU, "
        "chrF, ROUGE, variety and repetition of what it writes: completions (of the prompts in --data, against their "
        "references) and continuation (of the validation text's windows, against their second halves).",
    )
    parser.set_defaults(command=command_in("evaluate", "evaluate"))
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help=CHECKPOINT,
    ).completer = run_names  # type: ignore[attr-defined]
    parser.add_argument("tasks", metavar="TASK", nargs="*", help="a task to measure instead of the loss")
    parser.add_argument(
        "--data",
        metavar="FILE|FOLDER|ID",
        help="the data of the tasks: a file or folder in the published layout, or a data set of the Hub (default: the "
        "task's own on the Hub)",
    )
    parser.add_argument(
        "--known-answers",
        action="store_true",
        help="measure what is published of GPT-2 and print published, measured, difference and verdict",
    )
    parser.add_argument("--source", metavar="SOURCE", help="the corpus to measure on; default: the run's own")
    parser.add_argument(
        "--text-column", metavar="NAME", help="the column of --source that holds the text (default: the run's own)"
    )
    parser.add_argument(
        "--split",
        choices=("validation", "test"),
        help="the split to measure on; default: validation, and test where the corpus has one (python-stdlib, "
        "WikiText, some data sets of the Hub)",
    )
    parser.add_argument("--text", metavar="FILE", help="measure on a text file instead, which is read as one document")
    parser.add_argument(
        "--context", type=int, metavar="N", help="the most tokens read at once (default: as the model was trained)"
    )
    parser.add_argument(
        "--stride",
        type=int,
        metavar="N",
        help="begin a window of --context tokens every N tokens and count each token once, as transformers' page on "
        "perplexity does (default: windows side by side that predict every token but the first, as in training)",
    )
    parser.add_argument(
        "--prompt-column", metavar="NAME", help="the column of the prompts of completions (default: prompt)"
    )
    parser.add_argument("--reference-column", metavar="NAME", help="that of their references (default: reference)")
    parser.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="the most tokens of a completion (default: 100; of a continuation as many as its reference has)",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="measure only the first N rows of a task, or N windows (default: 50)"
    )
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the products (default: fp32)"
    )
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_import(top: Parser) -> None:
    parser = top.add_command("import", help="make a run with one checkpoint of a model, to chat with and train further")
    parser.set_defaults(command=command_in("import_model", "import_model"))
    parser.add_argument("source", metavar="SOURCE", help="a Hugging Face GPT-2 folder, a Hub id, or a CHECKPOINT")
    parser.add_argument("--run-dir", metavar="DIR", help="the folder of the new run; default: a new one in runs")


def add_export(top: Parser) -> None:
    parser = top.add_command("export", help="write a checkpoint for other programs")
    parser.set_defaults(command=command_in("export", "export"))
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=CHECKPOINT).completer = run_names  # type: ignore[attr-defined]
    parser.add_argument(
        "--format",
        choices=("huggingface", "safetensors", "gguf", "onnx", "tensorrt"),
        default="huggingface",
        help="huggingface: a folder for transformers with a model card (the default); safetensors: one file with the "
        "weights alone; gguf: one file for llama.cpp (needs the extra gguf); onnx: a folder for onnxruntime and "
        "onnxruntime-genai (needs the extra onnx); tensorrt: the same with the command that makes an engine of it",
    )
    parser.add_argument("--to", required=True, metavar="PATH", help="the new folder or file")
    parser.add_argument(
        "--dtype",
        choices=("fp32", "fp16", "bf16", "int8"),
        default="fp32",
        help="the type of the stored weights (default: fp32, as they are trained); onnx has fp32 and int8",
    )
    parser.add_argument(
        "--merge", action="store_true", help="add the adapter of a checkpoint to its base, as one model"
    )
    parser.add_argument("--push", metavar="REPO", help="upload the folder to this repository of the Hub, owner/name")
    parser.add_argument("--dry-run", action="store_true", help="with --push: list what would be uploaded, and do not")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_presets(top: Parser) -> None:
    parser = top.add_command("presets", help="list, show and check presets")
    listing = parser.add_command("list", help="list every preset with its size and corpus")
    listing.set_defaults(command=command_in("presets", "list_presets"))
    showing = parser.add_command(
        "show", help="print a preset as TOML, with all inherited and default settings filled in"
    )
    showing.set_defaults(command=command_in("presets", "show_preset"))
    checking = parser.add_command(
        "check",
        help="validate preset files and report all mistakes at once",
        description="Validates each preset by itself. With KEY=VALUE, or a partial preset (without [model] and "
        "extends) behind another, they are layers of one preset, as in gpt2tui train.",
    )
    checking.set_defaults(command=command_in("presets", "check_presets"))
    for action in (showing, checking):
        words = action.add_argument(
            "words",
            metavar="NAME|FILE|KEY=VALUE",
            nargs="+",
            help="a preset, layers over it, and settings",
        )
        words.completer = presets_and_settings  # type: ignore[attr-defined]
        add_set(action)
    keys = parser.add_command("keys", help="list every setting with its default, allowed values and meaning")
    keys.set_defaults(command=command_in("presets", "list_keys"))
    schema = parser.add_command("schema", help="print the JSON schema of preset files, for editors")
    schema.set_defaults(command=command_in("presets", "print_schema"))
    for action in (listing, showing, checking, keys, schema):
        action.add_argument("--json", action="store_true", help="print one JSON document")


def add_prepare(top: Parser) -> None:
    parser = top.add_command(
        "prepare",
        help="tokenize the corpus of a preset ahead of its training",
        usage="gpt2tui prepare PRESET ... [KEY=VALUE ...] [options]",
        description="Tokenizes the corpus of a preset, in several processes, as its training would do in one. When it "
        "is interrupted or killed, what is finished is kept, and the same command continues.",
    )
    parser.set_defaults(command=command_in("prepare", "prepare_tokens"))
    words = parser.add_argument(
        "words", metavar="PRESET|KEY=VALUE", nargs="+", help="a preset, layers over it, and settings"
    )
    words.completer = presets_and_settings  # type: ignore[attr-defined]
    add_set(parser)
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="how many processes tokenize, each a part of the files (default: one for each CPU core)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_attach(top: Parser) -> None:
    parser = top.add_command("attach", help="watch a run that another process trains, on the Train screen")
    parser.add_argument("run", metavar="RUN", help=RUN).completer = run_names  # type: ignore[attr-defined]
    parser.set_defaults(command=command_in("attach", "attach"))


def add_serve(top: Parser) -> None:
    parser = top.add_command("serve", help="serve the workbench to browsers (needs the extra serve)")
    parser.add_argument(
        "--host",
        default="localhost",
        help="the address to listen on (default: localhost); there is no password: anyone who can reach it can use it",
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="the port to listen on (default: 8000)")
    parser.add_argument(
        "--public-url", metavar="URL", help="the address that browsers use, where it is another one, as behind a proxy"
    )
    parser.set_defaults(command=command_in("serve", "serve"))


def add_bench(top: Parser) -> None:
    parser = top.add_command(
        "bench",
        help="measure the speed of training, generation and tokenization on this machine",
        description="Measures a preset on this machine with the precision, optimizer and compilation of a real run. "
        "Downloads nothing: where the corpus is not prepared, it uses random tokens. With --against it also measures "
        "other implementations of the same model, round by round in turn, each in a process of its own.",
    )
    parser.set_defaults(command=command_in("bench", "bench"))
    add_preset_layers(
        parser,
        "the preset to measure, a name or a TOML file (default: small); repeatable: later ones override earlier ones",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="measure every shipped preset, skipping those too large or too slow for this machine",
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        choices=("nanogpt", "transformers"),
        help="nanogpt: our network trained as nanoGPT does; transformers: GPT2LMHeadModel, with its defaults "
        "and tuned; repeatable",
    )
    parser.add_argument(
        "--parts",
        metavar="PART,...",
        help="what to measure: train, generate, tokenize, data (the share of a step spent on reading its batch); "
        "default: all",
    )
    parser.add_argument(
        "--ranks",
        type=at_least_one,
        metavar="N",
        help="measure instead the training steps of 1 to N processes, which torchrun starts on this machine, and the "
        "share of communication in them",
    )
    parser.add_argument(
        "--seconds",
        type=decimal,
        default=10.0,
        metavar="S",
        help="the time to measure each part and implementation for, without warm-up; at least 3 rounds (default: 10)",
    )
    parser.add_argument(
        "--compare",
        metavar="FILE",
        help="say what got faster or slower since FILE, a result that --json has printed, and with which noise",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
