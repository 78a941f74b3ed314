"""SAEs of other tools: their codes by the tools' own formulas, computed in numpy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.unit._sae_files import (
    FEATURES,
    GATE,
    INNER,
    LINEAR,
    NORMS,
    PLAIN,
    ROWS,
    SKIP,
    THETA,
    WIDTH,
    B,
    C,
    Case,
    D,
    E,
    K,
    above,
    as_saev,
    decoded,
    dictionary,
    gated,
    h,
    k_and,
    largest,
    lens,
    on_normal,
    openai,
    prisma,
    relu,
    saev,
    sparsify,
)

from vlmlens.errors import DataError, SpecError
from vlmlens_plugins.sae import not_in_sae_lens, open_sae, save_sae

UNIT = D / NORMS[:, None]
NORMAL = {**LINEAR, "decoder.weight": UNIT.T}
GATED = {"encoder.weight": E.T, "decoder.weight": D.T, "decoder_bias": C, "gate_bias": GATE}
GATED |= {"mag_bias": INNER["b_mag"], "r_mag": INNER["r_mag"]}
normal_topk, normal_rows = on_normal(lambda x: relu(largest(h(x))))

CASES = [
    Case("lens-standard", lens("standard", PLAIN),
         lambda x: relu(h(x)), lambda x: relu(h(x, False))),
    Case("lens-as-they-are", lens("standard", PLAIN, apply_b_dec_to_input=False),
         lambda x: relu(h(x, False)), lambda x: relu(h(x))),
    Case("lens-topk", lens("topk", PLAIN, k=K),
         lambda x: relu(largest(h(x))), lambda x: relu(h(x))),
    Case("lens-topk-by-norm", lens("topk", PLAIN, k=K, rescale_acts_by_decoder_norm=True),
         lambda x: relu(largest(h(x) * NORMS)), lambda x: relu(largest(h(x))),
         lambda x: decoded(relu(largest(h(x) * NORMS)) / NORMS)),
    Case("lens-jumprelu", lens("jumprelu", PLAIN | {"threshold": THETA}),
         lambda x: above(h(x), THETA), lambda x: relu(h(x) - THETA)),
    Case("lens-log-threshold", lens("jumprelu", PLAIN | {"log_threshold": np.log(THETA)}),
         lambda x: above(h(x), THETA), lambda x: above(h(x), np.log(THETA))),
    Case("lens-gated", lens("gated", {k: v for k, v in PLAIN.items() if k != "b_enc"} | INNER),
         gated, lambda x: relu(h(x))),
    Case("lens-batchtopk-in-training",
         lens("batchtopk", PLAIN | {"topk_threshold": np.array(0.7)}, k=2.5),
         lambda x: above(h(x) * NORMS, 0.7), lambda x: above(h(x), 0.7),
         lambda x: decoded(above(h(x) * NORMS, 0.7) / NORMS)),
    Case("lens-scaled",
         lens("standard", PLAIN, 0.5, normalize_activations="expected_average_only_in"),
         lambda x: relu(h(0.5 * x)), lambda x: relu(h(x)),
         lambda x: decoded(relu(h(0.5 * x))) / 0.5),
    Case("lens-skip-transcoder",
         lens("skip_transcoder", PLAIN | {"W_skip": SKIP.T}, d_out=WIDTH,
              apply_b_dec_to_input=False),
         lambda x: relu(h(x, False)), lambda x: relu(h(x)),
         lambda x: decoded(relu(h(x, False))) + x @ SKIP),
    Case("lens-5", lens("standard", PLAIN | {"scaling_factor": np.ones(FEATURES)}, metadata={},
                        activation_fn_str="topk", activation_fn_kwargs={"k": K}, hook_point="b.3"),
         lambda x: relu(largest(h(x))), lambda x: relu(h(x))),
    Case("sparsify", sparsify(),
         lambda x: largest(relu(h(x))), lambda x: largest(relu(h(x, False)))),
    Case("sparsify-skip", sparsify({"W_skip": SKIP.T}, transcode=True, skip_connection=True),
         lambda x: largest(relu(h(x, False))), lambda x: largest(relu(h(x))),
         lambda x: decoded(largest(relu(h(x, False)))) + x @ SKIP),
    Case("dl-plain", dictionary("AutoEncoder", LINEAR | {"bias": C}),
         lambda x: relu(h(x)) * NORMS, lambda x: relu(h(x)), lambda x: decoded(relu(h(x)))),
    Case("dl-unit", dictionary("AutoEncoder", NORMAL | {"bias": C}),
         lambda x: relu(h(x)), lambda x: relu(h(x)) * NORMS, lambda x: relu(h(x)) @ UNIT + C),
    Case("dl-april", dictionary("AutoEncoderNew", LINEAR | {"decoder.bias": C}),
         lambda x: relu(h(x, False)), lambda x: relu(h(x, False)) * NORMS),
    Case("dl-topk", dictionary("AutoEncoderTopK", LINEAR | {"b_dec": C} | k_and(0.5), k=K),
         lambda x: largest(relu(h(x))), lambda x: above(h(x), 0.5)),
    Case("dl-batchtopk", dictionary("BatchTopKSAE", LINEAR | {"b_dec": C} | k_and(0.5), k=K),
         lambda x: above(h(x), 0.5), lambda x: largest(relu(h(x)))),
    Case("dl-batchtopk-unset", dictionary("BatchTopKSAE", LINEAR | {"b_dec": C} | k_and(-1), k=K),
         lambda x: largest(relu(h(x))), lambda x: relu(h(x))),
    Case("dl-matryoshka",
         dictionary("MatryoshkaBatchTopKSAE",
                    PLAIN | k_and(0.5) | {"group_sizes": torch.tensor([10, 20])}, k=K),
         lambda x: above(h(x), 0.5), lambda x: above(h(x, False), 0.5)),
    Case("dl-gated", dictionary("GatedAutoEncoder", GATED), gated, lambda x: relu(h(x))),
    Case("dl-jumprelu", dictionary("JumpReluAutoEncoder", PLAIN | {"threshold": THETA}),
         lambda x: above(h(x, False), THETA), lambda x: above(h(x), THETA)),
    Case("saev-2025", as_saev({"d_vit": WIDTH, "exp_factor": 3, "sparsity_coeff": 1e-3}, PLAIN),
         lambda x: relu(h(x)), lambda x: relu(h(x, False))),
    Case("saev-1",
         as_saev({"schema": 1, "cls": "TopK", "cfg": {"d_vit": WIDTH, "top_k": K}}, PLAIN),
         lambda x: largest(h(x)), lambda x: largest(h(x, False))),
    Case("saev-topk", saev(5, "TopK", top_k=25),
         lambda x: largest(h(x, False), 25), lambda x: relu(largest(h(x, False), 25))),
    Case("saev-batchtopk", saev(5, "BatchTopK", {"activation.threshold": np.array(0.5)}, top_k=K),
         lambda x: above(h(x, False), 0.5), lambda x: largest(h(x, False))),
    Case("saev-2", saev(2, "BatchTopK", top_k=K),
         lambda x: largest(h(x, False)), lambda x: largest(h(x))),
    Case("saev-relu", saev(4, "Relu"), lambda x: relu(h(x, False)), lambda x: relu(h(x))),
    Case("prisma", prisma(PLAIN, activation_fn_str="relu", normalize_activations=None),
         lambda x: relu(h(x)), lambda x: relu(h(x, False))),
    Case("prisma-topk", prisma(PLAIN, activation_fn_str="topk", activation_fn_kwargs={"k": K},
                               normalize_activations="layer_norm"),
         normal_topk, lambda x: relu(largest(h(x))), normal_rows),
    Case("prisma-gated", prisma(PLAIN | INNER, architecture="gated", activation_fn_str="relu"),
         gated, lambda x: relu((x - C) @ E * np.exp(INNER["r_mag"]) + INNER["b_mag"] + B)),
    Case("openai-topk", openai("TopK"), normal_topk, lambda x: relu(largest(h(x))), normal_rows),
    Case("openai-relu", openai("ReLU"), lambda x: relu(h(x)), lambda x: relu(h(x, False))),
    Case("openai-tied", openai("ReLU", {"decoder.linear.weight": E.T}),
         lambda x: relu(h(x)), lambda x: relu(h(x, False)), lambda x: relu(h(x)) @ E.T + C),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_codes_and_rows_are_those_of_the_tool(case, tmp_path):
    sae = open_sae(case.write(tmp_path / "layers.3"))
    rows, wanted = torch.from_numpy(ROWS).float(), case.codes(ROWS)
    found = sae.encode(rows).numpy()
    np.testing.assert_array_equal(found != 0, wanted != 0)
    np.testing.assert_allclose(found, wanted, atol=3e-5)
    assert np.abs(case.mistake(ROWS) - wanted).max() > 0.1
    written = case.rows(ROWS) if case.rows else decoded(wanted)
    np.testing.assert_allclose(sae.reconstruct(rows).numpy(), written, atol=1e-4)
    assert (sae.about.column, bool(sae.about.source)) == ("", True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_read_is_the_same_when_it_was_written_again(case, tmp_path):
    sae = open_sae(case.write(tmp_path / "in"))
    again = open_sae(save_sae(tmp_path / "out", sae))
    assert (again.digest, again.about) == (sae.digest, sae.about)
    own = case.name in ("saev-1", "saev-topk", "saev-2", "sparsify-skip")
    assert bool(not_in_sae_lens(sae)) == own


def test_a_file_says_what_it_knows_and_what_it_does_not(tmp_path):
    lens_notes = open_sae(lens("standard", PLAIN)(tmp_path / "a")).about
    assert lens_notes.notes == ("Its file says that it reads 'blocks.3' of 'm'.",)
    assert lens_notes.trained == {"model_name": "m", "hook_name": "blocks.3"}
    write = dictionary("BatchTopKSAE", LINEAR | {"b_dec": C} | k_and(-1), k=K)
    first, second = open_sae(write(tmp_path / "b")).about.notes
    assert "resid_post of layer 3" in first
    assert "not set" in second
    saev_notes = open_sae(as_saev({"d_vit": WIDTH}, PLAIN)(tmp_path / "c")).about.notes
    assert "centred and scaled" in saev_notes[0]
    sparsify()(tmp_path / "layers.24")
    assert open_sae(tmp_path / "layers.24").about.trained["hook_name"] == "layers.24"
    heads = lens("standard", PLAIN, reshape_activations="hook_z", metadata={
        "sae_lens_version": "6.0.0", "hook_head_index": 3})  # fmt: skip
    first, second = open_sae(heads(tmp_path / "e")).about.notes
    assert "heads of a block" in first
    assert "head 3 alone" in second
    both = prisma(PLAIN, activation_fn_str="relu", use_patches_only=True)(tmp_path / "d")
    assert "without the class token" in open_sae(both).about.notes[1]


def test_a_checkpoint_is_read_by_its_name_with_the_configuration_above(tmp_path):
    write = dictionary("BatchTopKSAE", LINEAR | {"b_dec": C} | k_and(0.5), k=K)
    folder = write(tmp_path / "trainer_0")
    (folder / "checkpoints").mkdir()
    (folder / "ae.pt").rename(folder / "checkpoints" / "ae_100.pt")
    assert open_sae(folder / "checkpoints" / "ae_100.pt").architecture == "jumprelu"


def test_weights_without_their_configuration_say_what_is_missing(tmp_path):
    folder = dictionary("AutoEncoder", LINEAR | {"bias": C})(tmp_path / "sae")
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match="known format has the tensors 'bias', 'dec") as raised:
        open_sae(folder / "ae.pt")
    assert "config.json" in raised.value.hint
    with pytest.raises(DataError, match=r"SAEs are inside it: 'ae\.pt'"):
        open_sae(folder)


def test_folders_of_several_saes_are_listed(tmp_path):
    for name in ("layers.1", "layers.2"):
        sparsify()(tmp_path / name)
    saev(5, "Relu")(tmp_path / "layer_3" / "run")
    with pytest.raises(DataError, match=r"'layers.1', 'layers.2', 'layer_3/run'"):
        open_sae(tmp_path)
    assert open_sae(tmp_path / "layer_3" / "run").architecture == "standard"


def test_a_format_can_be_named_where_files_look_like_two(tmp_path):
    folder = sparsify()(lens("standard", PLAIN)(tmp_path / "both"))
    (folder / "cfg.json").write_text(json.dumps({"d_in": WIDTH, "k": K, "num_latents": FEATURES}))
    with pytest.raises(DataError, match="several formats: sae-lens, sparsify"):
        open_sae(folder)
    assert open_sae(folder, format="Sparsify").about.source == "sparsify"
    with pytest.raises(SpecError, match="no format 'sparsifi'"):
        open_sae(folder, format="sparsifi")


REFUSED = [
    (lens("standard", PLAIN, normalize_activations="expected_average_only_in"), "fold_activation"),
    (lens("standard", PLAIN, normalize_activations="constant_norm_rescale"), "normalised by"),
    (lens("temporal", PLAIN), "architecture is 'temporal'"),
    (lens("standard", PLAIN | {"scaling_factor": 2 * NORMS}, metadata={}), "fine-tuned"),
    (lens("standard", PLAIN, metadata={}, activation_fn_str="tanh-relu"), "'tanh-relu'"),
    (lens("standard", PLAIN, metadata={}, activation_fn_str="topk"), "has k = None"),
    (lens("transcoder", PLAIN, d_out=WIDTH, apply_b_dec_to_input=True), "changes its rows"),
    (sparsify(activation="groupmax"), "'groupmax'"),
    (sparsify(signed=True), "'signed'"),
    (sparsify(num_latents=0, expansion_factor=2), "expansion_factor = 2"),
    (dictionary("CrossCoder", PLAIN), "dict_class is 'CrossCoder'"),
    (dictionary("AutoEncoderTopK", LINEAR | {"b_dec": C} | k_and(0), k=K + 1), "k = 5"),
    (saev(6, "Relu"), "schema is 6"),
    (saev(5, "Gelu"), "'Gelu'"),
    (prisma(PLAIN, activation_fn_str="tanh-relu"), "'tanh-relu'"),
    (prisma(PLAIN, activation_fn_str="relu", is_transcoder=True), "transcoder"),
    (prisma(PLAIN, activation_fn_str="relu", normalize_activations="constant"), "'constant'"),
    (openai("Identity"), "'Identity'"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_cannot_be_expressed_is_refused(write, reason, tmp_path):
    with pytest.raises(DataError, match="cannot be read as an SAE") as raised:
        open_sae(write(tmp_path / "x"))
    assert reason in str(raised.value)
    assert raised.value.hint
