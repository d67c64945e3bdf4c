"""The template that makes one text of a prompt and its answer."""

import json
from dataclasses import dataclass
from pathlib import Path

from gpt2tui.errors import CheckpointError
from gpt2tui.system.files import read_json

CONFIG_FILE, TEMPLATE_KEY = "tokenizer_config.json", "gpt2tui_template"
PROMPT, COMPLETION = "{prompt}", "{completion}"
DEFAULT_TEMPLATE = f"User: {PROMPT}\nAssistant: {COMPLETION}"


@dataclass(frozen=True)
class Template:
    """A text with {prompt} and {completion}, once each and in this order; other braces are text.

    The prompt's part ends before {completion}. Spaces there belong to the answer, because byte-pair tokenizers join a
    space with the word after it; what follows {completion} belongs to the answer too.
    """

    text: str = DEFAULT_TEMPLATE

    @property
    def problem(self) -> str | None:
        """What is wrong with the text; None where it can be used."""
        for name in (PROMPT, COMPLETION):
            if (count := self.text.count(name)) != 1:
                return f"it has {f'{count} times' if count else 'no'} {name}; write {name} once"
        if self.text.index(COMPLETION) < self.text.index(PROMPT):
            return f"{COMPLETION} stands before {PROMPT}, but the answer comes after what it answers"
        return None

    def asked(self, prompt: str) -> str:
        """What the model reads before it answers."""
        before, between, _, _ = self._parts()
        return before + prompt + between

    def answered(self, completion: str) -> str:
        """What the model is to write: the answer with what stands around it."""
        _, _, spaces, after = self._parts()
        return spaces + completion + after

    def completion_in(self, written: str) -> str:
        """The answer in what the model has written."""
        _, _, spaces, after = self._parts()
        return written.removeprefix(spaces).removesuffix(after)

    @property
    def jinja(self) -> str:
        """The same as a `chat_template` of transformers: a conversation, after whose answers the text ends."""
        before, between, spaces, after = (json.dumps(part, ensure_ascii=False) for part in self._parts())
        answer = f"{before} + ns.asked + {between} + {spaces} + message['content'] + {after} + eos_token"
        return (
            "{{ bos_token }}{% set ns = namespace(asked='') %}{% for message in messages %}"
            "{% if message['role'] == 'assistant' %}{{ " + answer + " }}{% set ns.asked = '' %}"
            "{% else %}{% set ns.asked = ns.asked + ('\\n\\n' if ns.asked else '') + message['content'] %}{% endif %}"
            "{% endfor %}{% if ns.asked %}{{ " + f"{before} + ns.asked + {between}" + " }}{% endif %}"
        )

    def _parts(self) -> tuple[str, str, str, str]:
        """The text before the prompt, between prompt and answer without and with its last spaces, after the answer."""
        before, rest = self.text.split(PROMPT)
        between, after = rest.split(COMPLETION)
        stripped = between.rstrip(" ")
        return before, stripped, between[len(stripped) :], after


def template_in(folder: Path) -> Template | None:
    """The template that a model was trained with; None where there is none. Raises CheckpointError."""
    file = folder / CONFIG_FILE
    text = read_json(file).get(TEMPLATE_KEY) if file.exists() else None
    if text is None:
        return None
    if not isinstance(text, str) or Template(text).problem:
        raise CheckpointError(f"{file}: its {TEMPLATE_KEY} is not a template with {{prompt}} and {{completion}}")
    return Template(text)
