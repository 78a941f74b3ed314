"""SAEs are written as SAELens folders: whole or not at all, and read as they were."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tests.unit._sae_files import FEATURES, PLAIN, ROWS, WIDTH, B, C, D, E, K, array, sparsify

from vlmlens.errors import DataError
from vlmlens_plugins.sae import (
    About,
    Gated,
    JumpRelu,
    Relu,
    Sae,
    TopK,
    not_in_sae_lens,
    open_sae,
    save_sae,
    sparsity_of,
)
from vlmlens_plugins.sae.__main__ import main
from vlmlens_plugins.sae.files import saelens_write

WEIGHTS, CONFIG, SPARSITY = "sae_weights.safetensors", "cfg.json", "sparsity.safetensors"
ABOUT = About(
    column="llm.block.14/image",
    model={"class": "M", "checkpoint": "demo", "digest": "abc", "nested": {"a": [1, None, "é"]}},
    trained={"kind": "batchtopk", "rows": 4096, "seed": 3, "largest": [0.5, 1e-30]},
    notes=("One.", "Two: 1 < 2."),
)


def tensor(values) -> torch.Tensor:
    return torch.from_numpy(array(values).copy())


def made(activation=None, out=WIDTH, **more) -> Sae:
    W_dec, b_dec = (tensor(D[:, :out]), tensor(C[:out]))
    return Sae(tensor(E), tensor(B), W_dec, b_dec, activation or Relu(), **more)


GATED = Gated(tensor(B), tensor(-B), tensor(B / 2))
ACROSS = {"out": 5, "subtract": False, "about": About(column="a/image", target="b/image")}
FORMS = {
    "standard": made(about=ABOUT),
    "as-they-are": made(subtract=False),
    "layer-norm": made(layer_norm=True),
    "topk": made(TopK(K)),
    "by-norm": made(TopK(K, by_norm=True)),
    "jumprelu": made(JumpRelu(tensor(B).abs())),
    "gated": replace(made(GATED), b_enc=torch.zeros(FEATURES)),
    "transcoder": made(**ACROSS),
    "skip": made(W_skip=tensor(E[:, :5]), **ACROSS),
    "jumprelu-skip": made(JumpRelu(tensor(B).abs()), W_skip=tensor(E[:, :5]), **ACROSS),
    "crosscoder": made(
        about=About(column="a/all + b/all", scales={"a/all": (5, 1.5), "b/all": (7, 0.1)})
    ),
}  # fmt: skip


NOT_THERE = {
    "negative": (made(TopK(K, rectified=False)), "negative numbers"),
    "topk": (made(TopK(K, by_norm=True), **ACROSS), "transcoder with topk"),
    "gated": (replace(made(GATED, **ACROSS), b_enc=torch.zeros(FEATURES)), "with gated"),
    "centred": (made(W_skip=tensor(E[:, :WIDTH]), layer_norm=True), "as they are"),
}


@pytest.mark.parametrize("name", FORMS)
def test_what_is_written_is_read_as_it_was(name, tmp_path):
    sae = FORMS[name]
    again = open_sae(save_sae(tmp_path / "deep" / "sae", sae))
    assert (again.digest, again.about) == (sae.digest, sae.about)
    rows = tensor(ROWS)
    assert torch.equal(again.encode(rows), sae.encode(rows))
    assert torch.equal(again.reconstruct(rows), sae.reconstruct(rows))


def test_the_folder_is_what_sae_lens_expects(tmp_path):
    folder = save_sae(tmp_path / "sae", made(TopK(K), about=ABOUT), sparsity=[0.25] * FEATURES)
    assert sorted(each.name for each in folder.iterdir()) == [CONFIG, WEIGHTS, SPARSITY]
    config, weights = json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
    assert {name: each.shape for name, each in weights.items()} == {
        "W_enc": (WIDTH, FEATURES), "b_enc": (FEATURES,), "W_dec": (FEATURES, WIDTH),
        "b_dec": (WIDTH,)}  # fmt: skip
    assert {each.dtype for each in weights.values()} == {np.dtype("float32")}
    assert (config["architecture"], config["k"], config["dtype"]) == ("topk", K, "float32")
    metadata = config["metadata"]
    assert int(metadata["sae_lens_version"].split(".")[0]) >= 6
    assert (metadata["model_name"], metadata["hook_name"]) == ("demo", "llm.block.14/image")
    rates = load_file(folder / SPARSITY)["sparsity"]
    np.testing.assert_allclose(rates, np.full(FEATURES, np.log10(0.25)), rtol=1e-6)


def test_rates_come_back_and_features_that_never_fire_are_zero(tmp_path):
    rates = np.linspace(0, 1, FEATURES)
    folder = save_sae(tmp_path / "sae", made(), sparsity=rates)
    np.testing.assert_allclose(sparsity_of(folder).numpy(), rates, atol=1e-6)
    assert sparsity_of(folder)[0] == 0
    for bad in ([0.5], [2.0] * FEATURES, [float("nan")] * FEATURES, [[0.5] * FEATURES]):
        with pytest.raises(DataError, match="sparsity has the shape"):
            save_sae(tmp_path / "bad", made(), sparsity=bad)


def test_equal_saes_give_equal_files_and_others_do_not(tmp_path):
    folders = [
        save_sae(tmp_path / str(number), sae, sparsity=[0.5] * FEATURES)
        for number, sae in enumerate((made(about=ABOUT), made(about=ABOUT), made()))
    ]
    for name in (CONFIG, WEIGHTS, SPARSITY):
        first, second, _ = (folder.joinpath(name).read_bytes() for folder in folders)
        assert first == second
    assert (folders[0] / CONFIG).read_bytes() != (folders[2] / CONFIG).read_bytes()


@pytest.mark.parametrize("name", NOT_THERE)
def test_what_sae_lens_has_no_form_for_is_named_so_that_it_refuses_it(name, tmp_path):
    sae, reason = NOT_THERE[name]
    folder = save_sae(tmp_path / "sae", sae)
    config = json.loads((folder / CONFIG).read_text())
    assert config["architecture"].startswith("vlmlens_")
    assert reason in config["metadata"]["note"]
    assert reason in not_in_sae_lens(sae)
    again, rows = open_sae(folder), tensor(ROWS)
    assert (again.digest, again.about) == (sae.digest, sae.about)
    assert torch.equal(again.reconstruct(rows), sae.reconstruct(rows))
    (folder / CONFIG).write_text(json.dumps(config | {"architecture": "vlmlens_other"}))
    with pytest.raises(DataError, match="'vlmlens_other'"):
        open_sae(folder)


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_what_cannot_be_kept_is_refused_before_anything_is_written(value, tmp_path):
    with pytest.raises(DataError, match="no JSON") as raised:
        save_sae(tmp_path / "sae", made(about=About(trained={"loss": value})))
    assert raised.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_crosscoder_says_what_sae_lens_cannot_know(tmp_path):
    folder = save_sae(tmp_path / "sae", FORMS["crosscoder"])
    note = json.loads((folder / CONFIG).read_text())["metadata"]["note"]
    assert "a/all (5) x 1.5, b/all (7) x 0.1" in note


@pytest.mark.parametrize("step", ["_write_tensors", "write_bytes"])
def test_a_folder_appears_whole_or_not_at_all(step, tmp_path, monkeypatch):
    before = save_sae(tmp_path / "old", made(about=ABOUT))
    kept = {each.name: each.read_bytes() for each in before.iterdir()}

    def fail(*given):
        raise OSError("no space")

    monkeypatch.setattr(saelens_write, step, fail)
    for path in (tmp_path / "new", before):
        with pytest.raises(OSError, match="no space"):
            save_sae(path, made(), sparsity=[0.5] * FEATURES)
    assert [each.name for each in tmp_path.iterdir()] == ["old"]
    assert {each.name: each.read_bytes() for each in before.iterdir()} == kept


def test_an_earlier_sae_is_replaced_and_nothing_else(tmp_path):
    folder = save_sae(tmp_path / "sae", made(), sparsity=[0.5] * FEATURES)
    save_sae(folder, made(about=ABOUT))
    assert open_sae(folder).about == ABOUT
    assert sparsity_of(folder) is None
    assert [each.name for each in tmp_path.iterdir()] == ["sae"]
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(folder)
    for name in ("sae", "file", "link"):
        with pytest.raises(DataError, match="something else"):
            save_sae(tmp_path / name, made())
    assert (folder / "notes.txt").read_text() == "mine"


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (".", "a/..", str(tmp_path)):
        with pytest.raises(DataError, match="something else"):
            save_sae(name, made())
    assert save_sae("a/../b", made()) == tmp_path / "b"
    assert [each.name for each in tmp_path.iterdir()] == ["b"]


def test_tensors_that_share_memory_are_written(tmp_path):
    one = tensor(E)
    sae = Sae(one, torch.zeros(FEATURES), one.T, torch.zeros(FEATURES)[:WIDTH])
    assert open_sae(save_sae(tmp_path / "sae", sae)).digest == sae.digest


class TestCommands:
    def test_show_says_what_a_file_is(self, tmp_path, capsys):
        folder = save_sae(tmp_path / "sae", made(TopK(K), about=ABOUT), sparsity=[0.25] * FEATURES)
        assert main(["show", str(folder)]) == 0
        said = capsys.readouterr().out
        for words in ("topk, 36 features of rows of 12", "llm.block.14/image", "demo", "9", "Two:"):
            assert words in said
        assert main(["show", str(sparsify()(tmp_path / "layers.3"))]) == 0
        assert "From: sparsify" in capsys.readouterr().out

    def test_convert_writes_a_folder_with_the_same_codes(self, tmp_path, capsys):
        source = sparsify()(tmp_path / "layers.3")
        assert main(["convert", str(source), str(tmp_path / "out")]) == 0
        assert "'layers.3'" in capsys.readouterr().out
        assert open_sae(tmp_path / "out").digest == open_sae(source).digest
        negative = save_sae(tmp_path / "negative", NOT_THERE["negative"][0])
        assert main(["convert", str(negative), str(tmp_path / "own")]) == 0
        assert "only vlmlens reads it" in capsys.readouterr().out
        rated = save_sae(tmp_path / "rated", made(), sparsity=[0.25] * FEATURES)
        assert main(["convert", str(rated), str(tmp_path / "again")]) == 0
        assert torch.allclose(sparsity_of(tmp_path / "again"), torch.full((FEATURES,), 0.25))

    def test_errors_are_two_lines_and_exit_code_2(self, tmp_path, capsys):
        assert main(["show", str(tmp_path / "nothing")]) == 2
        error, hint = capsys.readouterr().err.splitlines()
        assert error.startswith("error: There is no file or folder")
        assert hint.startswith("hint: ")
        source = str(sparsify()(tmp_path / "in"))
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").touch()
        assert main(["convert", source, str(tmp_path / "out")]) == 2
        with pytest.raises(SystemExit) as raised:
            main(["show", source, "--format", "sparse"])
        assert raised.value.code == 2

    def test_text_from_a_file_cannot_steer_the_terminal(self, tmp_path, capsys):
        about = About(column="\x1b[31mx/all", notes=("\x1b]0;title\x07",))
        folder = save_sae(tmp_path / "sae", made(about=about))
        assert main(["show", str(folder)]) == 0
        assert "\x1b" not in capsys.readouterr().out


def test_a_plain_sae_of_numpy_is_as_it_was_given(tmp_path):
    """The file holds the numbers themselves, not others that give the same codes."""
    weights = load_file(save_sae(tmp_path / "sae", made()) / WEIGHTS)
    for name, values in PLAIN.items():
        np.testing.assert_array_equal(weights[name], array(values))
