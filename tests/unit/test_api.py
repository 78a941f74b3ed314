"""The Python API: its keywords are the run spec's, and one call traces one question."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vlmlens
from vlmlens import Sample
from vlmlens._keywords import spec_of
from vlmlens.abc import Batch, ModelAdapter
from vlmlens.abc.observer import SilentObserver
from vlmlens.errors import DataError, ImageError, RunNotFound, SiteNotFound, SpecError
from vlmlens.spec.model import RunSpec

BESIDE = ["peft", "mode", "workers", "progress", "observer"]
WIDER = {
    "model", "tuned", "data", "prompt", "sites", "edits", "analysis", "batch_size", "out",
    "options",
}  # fmt: skip
"""Keywords that take more than the field holds; `test_wider_values_become_the_field` has each."""


def keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def test_run_has_every_field_of_the_spec() -> None:
    assert list(keywords(vlmlens.run)) == [*RunSpec.model_fields, *BESIDE]
    kinds = {parameter.kind for parameter in keywords(vlmlens.run).values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


def test_extract_and_run_have_the_same_keywords() -> None:
    assert keywords(vlmlens.extract) == keywords(vlmlens.run)


def test_load_has_the_fields_that_say_what_to_load() -> None:
    named = list(keywords(vlmlens.load))
    fields = list(RunSpec.model_fields)
    assert named == [*fields[: fields.index("data")], "options", "peft"]
    of_run = keywords(vlmlens.run)
    for name, parameter in keywords(vlmlens.load).items():
        assert parameter.annotation == of_run[name].annotation
        assert parameter.default == of_run[name].default


def test_defaults_are_those_of_the_spec() -> None:
    defaults = {name: given.default for name, given in keywords(vlmlens.run).items()}
    assert spec_of({n: value for n, value in defaults.items() if n not in BESIDE}) == RunSpec()


@pytest.mark.parametrize("name", sorted(set(RunSpec.model_fields) - WIDER))
def test_types_are_those_of_the_spec(name: str) -> None:
    declared = keywords(vlmlens.run)[name].annotation
    own = RunSpec.__annotations__[name]
    assert declared == own.removeprefix("Annotated[").partition(", Field(")[0]


@pytest.mark.parametrize(
    ("name", "given", "field"),
    [
        ("model", Path("a/b"), "a/b"),
        ("tuned", Path("a/b"), "a/b"),
        ("out", Path("a/b"), "a/b"),
        ("data", Path("photos"), "photos"),
        ("prompt", "Color:", ["Color:"]),
        ("prompt", ("Color:", "Shape:"), ["Color:", "Shape:"]),
        ("sites", "llm.*/last", ["llm.*/last"]),
        ("edits", "llm.block.0/last = zero", ["llm.block.0/last = zero"]),
        ("analysis", "probe", {"probe": {}}),
        (
            "analysis",
            ["probe", {"logit-lens": {"top": 3}}],
            {"probe": {}, "logit-lens": {"top": 3}},
        ),
        ("analysis", {"probe": None}, {"probe": {}}),
        ("batch_size", 4, 4),
        ("options", {"storage": {"sync": False}}, None),
    ],
)
def test_wider_values_become_the_field(name: str, given: object, field: object) -> None:
    found = getattr(spec_of({name: given}), name)
    assert (found.storage if name == "options" else found) == (field or {"sync": False})
    assert name in WIDER


@pytest.mark.parametrize("function", [vlmlens.run, vlmlens.extract, vlmlens.load])
def test_help_says_what_each_keyword_means(function: Callable[..., Any]) -> None:
    text = inspect.getdoc(function) or ""
    for name in set(keywords(function)) & set(RunSpec.model_fields):
        assert f"    {name}: {RunSpec.model_fields[name].description}" in text
    for name in set(keywords(vlmlens.run)) & set(BESIDE):
        assert f"`{name}`" in (vlmlens.run.__doc__ or "")
    assert text.index("Args:") < text.index("Raises:")


def test_a_wrong_keyword_is_refused() -> None:
    with pytest.raises(TypeError, match="dat"):
        vlmlens.run(dat="x")  # type: ignore[call-arg]
    with pytest.raises(SpecError, match="Did you mean data"):
        vlmlens.extract(dat="x")  # type: ignore[call-arg]


def test_open_names_what_it_wants(tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match="Give the folder that `vlmlens run`"):
        vlmlens.open(tmp_path)


def test_every_name_is_handed_out() -> None:
    assert set(vlmlens.__all__) == {*vlmlens._HOMES, "__version__"}
    assert all(getattr(vlmlens, name) is not None for name in vlmlens.__all__)


def test_opening_a_run_loads_no_torch() -> None:
    code = "import sys, vlmlens; vlmlens.Run, vlmlens.run; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ------------------------------------------------------------------------- one question


@cache
def demo() -> ModelAdapter:
    return vlmlens.load("demo", device="cpu")


RED = Image.new("RGB", (96, 96), (200, 30, 30))
BLOCKS = "llm.block.*"


def test_one_call_traces_one_question(tmp_path: Path) -> None:
    RED.save(tmp_path / "red.png")
    vlm = demo()
    wanted = vlm.trace(vlm.encode([Sample("1", "Color:", (RED,))]), [BLOCKS], logits="last")
    assert len(wanted) == 6
    for image in (RED, [RED], tmp_path / "red.png", str(tmp_path / "red.png")):
        trace = vlm.trace(image, "Color:", BLOCKS, logits="last")
        assert list(trace) == list(wanted)
        assert all(torch.equal(trace[name], wanted[name]) for name in wanted)
        assert torch.equal(trace.logits, wanted.logits)  # type: ignore[arg-type]


def test_a_question_without_an_image_and_with_an_edit() -> None:
    plain = demo().trace(None, "Hello?", ["llm.block.5"])
    edited = demo().trace(None, "Hello?", ["llm.block.5"], edits={"llm.block.0": torch.zeros_like})
    assert plain["llm.block.5"].shape == edited["llm.block.5"].shape
    assert not torch.equal(plain["llm.block.5"], edited["llm.block.5"])


def test_one_site_is_enough_for_a_batch() -> None:
    batch = demo().encode([Sample("1", "Hello?"), Sample("2", "Good morning.")])
    assert isinstance(batch, Batch)
    assert len(demo().trace(batch, "llm.block.0").select("llm.block.0/last")) == 2
    assert list(demo().trace(batch, sites=["llm.norm"])) == ["llm.norm"]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda vlm: vlm.encode(["hello"]), DataError, r"'hello' is no Sample\. Write Sample\("),
        (lambda vlm: vlm.encode(Sample("1", "x")), DataError, "no list of samples"),
        (lambda vlm: vlm.encode([]), DataError, "no sample to encode"),
        (lambda vlm: vlm.trace(RED, [BLOCKS]), DataError, r"as the prompt.*trace\(image, prompt"),
        (lambda vlm: vlm.trace(RED, "Color:"), SiteNotFound, "No site was given"),
        (lambda vlm: vlm.trace("no.png", "x", BLOCKS), ImageError, "'no.png' cannot be read"),
        (
            lambda vlm: vlm.trace(np.zeros((8, 8, 3)), "x", BLOCKS),
            DataError,
            "an image is a ndarray.*fromarray",
        ),
    ],
)
def test_mistakes_are_named(call: Callable[[Any], Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call(demo())


def test_a_site_that_was_not_traced_is_named_with_near_ones() -> None:
    trace = demo().trace(None, "Hello?", ["llm.block.3"])
    with pytest.raises(SiteNotFound, match=r"'llm.block.33' was not traced.*mean llm.block.3\?"):
        trace["llm.block.33"]
    assert trace.get("llm.block.33") is None
    assert "llm.block.33" not in trace
    assert trace._ipython_key_completions_() == ["llm.block.3"]


@pytest.mark.parametrize("name", ["encode", "forward", "generate", "readout", "load", "describe"])
def test_help_of_an_adapter_is_the_interface_s(name: str) -> None:
    shown = inspect.getdoc(getattr(demo(), name)) or ""
    assert shown.startswith(inspect.getdoc(getattr(ModelAdapter, name)) or "?")
    assert "See `" not in shown


def test_what_an_adapter_adds_to_the_docstring_stays() -> None:
    class Adds(ModelAdapter):
        def encode(self, samples: Any, *, answers: Any = None) -> Batch:
            """See `ModelAdapter.encode`; boxes are read, too."""
            raise NotImplementedError

        @property
        def module(self) -> torch.nn.Module:
            """See `ModelAdapter.module`."""
            raise NotImplementedError

        def decode(self, token_ids: Any) -> str:
            """Text, backwards."""
            raise NotImplementedError

    assert (Adds.encode.__doc__ or "").startswith(inspect.getdoc(ModelAdapter.encode) or "?")
    assert (Adds.encode.__doc__ or "").endswith("\n\nBoxes are read, too.")
    assert Adds.module.__doc__ == ModelAdapter.module.__doc__
    assert Adds.decode.__doc__ == "Text, backwards."


# ----------------------------------------------------------------------------- progress


class Told(SilentObserver):
    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str, total: int | None) -> None:
        self.stages.append(name)


def settings(out: Path) -> dict[str, Any]:
    return {"data": [Sample("1", "Color:", (RED,))], "sites": "llm.block.0/last", "out": out}


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (None, False), (False, False)])
def test_progress_is_shown_where_it_is_wanted(
    progress: bool | None, shown: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = vlmlens.extract(**settings(tmp_path / "run"), progress=progress)
    vlmlens.export(run, tmp_path / "x.npz", progress=progress)
    said = capsys.readouterr()
    assert said.out == ""
    assert ("extract (1)" in said.err, "export (1)" in said.err) == (shown, shown)


def test_an_observer_is_told_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = Told()
    vlmlens.extract(**settings(tmp_path / "run"), progress=True, observer=told)
    assert told.stages == ["extract"]
    assert capsys.readouterr().err == ""
