"""Vision backbones: the whole kit on four tiny ones, the main checks on the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmlens.testing._checks import CheckFailed
from vlmlens_plugins.hf import vit_checks
from vlmlens_plugins.hf.vit import VisionAdapter

MAIN = (
    "skeleton_is_the_loaded_tree",
    "blocks_equal_hidden_states",
    "batch_equals_single",
    "layout_is_where_the_image_is",
    "heads_are_heads",
    "blocks_add_their_parts",
)


class TestMAE(vit_checks.MAEChecks):
    pass


class TestRegisters(vit_checks.RegistersChecks):
    pass


class TestCLIPTower(vit_checks.CLIPTowerChecks):
    pass


class TestNaFlexTower(vit_checks.NaFlexTowerChecks):
    pass


WHOLE = (TestMAE, TestRegisters, TestCLIPTower, TestNaFlexTower)
OTHERS = [each for each in vit_checks.CHECKS if not any(issubclass(kit, each) for kit in WHOLE)]


@pytest.mark.parametrize("suite", OTHERS, ids=lambda suite: suite.config)
def test_the_main_checks_hold(suite: type[vit_checks.TowerChecks], tmp_path: Path) -> None:
    for name in MAIN:
        suite().do_check(name, tmp_path)


class Shuffled(VisionAdapter):
    """Lets MAE put its patches in random order, as it does by itself."""

    def run_model(self, inputs: object, *, head: bool) -> None:
        del head
        self._module(**{k: v for k, v in inputs.items() if k != "noise"})  # type: ignore[attr-defined]


class ShuffledMAE(vit_checks.MAEChecks):
    @property
    def adapter(self) -> type[VisionAdapter]:
        return Shuffled


def test_the_kit_sees_patches_in_another_order(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed):
        ShuffledMAE().do_check("layout_is_where_the_image_is", tmp_path)
