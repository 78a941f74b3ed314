"""Edits as data: how they are written, which rows they meet, and what is no silent no-op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import vlmlens.registry  # noqa: F401  edits as text need it
from vlmlens.abc.edit_texts import read_edit
from vlmlens.errors import (
    CompositionError,
    EditError,
    EditWithoutEffect,
    SelectorError,
    SiteNotFound,
    SiteSilent,
)
from vlmlens.passes.edits import Edit, EditedRows, Need, WrittenEdit, function_edits, split_outside
from vlmlens.passes.tracing import hooked
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, tiny_model
from vlmlens.testing.tiny import picture
from vlmlens.tokens import Selector


@dataclass(frozen=True)
class Op:
    """An operation of a test: puts a donor's rows, the mean, or a number."""

    needs: Need = "nothing"
    value: float = 0.0

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        if about.donor is not None:
            return about.donor
        if about.spread is not None:
            return about.spread.mean.expand_as(rows)
        return torch.full_like(rows, self.value)

    def donor(self, sample: Sample, others: Sequence[Sample]) -> Sample | None:
        return None

    def describe(self) -> Mapping[str, Any]:
        return {"value": self.value}


def edit(where: str, op: Op | None = None, *, strict: bool = True) -> Edit:
    site, _, selector = where.partition("/")
    return Edit(site, Selector.parse(selector), op or Op(), f"{where} = op", strict)


@pytest.fixture
def vlm() -> TinyLlava:
    return tiny_model()


def samples() -> list[Sample]:
    return [
        Sample("a", "What is this?", (picture(32, 32),)),
        Sample("b", "Name the colour of the largest thing:", (picture(32, 32, seed=1),)),
    ]


# ---------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("llm.block.3/image=zero", ("llm.block.3", "image", "zero", (), {})),
        (
            " llm.block.*.attn.heads[0,2] / all = noise( 2 , seed = 7 ) ",
            ("llm.block.*.attn.heads[0,2]", "all", "noise", ("2",), {"seed": "7"}),
        ),
        (
            "projector/image.region(a = b, ring=1) = ./mine.py:Mine(x(1, 2), y=[3, 4])",
            (
                "projector", "image.region(a = b, ring=1)", "./mine.py:Mine", ("x(1, 2)",),
                {"y": "[3, 4]"},
            ),
        ),
        (
            "llm.block.3/word(it's) = add(\"a, b (1)=2/v \"\"x\"\".npy\", strength=\"2\")",
            ("llm.block.3", "word(it's)", "add", ('a, b (1)=2/v "x".npy',), {"strength": "2"}),
        ),
        ("re:x(?=3).*/last = scale(-1.5)", ("re:x(?=3).*", "last", "scale", ("-1.5",), {})),
    ],
)  # fmt: skip
def test_edits_are_taken_apart(text: str, parts: tuple[Any, ...]) -> None:
    found = WrittenEdit.parse(text)
    shown = (found.site, found.selector, found.name, found.positional, dict(found.named))
    assert shown == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not an edit"),
        ("llm.block.3/image", "is not an edit"),
        ("llm.block.3/image = ", "is not an edit"),
        ("llm.block.3/image = (2)", "is not an edit"),
        ("llm.block.3 = zero", "does not say which rows"),
        ("/image = zero", "does not say which rows"),
        ("llm.block.3/ = zero", "does not say which rows"),
        ("llm.block.3/last = scale(,)", "has an empty argument"),
        ("llm.block.3/last = noise(seed=1, 2)", "without a name after one with a name"),
        ("llm.block.3/last = noise(seed=1, seed=2)", "gives 'seed' twice"),
        ('llm.block.3/last = add("a, b.npy)', "quotes that do not stand around"),
        ('llm.block.3/last = add(a"b"c)', "quotes that do not stand around"),
    ],
)
def test_what_is_no_edit(text: str, message: str) -> None:
    with pytest.raises(EditError, match=message):
        WrittenEdit.parse(text)


def test_an_edit_pools_no_rows() -> None:
    with pytest.raises(EditError, match="pools rows"):
        edit("llm.block.3/image.mean")


def test_one_edit_needs_no_list(vlm: TinyLlava) -> None:
    with vlm.edited("llm.block.0/last = zero"):
        (active,) = vlm.active_edits
        assert [each.text for each in active.edits] == ["llm.block.0/last = zero"]


def test_splitting_leaves_parentheses_whole() -> None:
    assert split_outside("a(1,2),b[3,4],c", ",") == ["a(1,2)", "b[3,4]", "c"]
    assert split_outside("a)b,c", ",") == ["a)b", "c"]


@pytest.mark.parametrize("value", ["a, b", "a(b", "x)y(", "a=b", " x", 'a"b', "[1, 2]", "1+2", ""])
def test_an_edit_is_written_so_that_it_is_read_again(value: str) -> None:
    edit = WrittenEdit("", "llm.block.3", "last", "add", (value,), {"unit": value})
    again = WrittenEdit.parse(str(edit))
    assert (again.positional, dict(again.named)) == ((value,), {"unit": value})


