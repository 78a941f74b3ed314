"""The built-in interventions keep the contract, and do what their formulas say."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vlmlens.abc import EditedRows, EditPlace, Intervention, Options
from vlmlens.compose.edit_check import check_edits
from vlmlens.errors import DataNotFound, EditError, SpecError, UnknownPlugin
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.testing import InterventionTests
from vlmlens.testing.model import TinyLlava, request, tiny_model
from vlmlens.tokens import Selector
from vlmlens_plugins.edits import checks
from vlmlens_plugins.edits.directions import Add, AddOptions, Clamp, ClampOptions, ProjectOut
from vlmlens_plugins.edits.directions import ProjectOutOptions as OutOptions
from vlmlens_plugins.edits.of_others import Noise, NoiseOptions, Resample, ResampleOptions

SITE = Site("llm.block.0", "x", Axis.LLM)


class TestZero(checks.ZeroChecks):
    pass


class TestScale(checks.ScaleChecks):
    pass


class TestNoise(checks.NoiseChecks):
    pass


class TestMean(checks.MeanChecks):
    pass


class TestResample(checks.ResampleChecks):
    pass


class TestPatch(checks.PatchChecks):
    pass


class TestAdd(checks.AddChecks):
    pass


class TestProjectOut(checks.ProjectOutChecks):
    pass


class TestClamp(checks.ClampChecks):
    pass


class TestSaeAblate(checks.SaeAblateChecks):
    pass


class TestSaeAblateWithoutError(checks.SaeAblateWithoutErrorChecks):
    pass


class TestSaeClamp(checks.SaeClampChecks):
    pass


class TestSaeScale(checks.SaeScaleChecks):
    pass


class TestSaeSteer(checks.SaeSteerChecks):
    pass


class TestSaeReconstruct(checks.SaeReconstructChecks):
    pass


def about(**more: Any) -> EditedRows:
    return EditedRows(SITE, Selector.parse("all"), Sample("a", "?"), np.arange(4), **more)


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def vector(tmp_path: Path) -> tuple[torch.Tensor, str]:
    made = torch.randn(8, generator=torch.Generator().manual_seed(1))
    save_file({"direction": made}, tmp_path / "v.safetensors", {"site": "llm.block.3"})
    return made, str(tmp_path / "v.safetensors")


def test_a_projected_row_has_nothing_of_the_direction(
    rows: torch.Tensor, vector: tuple[torch.Tensor, str]
) -> None:
    v, file = vector
    out = ProjectOut(OutOptions(file=file)).change(rows, about())
    assert float((out @ v).abs().max()) < 1e-5
    torch.testing.assert_close(ProjectOut(OutOptions(file=file)).change(out, about()), out)
    some = ProjectOut(OutOptions(file=file, positive=True)).change(rows, about())
    along = rows @ v > 0
    assert torch.equal(some[~along], rows[~along])
    torch.testing.assert_close(some[along], out[along])


def test_a_clamped_coordinate(rows: torch.Tensor, vector: tuple[torch.Tensor, str]) -> None:
    v, file = vector
    unit = v / v.norm()
    out = Clamp(ClampOptions(file=file, low=0)).change(rows, about())
    before = rows @ unit
    torch.testing.assert_close(out @ unit, before.clamp(min=0), atol=1e-6, rtol=1e-5)
    assert torch.equal(out[before >= 0], rows[before >= 0])
    across = rows - before[:, None] * unit
    torch.testing.assert_close(out - (out @ unit)[:, None] * unit, across, atol=1e-6, rtol=1e-5)


def test_an_added_direction(rows: torch.Tensor, vector: tuple[torch.Tensor, str]) -> None:
    v, file = vector
    torch.testing.assert_close(
        Add(AddOptions(file=file, strength=-2)).change(rows, about()), rows - 2 * v
    )
    unit = Add(AddOptions(file=file, strength=3, unit=True)).change(rows, about()) - rows
    torch.testing.assert_close(unit.norm(dim=1), torch.full((4,), 3.0))
    none = Add(AddOptions(file=file, strength=0)).change(rows, about())
    assert torch.equal(none, rows)


def test_noise_is_in_units_of_each_dimension(rows: torch.Tensor) -> None:
    from vlmlens.abc import Spread

    many = torch.zeros(2000, 8)
    where = EditedRows(
        SITE, Selector.parse("all"), Sample("a", "?"), np.arange(2000),
        Spread(9, torch.zeros(8), torch.arange(8.0)),
    )  # fmt: skip
    noise = Noise(NoiseOptions(sigma=2)).change(many, where)
    torch.testing.assert_close(noise.std(0), 2 * torch.arange(8.0), rtol=0.1, atol=1e-9)
    less = EditedRows(SITE, where.selector, where.sample, np.arange(3), where.spread)
    assert torch.equal(Noise(NoiseOptions(sigma=2)).change(many[:3], less), noise[:3])
    other = EditedRows(SITE, where.selector, Sample("b", "?"), np.arange(3), where.spread)
    assert not torch.equal(Noise(NoiseOptions(sigma=2)).change(many[:3], other), noise[:3])


def test_resampling_takes_samples_that_differ() -> None:
    others = [Sample(str(i), f"question {i % 3}") for i in range(9)]
    take = Resample(ResampleOptions())
    donors = {take.donor(sample, others).prompt for sample in others[::3]}
    assert "question 0" not in donors
    takers = [Resample(ResampleOptions(seed=seed)) for seed in range(30)]
    picked = {taker.donor(others[0], others).id for taker in takers}
    assert len(picked) > 3
    with pytest.raises(EditError, match="no other sample to take rows from for '0'"):
        take.donor(others[0], others[::3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nonsense", "cannot be read as a direction"),
        (np.zeros(8), "holds no direction"),
        (np.ones((2, 8)), "holds no direction"),
        (np.array([1.0, np.nan]), "holds no direction"),
        (np.array([{}]), "cannot be read as a direction"),
    ],
)
def test_what_is_no_direction(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "v.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(EditError, match=message):
        Add(AddOptions(file=str(path)))


def test_a_direction_of_another_width(rows: torch.Tensor, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones(7))
    with pytest.raises(EditError, match=r"has 7 numbers, the rows at 'llm.block.0' have 8"):
        Add(AddOptions(file=str(tmp_path / "v.npy"))).change(rows, about())
    with pytest.raises(EditError, match="was given no direction"):
        Add(AddOptions())
    with pytest.raises(DataNotFound, match="There is no file"):
        Add(AddOptions(file="nowhere.npy"))


def test_bounds_must_be_bounds(vector: tuple[torch.Tensor, str]) -> None:
    for bounds in ({}, {"low": 2.0, "high": 1.0}):
        with pytest.raises(EditError, match="clamp was given low"):
            Clamp(ClampOptions(file=vector[1], **bounds))


# ---------------------------------------------------------------------- by name


MINE = '''
"""Rows in another order."""
from vlmlens.abc import Intervention, Options
from pydantic import Field

class TurnedOptions(Options):
    by: int = Field(1, description="By how many rows.")

class Turned(Intervention):
    """Rows in another order."""
    Options = TurnedOptions
    def change(self, rows, about):
        return rows.roll(self.options.by, 0)
'''


def test_an_intervention_in_a_file(tmp_path: Path) -> None:
    from vlmlens.testing.run import find_suites

    path = tmp_path / "turned.py"
    path.write_text(MINE, encoding="utf-8")
    registry = Registry.default()
    edit = registry.edit(f"llm.block.0/image = {path}:Turned(2)")
    assert edit.describe()["options"] == {"by": 2}
    turned = edit.operation.change(torch.arange(3.0)[:, None], about())
    assert turned.flatten().tolist() == [1, 2, 0]
    with pytest.raises(EditError, match="has 2 arguments without a name"):
        registry.edit(f"llm.block.0/image = {path}:Turned(2, 3)")
    with pytest.raises(EditError, match="gives 'by' twice"):
        registry.edit(f"llm.block.0/image = {path}:Turned(2, by=3)")
    with pytest.raises(SpecError, match="by = 'x'"):
        registry.edit(f"llm.block.0/image = {path}:Turned(x)")
    (suite,) = find_suites(registry, f"{path}:Turned")
    assert issubclass(suite.checks, InterventionTests)
    assert {result.outcome for result in suite.checks().run_checks()} == {"passed"}


class Placed(Intervention):
    """Belongs to one block, and remembers where it was to be used."""

    seen: ClassVar[list[str]] = []

    def check_place(self, place: EditPlace) -> None:
        assert place.describe()["class"]
        self.seen.append(place.column)
        if place.site.name != "llm.block.0":
            raise EditError(f"{place.text!r} is for the first block.", subject=place.text)

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        return rows + 1


def test_an_intervention_may_refuse_a_place() -> None:
    vlm, placed = tiny_model(), Placed(Options())
    Placed.seen.clear()
    with vlm.edited([placed.at("llm.block.0", "image[2:]")]):
        assert Placed.seen == ["llm.block.0/image[2:]"]
    anywhere = placed.at("llm.block.*", "last", text="everywhere")
    with pytest.raises(EditError, match="'everywhere' is for the first block"):
        vlm.edit_always([anywhere])
    assert Placed.seen[1:] == ["llm.block.0/last", "llm.block.1/last"]
    assert not vlm.active_edits
    with pytest.raises(EditError, match="first block"):
        check_edits([anywhere], TinyLlava.skeleton(request()), [Sample("a", "?")], None)


def test_names_that_are_none() -> None:
    with pytest.raises(UnknownPlugin, match="There is no intervention 'zerro'"):
        Registry([]).edit("llm.block.0/image = zerro")


# ---------------------------------------------------------------------- mistakes


class Mistaken(Intervention):
    """Does what the kit must see."""

    how = ""
    calls = 0

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        type(self).calls += 1

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        match self.how:
            case "shape":
                return rows[:-1]
            case "writes":
                return rows.mul_(2)
            case "forgets":
                type(self).calls += 1
                return rows * self.calls
            case "nothing":
                return rows
            case "type":
                return rows.double()
        return rows * 2


class MistakenChecks(InterventionTests):
    manifest = Manifest(PluginKind.INTERVENTION, "mistaken", f"{__name__}:Mistaken", "Wrong.")

    @property
    def plugin(self) -> type[Any]:
        return Mistaken


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("", ""),
        ("shape", "rows_keep_their_shape_and_type"),
        ("writes", "rows_keep_their_shape_and_type"),
        ("type", "rows_keep_their_shape_and_type"),
        ("forgets", "it_does_the_same_again"),
        ("nothing", "it_changes_the_rows_alone"),
    ],
)
def test_the_kit_sees_mistakes(monkeypatch: pytest.MonkeyPatch, how: str, check: str) -> None:
    monkeypatch.setattr(Mistaken, "how", how)
    results = MistakenChecks().run_checks()
    failed = {result.name for result in results if result.outcome == "failed"}
    assert (check in failed) if how else not failed, failed
