"""Units of model work: what they are known by, how they are cut, run and sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image
from pydantic import Field

from vlmlens.abc import AnalysisContext, ModelWork, Options, WorkUnit
from vlmlens.abc.model_work import keys_of
from vlmlens.abc.unit_batches import cut, left_over, run_batches
from vlmlens.errors import BrokenPlugin, DataError, OutOfMemory
from vlmlens.images import ImageRules
from vlmlens.manifest import PluginKind
from vlmlens.registry._target import import_file
from vlmlens.runner.unit_leases import UnitLease, leases_of, made_work, run_lease
from vlmlens.samples import Sample

MODEL = {"digest": "abc", "dtype": "float32"}


class Telling(ModelWork):
    """Tells what it was given; knows how often and with how much it ran."""

    class Options(Options):
        """One option."""

        power: int = Field(1, description="Of the number.")

    options: Options
    version: ClassVar[int | None] = 1

    def __init__(self, options: Any = None, most: int = 99) -> None:
        super().__init__(options)
        self.sizes: list[int] = []
        self.most = most

    def run(self, vlm: Any, units: Sequence[WorkUnit]) -> list[Any]:
        if len(units) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.sizes.append(len(units))
        return [(unit.sample.to_dict(), dict(unit.arguments), unit.batch) for unit in units]


class Later(Telling):
    version: ClassVar[int | None] = 2


def unit(i: int = 0, batch: str = "", **arguments: Any) -> WorkUnit:
    return WorkUnit(Sample(f"s{i}", f"prompt {i}"), arguments, batch)


def key(work: ModelWork, one: WorkUnit, model: Any = MODEL) -> bytes:
    return keys_of(work, [one], model)[0]


# ---------------------------------------------------------------------- keys


def picture(path: Path, color: str) -> str:
    Image.new("RGB", (8, 8), color).save(path)
    return str(path)


def test_a_key_is_of_everything_that_a_result_depends_on(tmp_path: Path) -> None:
    red, blue = (picture(tmp_path / f"{name}.png", name) for name in ("red", "blue"))
    shown = WorkUnit(Sample("s", "?", (red,)), {"a": [1, {"b": None}]})
    rules = ImageRules(background="black")
    changed = [
        key(Telling(), shown),
        key(Telling(Telling.Options(power=2)), shown),
        key(Later(), shown),
        key(Telling(), shown, {**MODEL, "dtype": "bfloat16"}),
        key(Telling(), shown, {**MODEL, "edits": ["zero"]}),
        key(Telling(), replace(shown, arguments={"a": [1, {"b": 0}]})),
        *(
            key(Telling(), replace(shown, sample=sample))
            for sample in (
                replace(shown.sample, prompt="?!"),
                replace(shown.sample, images=(blue,)),
                replace(shown.sample, images=(red, red)),
                replace(shown.sample, rules=rules),
                replace(shown.sample, attributes={"boxes": "[[0, 0, 1, 1]]"}),
            )
        ),
    ]
    assert len(set(changed)) == len(changed)
    assert {len(each) for each in changed} == {16}


def test_a_key_is_of_nothing_else(tmp_path: Path) -> None:
    red, copy = (picture(tmp_path / f"{name}.png", "red") for name in ("red", "copy"))
    sample = Sample("s", "?", (red,))
    other = Sample("t", "?", (copy,), "label", ("a", "b"), "group", "task", {"color": "red"})
    one, two = WorkUnit(sample, {"a": 1, "b": 2}), WorkUnit(other, {"b": 2, "a": 1}, "batch")
    assert key(Telling(), one) == key(Telling(), two)


def test_what_is_not_in_the_key_is_not_seen_by_the_work(scenes: list[Sample]) -> None:
    boxed = replace(scenes[0], attributes={"color": "red", "boxes": "[]"})
    seen, arguments, batch = Telling().run(None, [WorkUnit(boxed, {"a": (1,)}, "b").as_run()])[0]
    assert {name for name, value in seen.items() if value} == {
        "id", "prompt", "images", "attributes",
    }  # fmt: skip
    assert seen["attributes"] == {"boxes": "[]"}
    assert (arguments, batch) == ({"a": [1]}, "")


def test_without_a_version_the_source_counts(tmp_path: Path) -> None:
    def made(text: str, version: str = "") -> ModelWork:
        path = tmp_path / f"w{len(list(tmp_path.iterdir()))}.py"
        source = "from vlmlens.abc import ModelWork\n\nclass Mine(ModelWork):\n" + version
        path.write_text(f"{source}    def run(self, vlm, units):\n        return {text}\n")
        return import_file(PluginKind.ANALYSIS, path, str(path)).Mine()  # type: ignore[no-any-return]

    first, again, other = made("[1]"), made("[1]"), made("[2]")
    assert key(first, unit()) == key(again, unit()) != key(other, unit())
    said = "    version = 1\n"
    assert key(made("[1]", said), unit()) != key(made("[2]", said), unit())
    assert made_work(other.to_dict()).run(None, [unit()]) == [2]  # type: ignore[arg-type]


def test_arguments_that_are_no_json() -> None:
    with pytest.raises(DataError, match="sample 's3' are no JSON: Object of type set"):
        keys_of(Telling(), [unit(3, a={1})], MODEL)


# ---------------------------------------------------------------------- batches


def test_the_cut_keeps_batches_apart_and_equal_units_together() -> None:
    units = [unit(0), unit(1, "b"), unit(0), unit(2), unit(3), unit(4, "b"), unit(1, "b")]
    keys = keys_of(Telling(), units, MODEL)
    batches = cut(units, keys, 2)
    assert batches == [[0, 3], [4], [1, 5]]
    assert left_over(batches, keys, {keys[3], keys[4]}) == [[0], [1, 5]]
    assert left_over(batches, keys, set(keys)) == []


def test_units_run_in_a_context_without_a_run() -> None:
    done: list[tuple[int, int]] = []
    context = AnalysisContext(
        [], None, lambda: None, batch_size=2, progress=lambda *steps: done.append(steps)  # type: ignore[arg-type, return-value]
    )  # fmt: skip
    work = Telling()
    units = [unit(0), unit(1), unit(0), unit(2)]
    found = context.run_units(work, units)
    assert [each[0]["id"] for each in found] == ["s0", "s1", "s0", "s2"]
    assert isinstance(found[0], list)
    assert work.sizes == [2, 1]
    assert done == [(0, 4), (3, 4), (4, 4)]
    assert context.run_units(work, []) == []


def test_batches_are_halved_until_they_fit() -> None:
    warned: list[str] = []
    work = Telling(most=3)
    batches = [[unit(i) for i in range(10)], [unit(i) for i in range(10, 16)]]
    found = list(run_batches(None, work, batches, warned.append))  # type: ignore[arg-type]
    assert [each[0]["id"] for part in found for each in part] == [f"s{i}" for i in range(16)]
    assert [len(part) for part in found] == [10, 6]
    assert warned == [
        f"{size} samples at once did not fit in memory: batches are halved." for size in (10, 5)
    ]
    assert max(work.sizes) <= 3
    assert work.sizes[-3:] == [2, 1, 3] or sum(work.sizes) == 16


def test_a_unit_that_does_not_fit_alone() -> None:
    batches = [[unit(i) for i in range(3)]]
    with pytest.raises(OutOfMemory, match="One unit"):
        list(run_batches(None, Telling(most=0), batches, lambda said: None))  # type: ignore[arg-type]


class Faulty(Telling):
    def run(self, vlm: Any, units: Sequence[WorkUnit]) -> list[Any]:
        return [1] if self.most else [{1, 2} for _ in units]


@pytest.mark.parametrize(("most", "said"), [(0, "no JSON: .*set"), (1, "1 results for 2 units")])
def test_results_that_cannot_be_kept(most: int, said: str) -> None:
    with pytest.raises(BrokenPlugin, match=f"test_model_work:Faulty gave.* {said}"):
        list(run_batches(None, Faulty(most=most), [[unit(0), unit(1)]], print))  # type: ignore[arg-type]


def test_an_error_of_the_work_is_not_taken_for_full_memory() -> None:
    class Broken(Telling):
        def run(self, vlm: Any, units: Sequence[WorkUnit]) -> list[Any]:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(run_batches(None, Broken(), [[unit(0)]], print))  # type: ignore[arg-type]


# ---------------------------------------------------------------------- leases


class Logits(ModelWork):
    """Four logits at the last position."""

    def run(self, vlm: Any, units: Sequence[WorkUnit]) -> list[Any]:
        batch = vlm.encode([unit.sample for unit in units])
        return vlm.forward(batch, logits="last").logits[:, :4].double().tolist()  # type: ignore[no-any-return]


def test_leases_sent_as_json_give_the_same_bits_however_they_are_cut(
    vlm: Any, scenes: list[Sample], tmp_path: Path
) -> None:
    files = [
        replace(sample, images=(picture_of(sample, tmp_path / f"{i}.png"),))
        for i, sample in enumerate(scenes[:10])
    ]
    units = [WorkUnit(sample) for sample in files]
    batches = [units[:4], units[4:8], units[8:]]
    whole = list(run_batches(vlm, Logits(), batches, print))
    for most in (1, 5, 99):
        leases = leases_of(batches, most)
        assert sum(map(len, leases)) == 10
        assert [lease.number for lease in leases] == list(range(len(leases)))
        found: list[Any] = []
        for lease in leases:
            sent = UnitLease.from_dict(json.loads(json.dumps(lease.to_dict())))
            work = made_work(json.loads(json.dumps(Logits().to_dict())))
            found += json.loads(json.dumps(list(run_lease(vlm, work, sent, print))))
        assert found == whole
    assert [len(leases_of(batches, most)) for most in (1, 5, 99)] == [3, 2, 1]


def picture_of(sample: Sample, path: Path) -> str:
    sample.open_images()[0].save(path)
    return str(path)


def test_a_lease_holds_each_sample_once() -> None:
    sample = Sample("s", "?")
    lease = UnitLease(3, (tuple(WorkUnit(sample, {"cell": i}) for i in range(5)),))
    sent = lease.to_dict()
    assert len(sent["samples"]) == 1
    assert [each.arguments["cell"] for each in UnitLease.from_dict(sent).batches[0]] == [*range(5)]


def test_an_image_in_memory_cannot_be_sent() -> None:
    held = WorkUnit(Sample("s", "?", (Image.new("RGB", (8, 8)),)))
    with pytest.raises(DataError, match="'s' is in memory"):
        UnitLease(0, ((held,),)).to_dict()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("os:system", "is no model work"),
        ("vlmlens.abc:Analysis", "is no model work"),
        ("no_such_module:Work", "cannot be imported"),
        ("vlmlens.abc:NoSuchWork", "cannot be imported"),
    ],
)
def test_what_is_no_work_is_refused(target: str, said: str) -> None:
    with pytest.raises(BrokenPlugin, match=said):
        made_work({"target": target, "options": {}})