def test_text_needs_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmlens.abc.edit_texts._readers", [])
    with pytest.raises(CompositionError, match="registry of plugins is not loaded"):
        read_edit("llm.block.0/last = zero")


# ---------------------------------------------------------------------- rows


def test_only_the_selected_rows_change(vlm: TinyLlava) -> None:
    batch = vlm.encode(samples())
    plain = vlm.trace(batch, ["llm.block.0"])
    found = vlm.trace(batch, ["llm.block.0"], edits=[edit("llm.block.0/image[2:5]", Op(value=3))])
    for i, layout in enumerate(batch.layout(i) for i in range(2)):
        flat, before = (t["llm.block.0"].flatten(0, 1) for t in (found, plain))
        rows = Selector.parse("image[2:5]").rows(layout)
        others = [row for row in layout.rows.tolist() if row not in rows]
        assert bool((flat[rows] == 3).all()), i
        assert torch.equal(flat[others], before[others])


def test_edits_of_one_site_follow_each_other(vlm: TinyLlava) -> None:
    batch = vlm.encode(samples())
    edits = [edit("llm.block.0/all", Op(value=1)), edit("llm.block.0/last", Op(value=2))]
    found = vlm.trace(batch, ["llm.block.0"], edits=edits)
    rows = found.select("llm.block.0/all")
    assert [(one[0, 0].item(), one[-1, 0].item()) for one in rows] == [(1, 2), (1, 2)]


def test_contexts_nest_and_end(vlm: TinyLlava) -> None:
    batch = vlm.encode(samples())
    plain = vlm.forward(batch, logits="last").logits
    with vlm.edited([edit("llm.block.0/last", Op(value=1))]):
        one = vlm.forward(batch, logits="last").logits
        with vlm.edited({"llm.block.1/last": torch.zeros_like}) as same:
            assert same is vlm
            both = vlm.forward(batch, logits="last").logits
        assert len(vlm.describe()["edits"]) == 1
        again = vlm.forward(batch, logits="last").logits
    after = vlm.forward(batch, logits="last").logits
    assert torch.equal(plain, after)
    assert torch.equal(one, again)
    assert not torch.equal(plain, one)
    assert not torch.equal(one, both)
    assert "edits" not in vlm.describe()


def hooks(vlm: TinyLlava) -> int:
    found = [
        len(part._forward_hooks) + len(part._forward_pre_hooks) for part in vlm.module.modules()
    ]
    return sum(found)


def test_nothing_is_left_after_an_error(vlm: TinyLlava) -> None:
    before = hooks(vlm)
    batch = vlm.encode(samples())
    with pytest.raises(SiteNotFound), vlm.edited([edit("llm.block.99/last")]):
        pass
    with pytest.raises(SelectorError, match="cannot be applied to every sample"):
        vlm.trace(batch, [], edits=[edit("llm.block.0/answer")])
    assert not vlm.active_edits
    assert hooks(vlm) == before


def test_nothing_is_shared_under_edits(vlm: TinyLlava) -> None:
    first = samples()[0]
    groups = [[first, Sample("c", "Why?", first.images)]]
    assert vlm.encode_shared(groups) is not None
    with vlm.edited([edit("llm.block.0/last")]):
        assert vlm.encode_shared(groups) is None


def test_a_pass_that_ends_early_ends(vlm: TinyLlava) -> None:
    """The edit of a later block is not met; that is no error where nobody reads that far."""
    seen: list[torch.Tensor] = []
    (site,) = vlm.sites.resolve("llm.block.0")
    edits = [edit("llm.block.0/last", Op(value=5)), edit("llm.block.1/last")]
    with vlm.edited(edits), hooked(vlm.module, [site], lambda _, t: seen.append(t), stop=True):
        vlm.forward(vlm.encode(samples()[:1]))
        raise AssertionError("the pass went on")
    assert seen[0][0, -1, 0] == 5


# ---------------------------------------------------------------------- others


def test_a_donors_rows(vlm: TinyLlava) -> None:
    one, other = samples()
    donor = Sample("d", one.prompt, other.images)
    take = edit("projector/image", Op("donor"))
    with vlm.edited([take], donors=[donor]):
        patched = vlm.forward(vlm.encode([one]), logits="last").logits
    assert torch.equal(patched, vlm.forward(vlm.encode([donor]), logits="last").logits)
    batch = vlm.encode([other, one])
    by_id = {"a": donor, "b": other}
    found = vlm.trace(
        batch,
        ["projector"],
        edits=[edit("projector/image[:1]", Op("donor"), strict=False)],
        donors=by_id,
    )
    wanted = vlm.trace(vlm.encode([other, donor]), ["projector"]).select("projector/image[0]")
    assert torch.equal(found.select("projector/image[0]"), wanted)


