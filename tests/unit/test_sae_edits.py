"""Interventions with features of SAEs: exact where they must be, refused where they belong not."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from vlmlens.abc import EditedRows
from vlmlens.cli._app import app
from vlmlens.errors import CompositionError, DataNotFound, EditError, EditWithoutEffect, SpecError
from vlmlens.passes.edits import Edit, WrittenEdit, quoted
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.testing.model import TinyLlava, tiny_model
from vlmlens.testing.tiny import picture
from vlmlens.tokens import Selector
from vlmlens_adapter_blip2.checks import OptChecks
from vlmlens_adapter_qwen2vl.checks import Qwen2VLChecks
from vlmlens_plugins.edits import saes
from vlmlens_plugins.sae import About, Gated, JumpRelu, Relu, Sae, TopK, save_sae

WIDTH, FEATURES, DEAD = 32, 20, 7
COLUMN = "llm.block.0/image"
KINDS = ("relu", "topk", "jumprelu", "gated", "layer-norm")
SITE = Site("llm.block.0", "x", Axis.LLM)


def made(kind: str = "relu", about: About | None = None) -> Sae:
    """An SAE with random numbers; feature 7 never fires."""
    rng = torch.Generator().manual_seed(KINDS.index(kind))
    encoder, decoder = (
        torch.randn(*s, generator=rng) for s in ((WIDTH, FEATURES), (FEATURES, WIDTH))
    )
    bias, gate = torch.randn(2, FEATURES, generator=rng) * 0.1
    encoder[:, DEAD], bias[DEAD], gate[DEAD] = 0, -1, -1
    activation: Any = {
        "topk": TopK(5, by_norm=True),
        "jumprelu": JumpRelu(torch.rand(FEATURES, generator=rng)),
        "gated": Gated(gate, bias, gate / 2),
    }.get(kind, Relu())
    more = {"layer_norm": kind == "layer-norm", "about": about or About()}
    return Sae(encoder, bias, decoder, bias.new_full((WIDTH,), 0.1), activation, **more)


def rows() -> torch.Tensor:
    return torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(9))


def where() -> EditedRows:
    import numpy as np

    return EditedRows(SITE, Selector.parse("image"), Sample("a", "?"), np.arange(12))


def changed(intervention: type[Any], place: Path, **options: Any) -> torch.Tensor:
    operation = intervention(intervention.Options(file=str(place), **options))
    return operation.change(rows(), where())


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# ---------------------------------------------------------------------- exact


def test_formulas_with_and_without_the_error_term(kind: str, tmp_path: Path) -> None:
    sae, x, picked = made(kind), rows(), [2, 11]
    save_sae(tmp_path / "s", sae)
    code = sae.encode(x)
    for intervention, new, more in (
        (saes.Ablate, code[:, picked] * 0, {}),
        (saes.Clamp, torch.full((12, 2), 3.0), {"value": 3}),
        (saes.Scale, code[:, picked] * -2, {"factor": -2}),
    ):
        wanted = code.clone()
        wanted[:, picked] = new
        whole = sae.decode(wanted, x)
        with_error = x + whole - sae.decode(code, x)
        found = changed(intervention, tmp_path / "s", feature="2+11", **more)
        torch.testing.assert_close(found, with_error, atol=2e-5, rtol=1e-5)
        found = changed(intervention, tmp_path / "s", feature=[2, 11], error=False, **more)
        torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
    steered = changed(saes.Steer, tmp_path / "s", feature=11, strength=-4)
    torch.testing.assert_close(steered, x - 4 * sae.W_dec[11] * sae.scale(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(changed(saes.Reconstruct, tmp_path / "s"), sae.reconstruct(x))


def test_what_stays_bit_for_bit(kind: str, tmp_path: Path) -> None:
    save_sae(tmp_path / "s", made(kind))
    x = rows()
    fires = made(kind).encode(x)[:, 3] > 0
    assert 0 < int(fires.sum()) < len(x)
    ablated = changed(saes.Ablate, tmp_path / "s", feature=3)
    assert torch.equal(ablated[~fires], x[~fires])
    assert bool((ablated[fires] != x[fires]).any(1).all())
    for same in (
        changed(saes.Ablate, tmp_path / "s", feature=DEAD),
        changed(saes.Clamp, tmp_path / "s", feature=DEAD, value=0),
        changed(saes.Scale, tmp_path / "s", feature="3+4", factor=1),
        changed(saes.Steer, tmp_path / "s", feature=3, strength=0),
    ):
        assert torch.equal(same, x)


def test_clamped_to_its_own_code_a_row_stays(tmp_path: Path) -> None:
    sae, x = made(), rows()
    save_sae(tmp_path / "s", sae)
    operation = saes.Clamp(saes.ClampOptions(file=str(tmp_path / "s"), feature=3))
    for number, code in enumerate(sae.encode(x)[:, 3].tolist()):
        own = operation.options.model_copy(update={"value": code})
        found = saes.Clamp(own).change(x[number : number + 1], where())
        torch.testing.assert_close(found, x[number : number + 1], atol=1e-5, rtol=1e-5)


def test_an_sae_that_loses_nothing(tmp_path: Path) -> None:
    eye, none = torch.eye(WIDTH), torch.zeros(WIDTH)
    whole = Sae(torch.cat([eye, -eye], 1), torch.zeros(2 * WIDTH), torch.cat([eye, -eye]), none)
    save_sae(tmp_path / "s", whole)
    x = rows()
    assert torch.equal(changed(saes.Reconstruct, tmp_path / "s"), x)
    wanted = x.clone()
    wanted[:, 4] = wanted[:, 4].clamp(max=0)
    for error in (True, False):
        found = changed(saes.Ablate, tmp_path / "s", feature=4, error=error)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


def test_turned_directions_change_the_same_rows_by_as_much(tmp_path: Path) -> None:
    save_sae(tmp_path / "s", made())
    x = rows()
    own = changed(saes.Ablate, tmp_path / "s", feature=3) - x
    turned = changed(saes.Ablate, tmp_path / "s", feature=3, turned=1) - x
    torch.testing.assert_close(turned.norm(dim=1), own.norm(dim=1), atol=1e-5, rtol=1e-4)
    cosine = torch.cosine_similarity(own, turned)[own.norm(dim=1) > 0]
    assert float(cosine.abs().max()) < 0.6
    again = changed(saes.Ablate, tmp_path / "s", feature=3, turned=1) - x
    other = changed(saes.Ablate, tmp_path / "s", feature=3, turned=2) - x
    assert torch.equal(turned, again)
    assert not torch.equal(turned, other)
    with pytest.raises(EditError, match="turned and error=false"):
        changed(saes.Ablate, tmp_path / "s", feature=3, turned=1, error=False)


def test_multiples_of_the_largest_code(tmp_path: Path) -> None:
    most = [0.5 * i for i in range(FEATURES)]
    save_sae(tmp_path / "s", made(about=About(trained={"largest": most})))
    save_sae(tmp_path / "unknown", made())
    for intervention, name in ((saes.Clamp, "value"), (saes.Steer, "strength")):
        times = changed(intervention, tmp_path / "s", feature=6, unit="max", **{name: 2})
        torch.testing.assert_close(
            times, changed(intervention, tmp_path / "s", feature=6, **{name: 6})
        )
        with pytest.raises(EditError, match="does not say how large the codes"):
            changed(intervention, tmp_path / "unknown", feature=6, unit="max", **{name: 2})


def test_half_precision_keeps_rows_that_do_not_change(tmp_path: Path) -> None:
    save_sae(tmp_path / "s", made())
    x = rows().bfloat16()
    operation = saes.Ablate(saes.AblateOptions(file=str(tmp_path / "s"), feature=3))
    with torch.autocast("cpu", torch.bfloat16):
        found = operation.change(x, where())
    assert found.dtype == torch.bfloat16
    exact = changed(saes.Ablate, tmp_path / "s", feature=3)
    torch.testing.assert_close(found.float(), exact, atol=0.06, rtol=0.02)
    fires = made().encode(x.float())[:, 3] > 0
    assert torch.equal(found[~fires], x[~fires])


# ---------------------------------------------------------------------- in a model


def samples() -> list[Sample]:
    prompts = ("What is this?", "Name the colour of the largest thing:")
    return [Sample(f"s{i}", each, (picture(32, 32, seed=i),)) for i, each in enumerate(prompts)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saes") / "a, b (1) = c"
    save_sae(folder / "s", made())
    return folder / "s"


@pytest.mark.parametrize("family", [TinyLlava, Qwen2VLChecks, OptChecks])
def test_a_batch_is_like_single_samples_in_every_family(family: type[Any], place: Path) -> None:
    vlm = tiny_model() if family is TinyLlava else family().vlm
    shown = [replace(each, images=samples()[0].images) for each in samples()]
    edits = [f"{COLUMN} = sae.clamp({quoted(str(place))}, 2+5, 4)"]
    with vlm.edited(edits):
        together = vlm.trace(vlm.encode(shown), ["llm.block.0"]).select("llm.block.0/all")
        alone = [
            vlm.trace(vlm.encode([one]), ["llm.block.0"]).select("llm.block.0/all")[0]
            for one in shown
        ]
        texts = vlm.generate(vlm.encode(shown), max_new_tokens=3)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)
    plain = vlm.generate(vlm.encode(shown), max_new_tokens=3)
    config = vlm.module.generation_config
    before, config.use_cache = config.use_cache, False
    try:
        again = vlm.generate(vlm.encode(shown), max_new_tokens=3, edits=edits)
    finally:
        config.use_cache = before
    assert [one.token_ids for one in again] == [one.token_ids for one in texts]
    assert plain[0].token_ids is not None


def test_a_feature_that_does_not_fire_is_no_error_and_changes_no_logit(place: Path) -> None:
    vlm = tiny_model()
    batch = vlm.encode(samples())
    plain = vlm.forward(batch, logits="last").logits
    with vlm.edited([f"{COLUMN} = sae.ablate({quoted(str(place))}, {DEAD})"]):
        assert torch.equal(vlm.forward(batch, logits="last").logits, plain)
    with (
        pytest.raises(EditWithoutEffect),
        vlm.edited([f"{COLUMN} = sae.steer({quoted(str(place))}, {DEAD}, 0)"]),
    ):
        vlm.forward(batch)


def test_paths_as_people_have_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place.parent.parent))
    for path in (str(place), f"~/{place.parent.name}/s", str(place / "sae_weights.safetensors")):
        edit = Registry.default().edit(f"{COLUMN} = sae.ablate({quoted(path)}, [1, 2])")
        assert isinstance(edit, Edit)
        assert edit.operation.describe()["options"]["feature"] == [1, 2]
    with pytest.raises((DataNotFound, EditError, SpecError)):
        Registry.default().edit(f"{COLUMN} = sae.ablate({place}, 1)")


def test_another_file_at_the_same_path_is_another_edit(tmp_path: Path) -> None:
    text = f"{COLUMN} = sae.ablate({quoted(str(tmp_path / 's'))}, 3)"
    save_sae(tmp_path / "s", made())
    first = Registry.default().edit(text)
    assert Registry.default().edit(text).operation.sae is first.operation.sae
    shutil.rmtree(tmp_path / "s")
    save_sae(tmp_path / "s", made("jumprelu"))
    os.utime(tmp_path / "s" / "cfg.json", ns=(1, 1))
    second = Registry.default().edit(text)
    assert first.describe()["digest"] != second.describe()["digest"]


# ---------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "was given no SAE"),
        ("{}", "was given no feature"),
        ("{}, 20", "has no feature 20"),
        ("{}, 1+99", "has no feature 99"),
        ("{}, -1", "feature"),
        ("{}, red", "expected a number of 0 or more"),
        ("{}, 1+", "expected a number of 0 or more"),
        ("{}, 1.5", "expected a number of 0 or more"),
        ("{}\0, 1", "There is no SAE"),
        ("x" * 9999 + ", 1", "There is no SAE"),
        ("{}-not-there, 1", "There is no SAE"),
    ],
)
def test_what_is_refused(arguments: str, message: str, place: Path, tmp_path: Path) -> None:
    save_sae(tmp_path / "s", made())
    text = arguments.format(tmp_path / "s")
    with pytest.raises((EditError, SpecError, DataNotFound), match=message):
        Registry.default().edit(f"{COLUMN} = sae.ablate({text})")
    for number in ("nan", "inf"):
        with pytest.raises(SpecError, match="value"):
            Registry.default().edit(f"{COLUMN} = sae.clamp({tmp_path / 's'}, 1, {number})")


def test_it_belongs_to_its_rows_site_and_model(tmp_path: Path) -> None:
    vlm = tiny_model()
    file = quoted(str(tmp_path / "s"))
    save_sae(tmp_path / "s", made(about=About(column=COLUMN, model=vlm.describe())))
    fits = (COLUMN, "llm.block.0/image[2:5]", "llm.block.0/image.patch(1, 1)")
    for column in fits:
        with vlm.edited([f"{column} = sae.ablate({file}, 3)"]):
            pass
    for column in ("llm.block.1/image", "llm.block.0/last", "llm.block.*/image"):
        with pytest.raises(CompositionError, match="does not belong here"):
            vlm.edit_always([f"{column} = sae.ablate({file}, 3)"])
        with vlm.edited([f"{column} = sae.ablate({file}, 3, anyway=true)"]):
            pass
    other = {**vlm.describe(), "digest": "0" * 32}
    save_sae(tmp_path / "s", made(about=About(column=COLUMN, model=other)))
    with pytest.raises(CompositionError, match="It was trained on"):
        vlm.edit_always([f"{COLUMN} = sae.ablate({file}, 3)"])
    assert not vlm.active_edits


def test_a_transcoder_edits_nothing(tmp_path: Path) -> None:
    own = replace(made(), subtract=False, about=About(column=COLUMN, target="llm.block.1/image"))
    save_sae(tmp_path / "s", own)
    with pytest.raises(EditError, match="no transcoder and no crosscoder"):
        changed(saes.Ablate, tmp_path / "s", feature=1)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("llm.block.3/image = sae.ablate(wide, 3)", "changes rows of 32 numbers"),
        ("llm.block.3/image = sae.ablate(nowhere, 3)", "There is no SAE"),
        ("vision.block.3/image = sae.ablate(wide, 3)", "does not belong here"),
    ],
)
def test_a_run_is_refused_before_weights_are_loaded(
    edit: str, message: str, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_sae("wide", made(about=About(column="llm.block.3/image")))
    monkeypatch.setattr("vlmlens.compose.plan.load_model", lambda *given: pytest.fail("loaded"))
    done = CliRunner().invoke(
        app,
        [
            "run",
            "--data",
            "demo:scenes",
            "--set",
            "options.dataset.scenes=2",
            "--out",
            "r",
            "--edit",
            edit,
        ],
    )
    assert done.exit_code == 2, done.output
    assert message in " ".join((done.output + done.stderr).split())
    assert not Path("r").exists()


def test_a_run_keeps_the_whole_path_of_a_folder(in_tmp: Path) -> None:
    from vlmlens.runs.trust import with_whole_paths
    from vlmlens.spec.model import make_spec

    save_sae("s", made())
    Path("3").mkdir()
    long = f"{COLUMN} = sae.ablate({'x' * 9999}, 3)"
    spec = make_spec({"edits": [f"{COLUMN} = sae.ablate(s, 3)", long]})
    edit, same = with_whole_paths(spec).edits
    assert same == long
    assert WrittenEdit.parse(edit).positional == (str(in_tmp / "s"), "3")
