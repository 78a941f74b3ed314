"""Chat templates are rendered within limits, as transformers renders them, or clearly refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError
from vlmlens.hf.bounded_templates import TooMuchWork, rendered
from vlmlens.hf.chat_template import render
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, write_tiny_llava
from vlmlens.testing.tiny import picture
from vlmlens_plugins.demo.adapter import CHECKPOINT

TOKENIZER = SimpleNamespace(special_tokens_map={"bos_token": "<s>"})
DOUBLED = "{{% set ns = namespace(x='x') %}}{{% for i in range(60) %}}{}{{% endfor %}}"
BOMBS = {
    "repeated": "{{ 'x' * 10**10 }}",
    "a list": "{% set n = 10**10 %}{{ ([0] * n)|length }}",
    "loops": "{% for i in range(9999) %}{% for j in range(9999) %}{% for k in range(9999) %}"
    "{% endfor %}{% endfor %}{% endfor %}",
    "loops without a turn": "{% set r = range(9999)|list %}{% for i in r %}"
    "{% for j in r if false %}{% endfor %}{% endfor %}",
    "recursion": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "doubled by ~": DOUBLED.format("{% set ns.x = ns.x ~ ns.x %}"),
    "doubled by +": DOUBLED.format("{% set ns.x = ns.x + ns.x %}"),
    "doubled in a block": DOUBLED.format(
        "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"
    ),
    "padded": "{{ 'x'.ljust(10**10) }}",
    "centred": "{{ 'x'|center(10**10) }}",
    "a width": "{{ '%10000000000d' % 1 }}",
    "a width of format": "{{ '{:>10000000000}'.format(1) }}",
    "replaced": "{{ ('x' * 9999)|replace('x', 'y' * 9999) }}",
    "joined": "{{ (range(9999)|list)|join('x' * 9999) }}",
    "a power": "{{ 10**10**10 }}",
}
FORBIDDEN = {
    "a class": "{{ ''.__class__.__mro__ }}",
    "a file": "{% include '/etc/passwd' %}",
    "its own complaint": "{{ raise_exception('roles must alternate') }}",
    "syntax": "{% for %}",
    "endless calls": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
}
USUAL = (
    "{{ bos_token }}{% for m in messages %}{%- if loop.first %}{{ m.role|upper ~ ': ' }}{% endif %}"
    "{% for part in m['content'] %}{% if part.type == 'image' %}<image>\n{% else %}"
    "{{ part['text']|trim + '|' }}{% endif %}{% endfor %}{% generation %}a{% endgeneration %}"
    "{{ m|tojson }}{{ '%02d' % loop.index }}{% if loop.last %}{% break %}{% endif %}{% endfor %}\n"
    "{%- set ns = namespace(n=0) %}{% for i in range(9) %}{% set ns.n = ns.n + i * 2 %}{% endfor %}"
    "{{ ns.n }} {{ dict(a=1) }} {{ messages|selectattr('role', 'equalto', 'user')|list|length }}"
)


def message(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_stopped_before_it_works(bomb: str) -> None:
    with pytest.raises(TooMuchWork):
        rendered(bomb, {})
    with pytest.raises(CheckpointError, match="The chat template of 'ck' cannot be used: it takes"):
        render(bomb, "Hi", TOKENIZER, "ck")


@pytest.mark.parametrize("template", FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_fails_in_a_template_is_an_error_of_the_checkpoint(template: str) -> None:
    with pytest.raises(CheckpointError, match="The chat template of 'ck' cannot be used") as caught:
        render(template, "Hi", TOKENIZER, "ck")
    assert "chat_template.jinja" in caught.value.hint


@pytest.mark.parametrize(
    "template",
    [USUAL, (CHECKPOINT / "chat_template.jinja").read_text(encoding="utf-8")],
    ids=["usual", "demo"],
)
@pytest.mark.parametrize("text", ["Hi", "{{ 10**10 }} %5d {x}", "ü\n" * 20_000], ids=len)
def test_the_text_is_that_of_transformers(template: str, text: str) -> None:
    variables = {"add_generation_prompt": True, "bos_token": "<s>"}
    theirs = render_jinja_template([message(text)], chat_template=template, **variables)[0][0]
    told = {"messages": message(text), "tools": None, "documents": None, **variables}
    assert rendered(template, told) == theirs


def test_a_long_prompt_is_no_bomb() -> None:
    template = (
        "{% for m in messages %}{{ m.content.split('</t>')[-1]|replace('a', 'bb') }}{% endfor %}"
    )
    text = "a" * 500_000
    assert len(rendered(template, {"messages": [{"content": text}]})) == 2 * len(text)


def test_a_checkpoint_with_a_bomb_is_refused_when_it_is_encoded(tmp_path: Path) -> None:
    write_tiny_llava(tmp_path)
    sample = Sample("a", "Color:", (picture(32, 32),))
    for template, said in ((BOMBS["repeated"], "too many steps"), (FORBIDDEN["a class"], "unsafe")):
        (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
        vlm = TinyLlava.skeleton(LoadRequest(model=str(tmp_path), device="cpu"))
        with pytest.raises(CheckpointError, match=said):
            vlm.encode([sample])


def test_a_checkpoint_without_a_template_says_how_to_get_one(tmp_path: Path) -> None:
    write_tiny_llava(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    vlm = TinyLlava.skeleton(LoadRequest(model=str(tmp_path), device="cpu"))
    with pytest.raises(CheckpointError, match="no chat template") as caught:
        vlm.encode([Sample("a", "Color:", (picture(32, 32),))])
    assert "Copy chat_template.jinja" in caught.value.hint
    with pytest.raises(CheckpointError, match="no chat template"):
        vlm.answer_ids("red")