def test_donors_run_without_any_edit(vlm: TinyLlava) -> None:
    one, other = samples()
    donor = Sample("d", one.prompt, other.images)
    wanted = vlm.trace(vlm.encode([donor]), ["llm.block.0"])["llm.block.0"]
    ruin = edit("llm.block.0/last", Op(value=9))
    batch, take = vlm.encode([one]), edit("llm.block.0/all", Op("donor"))
    with vlm.edited([take], donors=[donor]), vlm.edited({"projector/all": torch.zeros_like}):
        inner = vlm.trace(batch, ["llm.block.0"])["llm.block.0"]
    with vlm.edited([ruin]), vlm.edited([take], donors=[donor]):
        outer = vlm.trace(batch, ["llm.block.0"])["llm.block.0"]
    assert torch.equal(inner, wanted)
    assert torch.equal(outer, wanted)


def test_a_donor_must_exist_and_fit(vlm: TinyLlava) -> None:
    one, other = samples()
    with pytest.raises(EditError, match="no donor for the sample 'a'"):
        vlm.trace(vlm.encode([one]), [], edits=[edit("llm.block.0/all", Op("donor"))])
    with pytest.raises(EditError, match=r"'a' has \d+ such rows, its donor \d+"):
        vlm.trace(
            vlm.encode([one]), [], edits=[edit("llm.block.0/all", Op("donor"))], donors=[other]
        )


def test_the_spread_of_others(vlm: TinyLlava) -> None:
    batch = vlm.encode(samples())
    edits = [edit("llm.block.0/image", Op("spread")), edit("llm.block.1/last", Op("spread"))]
    found = vlm.trace(batch, ["llm.block.0"], edits=edits, others=samples())
    plain = vlm.trace(batch, ["llm.block.0"]).select("llm.block.0/image")
    mean = torch.cat(list(plain)).mean(0)
    for rows in found.select("llm.block.0/image"):
        torch.testing.assert_close(rows, mean.expand_as(rows))
    alone = vlm.trace(vlm.encode(samples()[:1]), ["llm.block.0"], edits=edits, others=samples())
    assert torch.equal(alone.select("llm.block.0/image")[0], found.select("llm.block.0/image")[0])
    with pytest.raises(EditError, match="needs other samples, and there are none"):
        vlm.trace(batch, [], edits=edits)


# ---------------------------------------------------------------------- no silent no-op


def test_an_edit_that_changes_nothing(vlm: TinyLlava) -> None:
    batch = vlm.encode(samples())
    twice = [edit("llm.block.0/last", Op(value=1)), edit("llm.block.0/last", Op(value=1))]
    with pytest.raises(EditWithoutEffect, match="changed no value of the sample 'a'"):
        vlm.trace(batch, [], edits=twice)
    vlm.trace(batch, [], edits=[twice[0], edit("llm.block.0/last", Op(value=1), strict=False)])
    vlm.trace(batch, [], edits={"llm.block.0/last": lambda rows: rows})


def test_an_edit_whose_module_does_not_run(vlm: TinyLlava) -> None:
    batch = vlm.encode(samples())
    with pytest.raises(SiteSilent, match="its module did not run"):
        vlm.trace(batch, [], edits=[edit("llm.head/last")])
    vlm.trace(batch, [], edits=[edit("llm.head/last")], logits="all")


def test_an_operation_must_keep_the_shape(vlm: TinyLlava) -> None:
    with pytest.raises(EditError, match=r"made \(1, 31\) of \(1, 32\)"):
        vlm.trace(vlm.encode(samples()), [], edits={"llm.block.0/last": lambda rows: rows[:, 1:]})


# ---------------------------------------------------------------------- while writing


def written(vlm: TinyLlava, edits: Any, tokens: int = 3) -> list[tuple[int, ...]]:
    batch = vlm.encode(samples())
    return [one.token_ids for one in vlm.generate(batch, max_new_tokens=tokens, edits=edits)]


def test_the_first_step_is_the_last_row_of_the_prompt(vlm: TinyLlava) -> None:
    plain = written(vlm, ())
    halve = {"llm.block.1/last": lambda rows: rows * -1}
    first = {"llm.block.1/steps[0]": lambda rows: rows * -1}
    assert written(vlm, halve) == written(vlm, first) != plain


def test_later_steps_leave_the_first_token(vlm: TinyLlava) -> None:
    plain = written(vlm, ())
    later = written(vlm, {"llm.block.1/answer": lambda rows: rows * -1})
    assert [ids[0] for ids in later] == [ids[0] for ids in plain]
    assert later != plain


def test_rows_of_the_answer_count_from_its_beginning(vlm: TinyLlava) -> None:
    with pytest.raises(EditError, match=r"'steps\[-1\]' counts from the end of an answer"):
        written(vlm, [edit("llm.block.1/steps[-1]")])
    with pytest.raises(EditWithoutEffect, match="met no row of the sample 'a'"):
        written(vlm, [edit("llm.block.1/answer")], tokens=1)
    with pytest.raises(EditError, match="names one call of a module"):
        written(vlm, [edit("llm.block.1#0/last")])


def test_the_heads_of_the_next_token_alone(vlm: TinyLlava) -> None:
    """The unembedding runs over one position per pass, the last one."""
    edits = function_edits({"llm.head/last": lambda rows: -rows})
    assert written(vlm, edits)[0][0] != written(vlm, ())[0][0]
    assert (
        written(vlm, edits)[0][0] == written(vlm, {"llm.head/steps[0]": lambda rows: -rows})[0][0]
    )
