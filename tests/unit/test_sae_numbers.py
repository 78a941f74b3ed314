"""Numbers that a recomputation from the saved SAE alone found wrong, or that could become so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.sparse import csr_array
from tests.unit._sae_toy import Toy

from vlmlens_plugins.analysis.sae.judging.material import blocks
from vlmlens_plugins.analysis.sae.judging.monosemanticity import monosemanticity
from vlmlens_plugins.analysis.sae.judging.seen import _Part
from vlmlens_plugins.analysis.sae.options import SaeOptions


def test_a_part_that_is_full_in_the_middle_of_a_block_counts_no_rows_beyond() -> None:
    toy = Toy.made()
    material, sae = toy.material(), toy.sae()
    numbers = material.split.held[:21]
    part = _Part(sae, 7, judged=True, blind=False, lean=False)
    for block in blocks(material, numbers, 10**6, 10**6):  # of 1, 4 and 16 samples
        part.add(block, toy.mean.double().numpy())
    found = part.seen(numbers, [8] * 21)
    rows = torch.cat(material.rows.read(numbers[:7]))
    codes = sae.encode(rows).double().numpy()
    assert found.peaks.samples == tuple(numbers[:7])
    np.testing.assert_array_equal(found.peaks.fired, (codes > 0).sum(0))
    np.testing.assert_allclose(found.peaks.density, (codes > 0).mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.peaks.total, codes.sum(0), rtol=1e-5)
    np.testing.assert_allclose(found.peaks.mean.toarray(), codes.reshape(7, 8, -1).mean(1), 1e-5)
    lost = (sae.reconstruct(rows) - rows).double().square().sum().item()
    assert len(found.error) == 7
    np.testing.assert_allclose(found.error.sum(), lost, rtol=1e-5)


def test_codes_that_differ_by_rounding_alone_have_no_score() -> None:
    """A row that is the same in every sample, such as that of BOS, is rounded by its company."""
    rng = np.random.default_rng(0)
    codes = np.full((30, 3), 21.429, np.float32)
    codes[:, 0] *= 1 + 1e-6 * rng.random(30).astype(np.float32)
    codes[:, 1] *= 1 + 1e-2 * rng.random(30).astype(np.float32)
    assert np.ptp(codes[:, 0]) > 0
    found = monosemanticity(csr_array(codes), rng.normal(size=(30, 4)))
    np.testing.assert_array_equal(np.isnan(found), [True, False, True])


def test_off_and_on_may_be_written_bare_which_yaml_reads_as_booleans() -> None:
    found = SaeOptions.model_validate({"model": False, "loss": True})
    assert (found.model, found.loss) == ("off", "on")
    assert SaeOptions.model_validate({"loss": False}).loss == "off"
    with pytest.raises(ValidationError):
        SaeOptions.model_validate({"model": True})
