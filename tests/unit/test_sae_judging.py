"""SAEs judged: the true dictionary of a toy beside what nobody trained, and the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.unit._sae_toy import ACTIVE, COLUMN, FEATURES, IMAGE, ROWS, SAMPLES, WIDTH, Toy

from vlmlens.errors import DataError, SpecError
from vlmlens_plugins.analysis.sae.held import split
from vlmlens_plugins.analysis.sae.judging import (
    Judged,
    Kind,
    Overall,
    Role,
    Word,
    conclude,
    figures,
    judge,
    tables,
)
from vlmlens_plugins.sae import Relu, Sae, TensorRows, TopK
from vlmlens_plugins.sae.baselines import (
    neurons,
    principal,
    random_directions,
    random_rows,
    untrained,
)

BY = ("label", "coin")
_LEAST = {Role.UNTRAINED: 0.6, Role.EXAMPLES: 0.2, Role.NEURONS: 0.5, Role.PRINCIPAL: 0.4}
"""By how much more variance the true dictionary explains, at least."""


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy.made()


@pytest.fixture(scope="module")
def found(toy: Toy) -> Judged:
    """The true dictionary, itself with its features in another order, and a random one."""
    order = torch.randperm(FEATURES, generator=torch.Generator().manual_seed(3))
    true = toy.sae()
    other = replace(true, W_enc=true.W_enc[:, order], W_dec=true.W_dec[order])
    random = untrained(FEATURES, toy.rows.mean(0), toy.rows[:500], ACTIVE, 77)
    given = {"true": true, "permuted": other, "random": random}
    return judge(given, toy.material(), by=BY, draws=300, controls=3)


def held_rows(toy: Toy) -> torch.Tensor:
    """The held-out rows, `[samples, 8, 32]`."""
    return toy.rows.view(SAMPLES, ROWS, WIDTH)[list(toy.material().split.held)]


def test_explained_variance_is_that_of_the_whole_set_pooled_and_by_modality(
    toy: Toy, found: Judged
) -> None:
    rows = held_rows(toy)
    made = toy.sae().reconstruct(rows.reshape(-1, WIDTH)).view_as(rows)
    for name, own in (("all", slice(None)), ("image", slice(0, 6)), ("text", slice(6, 8))):
        x, y = (each[:, own].reshape(-1, WIDTH).double().numpy() for each in (rows, made))
        expected = 1 - ((x - y) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
        assert found.bases["true"].by_modality[name] == pytest.approx(expected, abs=1e-6)
    whole = found.bases["true"].by_modality["all"]
    assert found.bases["true"].explained.value == pytest.approx(whole)
    assert "special" not in found.bases["true"].by_modality


def test_the_true_dictionary_beats_untrained_directions_neurons_and_pca(found: Judged) -> None:
    assert found.bases["true"].explained.value > 0.9
    for role, least in _LEAST.items():
        gain = found.variance("true", role)
        assert gain.word is Word.BETTER
        assert gain.difference.low > least
        other = found.beside("true", role)
        assert other.role is role
        assert other.l0 == pytest.approx(ACTIVE)


def test_its_features_tell_what_they_are_and_nothing_else(toy: Toy, found: Judged) -> None:
    best = {each.value: each for each in found.bases["true"].singles["first"].best}
    assert best["a"].feature == 0  # "a" says that direction 0 occurs
    assert best["a"].judged == found.bases["true"].singles["first"].auc.value > 0.9
    # one untrained dictionary: of 48 directions, how near one of them is to a given one is chance
    one = judge({"true": toy.sae()}, toy.material(), by=BY, draws=300, controls=1)
    told = one.against("true", Kind.CONCEPT)
    assert told["first"].word is Word.BETTER
    assert told["coin"].word is Word.NO_BETTER
    verdict = conclude(one, "true")
    assert verdict.overall is Overall.BETTER
    assert "better; do no better for coin" in verdict.text


def test_an_untrained_dictionary_is_no_better_than_an_untrained_dictionary(found: Judged) -> None:
    verdict = conclude(found, "random")
    assert verdict.overall is Overall.NO_BETTER
    assert found.variance("random").word is not Word.BETTER
    assert Word.BETTER not in verdict.concepts.values()


def test_features_are_of_images_or_of_text_as_planted(found: Judged) -> None:
    share = found.bases["true"].image_share
    assert share is not None
    assert share[:IMAGE].mean() > 0.9
    assert share[IMAGE:].mean() < 0.1


def test_another_order_of_features_is_fully_stable_and_random_ones_are_not(found: Judged) -> None:
    pairs = {(each.one, each.other): each for each in found.stability}
    assert pairs["true", "permuted"].value == pytest.approx(1, abs=1e-5)
    apart = pairs["true", "random"]
    assert apart.value == pytest.approx(apart.untrained, abs=0.05)
    assert apart.untrained == pytest.approx(0.42, abs=0.05)  # the facts' figure at 32 dimensions


def test_patches_without_order_have_the_coherence_of_permuted_ones(found: Judged) -> None:
    basis = found.bases["true"]
    assert basis.coherence is not None
    assert basis.permuted is not None
    assert np.nanmean(basis.coherence[:IMAGE]) == pytest.approx(-1 / 5, abs=0.03)
    assert np.nanmean(basis.permuted[:IMAGE]) == pytest.approx(-1 / 5, abs=0.03)


def test_whole_rows_are_the_measure_of_few_features(found: Judged) -> None:
    probes = found.bases["true"].probed
    assert probes["first"].sparse[1] > 0.85
    assert probes["first"].concentration(1) > 0.8
    assert np.isnan(probes["coin"].concentration(1))  # there is nothing to tell


def test_the_result_has_a_row_for_everything(found: Judged) -> None:
    made = {each.name: each for each in tables([found])}
    assert made["sae"].columns["basis"] == list(found.bases)
    assert len(made["sae"]) == 7
    assert made["sae"].columns["rows"] == [found.rows] * 7
    assert len(made["sae-concepts"]) == 14
    assert len(made["sae-stability"]) == 3
    drawn = {each.name.split("-llm")[0]: each for each in figures(found)}
    assert set(drawn) == {"sae-density", "sae-concepts", "sae-modality"}
    for series in drawn["sae-density"].series:
        assert sum(share or 0 for share in series.y) == pytest.approx(1)


# ---------------------------------------------------------------------- deliberate mistakes


def test_a_constant_error_counts(toy: Toy) -> None:
    """Variance of the error, as other tools use it, does not see a shift of all reconstructions."""
    shift = torch.full((WIDTH,), 0.3)
    true = toy.sae()
    wrong = replace(true, W_enc=true.W_enc, b_dec=true.b_dec + shift, subtract=False,
                    b_enc=-true.b_dec @ true.W_enc)  # fmt: skip
    judged = judge({"true": true, "shifted": wrong}, toy.material(), by=(), draws=100, controls=1)
    rows = held_rows(toy).reshape(-1, WIDTH).double()
    spread = float((rows - rows.mean(0)).square().sum()) / len(rows)
    error = rows - true.reconstruct(rows.float()).double()
    expected = float((2 * error.mean(0) * -shift + shift.square()).sum()) / spread
    lost = judged.bases["true"].explained.value - judged.bases["shifted"].explained.value
    assert lost == pytest.approx(expected, abs=1e-4)
    assert lost > 0.5


def test_shuffled_labels_are_told_no_better(toy: Toy) -> None:
    order = np.random.default_rng(0).permutation(SAMPLES)
    shuffled = [
        replace(sample, label=toy.samples[i].label)
        for sample, i in zip(toy.samples, order, strict=True)
    ]
    material = replace(toy.material(), samples=shuffled)
    verdict = conclude(judge({"true": toy.sae()}, material, draws=300, controls=1), "true")
    assert verdict.concepts == {"first": Word.NO_BETTER}
    assert verdict.overall is Overall.RECONSTRUCTION


def test_codes_of_other_rows_are_seen(toy: Toy) -> None:
    """An SAE of another column of equal width explains nothing."""
    turned = toy.rows @ torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator()))[0]
    found = judge({"true": toy.sae()}, toy.material(turned), by=(), draws=100, controls=1)
    assert conclude(found, "true").overall is Overall.NO_BETTER


# ---------------------------------------------------------------------- exact cases, and odd ones


def test_a_full_orthonormal_basis_explains_everything(toy: Toy) -> None:
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)))[0]
    full = Sae(turn, torch.zeros(WIDTH), turn.T, toy.mean, TopK(WIDTH, rectified=False))
    found = judge({"full": full}, toy.material(), by=(), draws=100, controls=1)
    assert found.bases["full"].explained.value == pytest.approx(1, abs=1e-6)
    assert found.bases["full"].l0 == WIDTH
    assert found.bases["PCA"].explained.value == pytest.approx(1, abs=1e-6)
    assert conclude(found, "full").overall is Overall.BETTER  # untrained overlap, so they lose


def test_an_sae_that_never_fires_is_worse_than_anything(toy: Toy) -> None:
    dead = replace(toy.sae(), activation=Relu(), b_enc=torch.full((FEATURES,), -1e3))
    found = judge({"dead": dead}, toy.material(), by=BY, draws=100, controls=1)
    assert found.bases["dead"].dead == 1
    assert found.bases["dead"].singles["first"].best[0].feature is None
    assert found.bases["dead"].singles["first"].auc.value == 0.5
    assert conclude(found, "dead").overall is Overall.NO_BETTER
    assert tables([found])
    assert figures(found)


def test_two_groups_are_too_few_to_compare(toy: Toy) -> None:
    few = [replace(sample, group=str(i % 2)) for i, sample in enumerate(toy.samples)]
    halves = split(few, "llm.block.1/all", 0.5, 0)
    material = replace(toy.material(), samples=few, split=halves)
    verdict = conclude(judge({"true": toy.sae()}, material, draws=100, controls=1), "true")
    assert verdict.overall is Overall.UNKNOWN


def test_where_no_test_could_be_significant_nothing_is_called_no_better(toy: Toy) -> None:
    few = replace(toy.material(), split=split(toy.samples[:16], COLUMN, 0.5, 0))
    found = judge({"true": toy.sae()}, few, by=("coin",), draws=200)
    gap = found.variance("true")
    assert gap.difference.low > 0
    assert (found.groups, gap.word) == (4, Word.UNKNOWN)
    verdict = conclude(found, "true")
    assert verdict.overall is Overall.UNKNOWN
    assert "Samples are too few to compare what single features tell of coin." in verdict.text


def test_a_transcoder_is_held_against_no_reconstruction(toy: Toy) -> None:
    turn = torch.randn(WIDTH, 20, generator=torch.Generator().manual_seed(1))
    wanted = TensorRows(toy.rows @ turn, [ROWS] * SAMPLES, "llm.block.2/all")
    true = toy.sae()
    crossing = replace(true, W_dec=true.W_dec @ turn, b_dec=toy.mean @ turn, subtract=False,
                       b_enc=-true.b_dec @ true.W_enc)  # fmt: skip
    material = replace(toy.material(), targets=wanted)
    found = judge({"crossing": crossing}, material, by=BY, draws=100, controls=1)
    assert found.bases["crossing"].explained.value > 0.8
    assert np.isnan(found.bases["untrained"].explained.value)
    assert found.variance("crossing").word is Word.UNKNOWN
    assert found.against("crossing", Kind.CONCEPT)["coin"].word is Word.NO_BETTER
    assert "does not predict" in conclude(found, "crossing").text
    assert found.against("crossing", Kind.CONCEPT)["first"].word is Word.BETTER
    assert conclude(found, "crossing").overall is Overall.BETTER


def test_equal_rows_and_samples_without_rows(toy: Toy) -> None:
    flat = judge({"true": toy.sae()}, toy.material(torch.ones_like(toy.rows)), by=BY, draws=100)
    assert np.isnan(flat.bases["true"].explained.value)
    assert conclude(flat, "true").overall is Overall.NO_BETTER
    held = set(toy.material().split.held)
    lengths = [0 if i in held else ROWS for i in range(SAMPLES)]
    none = TensorRows(toy.rows[: sum(lengths)], lengths, "llm.block.1/all")
    material = replace(toy.material(), rows=none, layouts=None, embeddings=none)
    empty = judge({"true": toy.sae()}, material, by=BY, controls=1, draws=100)
    assert "there are none" in conclude(empty, "true").text
    assert tables([flat, empty])


def test_an_sae_may_be_called_what_a_baseline_is_called(toy: Toy) -> None:
    given = {"PCA": toy.sae(), "untrained": toy.sae()}
    found = judge(given, toy.material(), by=(), controls=1, draws=100)
    assert found.saes == ("PCA", "untrained")
    assert found.beside("PCA").name == "untrained (baseline)"
    assert found.variance("untrained", Role.PRINCIPAL).word is Word.BETTER


def test_saes_of_other_sizes_have_baselines_of_their_own(toy: Toy) -> None:
    wide = untrained(96, toy.mean, toy.rows[:500], 6, 1)
    found = judge({"true": toy.sae(), "wide": wide}, toy.material(), by=(), controls=1, draws=100)
    assert [len(each.saes) for each in found.peers] == [1, 1]
    assert found.beside("wide").sae.features == 96
    assert found.beside("wide").l0 == pytest.approx(6, abs=0.2)
    assert found.beside("true").l0 == pytest.approx(2, abs=0.2)
    assert found.stability == ()


def test_without_layouts_nothing_is_said_by_modality(toy: Toy) -> None:
    material = replace(toy.material(), layouts=None, embeddings=None)
    basis = judge({"true": toy.sae()}, material, by=(), draws=100, controls=1).bases["true"]
    assert list(basis.by_modality) == ["all"]
    assert basis.image_share is basis.coherence is basis.monosemanticity is None


def test_fewer_rows_are_judged_when_asked_for_whole_samples(toy: Toy) -> None:
    found = judge({"true": toy.sae()}, toy.material(), by=BY, judged=100, draws=100, controls=1)
    assert (found.rows, found.samples) == (96, 12)
    assert found.bases["true"].rows == 96
    one = judge({"true": toy.sae()}, toy.material(), by=(), judged=1, draws=100, controls=1)
    assert (one.rows, one.samples) == (ROWS, 1)


def test_what_does_not_fit_is_refused_first(toy: Toy) -> None:
    with pytest.raises(SpecError, match="no SAE to judge"):
        judge({}, toy.material())
    with pytest.raises(DataError, match="reads rows of 16"):
        judge({"narrow": neurons(torch.zeros(16), 2)}, toy.material())
    short = TensorRows(toy.rows[: 4 * SAMPLES], [4] * SAMPLES, "llm.block.1/all")
    with pytest.raises(DataError, match="its layout 8"):
        judge({"true": toy.sae()}, replace(toy.material(), rows=short))
    broken = toy.rows.clone()
    broken[17, 3] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        judge({"true": toy.sae()}, toy.material(broken))


# ---------------------------------------------------------------------- baselines


def test_baselines_keep_k_features_and_lose_no_scale(toy: Toy) -> None:
    rows = toy.rows[:1000]
    drawn = untrained(64, toy.mean, rows, 5, 0)
    assert (drawn.encode(rows) != 0).sum(1).max() <= 5
    assert torch.allclose(drawn.norms, torch.ones(64), atol=1e-5)
    made = drawn.reconstruct(rows) - toy.mean
    given = rows - toy.mean
    assert float((made * (given - made)).sum()) == pytest.approx(0, abs=1e-2 * len(rows))
    again = untrained(64, toy.mean, rows, 5, 0)
    assert again.digest == drawn.digest != untrained(64, toy.mean, rows, 5, 1).digest


def test_random_rows_are_rows(toy: Toy) -> None:
    found = random_rows(64, toy.mean, toy.rows[:100], 2, 0)
    away = toy.rows[:100] - toy.mean
    cosine = found.W_dec @ (away / away.norm(dim=1, keepdim=True)).T
    assert torch.allclose(cosine.amax(1), torch.ones(64), atol=1e-5)
    assert len(set(cosine.argmax(1).tolist())) == 64
    assert random_rows(500, toy.mean, toy.rows[:100], 2, 0).features == 100
    same = random_rows(5, toy.mean, toy.mean.expand(9, -1), 2, 0)
    assert torch.allclose(same.norms, torch.ones(5), atol=1e-5)


def test_random_directions_are_no_training_s_start() -> None:
    start = torch.randn(48, 32, generator=torch.Generator().manual_seed(0))
    start /= start.norm(dim=1, keepdim=True)
    assert (random_directions(48, 32, 0) @ start.T).diagonal().abs().max() < 0.7


def test_neurons_and_principal_directions_keep_the_largest_values() -> None:
    rows = torch.tensor([[3.0, -4.0, 1.0], [0.5, 0.0, -2.0]])
    mean = torch.tensor([1.0, 0.0, 0.0])
    made = neurons(mean, 1).reconstruct(rows)
    assert made.tolist() == [[1.0, -4.0, 0.0], [1.0, 0.0, -2.0]]
    assert torch.allclose(neurons(mean, 99).reconstruct(rows), rows)
    covariance = torch.diag(torch.tensor([1.0, 9.0, 4.0]))
    first = principal(mean, covariance, 1).W_dec[0]
    assert first.abs().tolist() == pytest.approx([0, 1, 0])
