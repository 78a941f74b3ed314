"""Circuits: exactly the two heads of a hand-built model, the demo's colours, and plain hooks."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from vlmlens.abc import AnalysisContext, ColumnStore, ModelAdapter
from vlmlens.errors import CompositionError, DataError, DataNotFound, MissingAnnotation, SpecError
from vlmlens.pairs import pairs_of
from vlmlens.report.files import to_json
from vlmlens.results import Result, Verdict
from vlmlens.runs.result_files import read_results
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import Selector, TokenKind, TokenLayout
from vlmlens_plugins.analysis._attribution import Node
from vlmlens_plugins.analysis._induction import induction_model
from vlmlens_plugins.analysis._sweeps import Item
from vlmlens_plugins.analysis._sweeps.sweeping import answer_tokens
from vlmlens_plugins.analysis.circuit import Circuit, report
from vlmlens_plugins.analysis.circuit.analysis import halves
from vlmlens_plugins.analysis.circuit.bench import Bench
from vlmlens_plugins.analysis.circuit.edges import can_read
from vlmlens_plugins.analysis.circuit.files import SavedCircuit, open_circuit, save_circuits
from vlmlens_plugins.analysis.circuit.nodes import Nodes, all_nodes, groups_of
from vlmlens_plugins.analysis.circuit.options import CircuitOptions
from vlmlens_plugins.analysis.circuit.search import search
from vlmlens_plugins.analysis.patching.grid import layouts_of
from vlmlens_plugins.analysis.patching.runs import items_of
from vlmlens_plugins.analysis.steering.aims import mark_of
from vlmlens_plugins.demo.dataset import DemoDataset

PREVIOUS, INDUCTION = "llm.block.0.attn.heads[0]", "llm.block.1.attn.heads[1]"
INPUTS = "llm.block.0:in"
STORE: ColumnStore = None  # type: ignore[assignment]  # no columns are read


def context(vlm: ModelAdapter, samples: Sequence[Sample], **more: Any) -> AnalysisContext:
    return AnalysisContext(samples, STORE, cache(lambda: vlm), **more)


def analysed(
    vlm: ModelAdapter, samples: Sequence[Sample], *, seed: int = 0, **options: Any
) -> tuple[Result, list[str]]:
    told: list[str] = []
    analysis = Circuit(CircuitOptions.model_validate({"draws": 100, **options}))
    analysis.check(samples, ())
    analysis.check_model(vlm, samples, ())
    return analysis.run(context(vlm, samples, seed=seed, warn=told.append)), told


def kept(result: Result) -> list[str]:
    table = result.table("circuit-nodes").columns
    places = zip(table["site"], table["rows"], table["kept"], strict=True)
    return [f"{site}/{rows}" for site, rows, is_kept in places if is_kept]


def column(result: Result, table: str, name: str) -> np.ndarray:
    return np.array(result.table(table).columns[name], dtype=np.float64)


def edges(result: Result) -> dict[tuple[str, str], float]:
    table = result.table("circuit-edges").columns
    ends = zip(table["from"], table["to"], strict=True)
    return dict(zip(ends, table["effect"], strict=True))  # type: ignore[arg-type]


# ---------------------------------------------------------------------- two heads by hand


def induction_pairs(count: int = 6) -> list[Sample]:
    """`a b c d e a` is followed by b, and `c b a d e a` by d; all else is equal."""
    found = []
    for number in range(count):
        words = np.random.default_rng(number).permutation(np.arange(1, 31))[:5]
        a, b, c, d, e = (f"w{word}" for word in words)
        for role, text, answer in (
            ("clean", [a, b, c, d, e, a], b),
            ("corrupted", [c, b, a, d, e, a], d),
        ):
            attributes = {"pair": f"p{number}", "role": role}
            found.append(
                Sample(
                    f"{role} {number}",
                    " ".join(text),
                    label=answer,
                    attributes=attributes,
                    group=f"g{number}",
                )
            )
    return found


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """What the analysis finds in the hand-built model, and the file in which it saves it."""
    folder, samples = tmp_path_factory.mktemp("circuit"), induction_pairs()
    analysis = Circuit(CircuitOptions.model_validate({"draws": 100}))
    analysis.check(samples, ())
    vlm = induction_model()
    analysis.check_model(vlm, samples, ())
    result = analysis.run(context(vlm, samples, folder=folder))
    (file,) = folder.iterdir()
    return result, file


@pytest.fixture(scope="module")
def induction(searched: tuple[Result, Path]) -> Result:
    return searched[0]


@pytest.fixture(scope="module")
def saved(searched: tuple[Result, Path]) -> Path:
    """Read only."""
    return searched[1]


def test_the_circuit_of_induction_is_its_two_heads(induction: Result) -> None:
    assert kept(induction) == [f"{PREVIOUS}/text", f"{INDUCTION}/text"]
    (row,) = [induction.table("circuit").columns]
    assert row["keeps"] == pytest.approx([1.0], abs=1e-6)
    assert row["left"] == pytest.approx([0.0], abs=1e-6)
    assert row["nothing_kept"] == pytest.approx([0.0], abs=1e-6)
    chosen = np.array(induction.table("circuit-nodes").columns["kept"], bool)
    np.testing.assert_allclose(column(induction, "circuit-nodes", "lost")[chosen], 1, atol=1e-6)


def test_its_edges_go_from_the_one_head_to_the_other(induction: Result) -> None:
    found = edges(induction)
    assert found[PREVIOUS, INDUCTION] == pytest.approx(1, abs=1e-6)
    assert found[INDUCTION, "logits"] == pytest.approx(1, abs=1e-6)
    assert found[INPUTS, PREVIOUS] == pytest.approx(1, abs=1e-6)
    assert found[PREVIOUS, "logits"] == pytest.approx(0, abs=1e-6)


def test_a_ranking_by_patching_finds_the_same() -> None:
    result, _ = analysed(induction_model(), induction_pairs(), rank="patching", edges=0)
    assert kept(result) == [f"{PREVIOUS}/text", f"{INDUCTION}/text"]
    assert "circuit-edges" not in [table.name for table in result.tables]


def test_where_only_the_copied_word_differs_the_first_head_is_no_part() -> None:
    """It gives the same in both runs, so exchanging it does nothing."""
    samples = []
    for sample in induction_pairs():
        words = sample.prompt.split()
        if sample.attributes["role"] == "corrupted":
            words = [words[2], words[3], words[0], words[1], *words[4:]]
            words[3] = "w31"
        samples.append(replace(sample, prompt=" ".join(words), label=words[1]))
    assert kept(analysed(induction_model(), samples)[0]) == [f"{INDUCTION}/text"]


class Swapped(Bench):
    """A mistake: the circuit is exchanged, and not everything else."""

    def keeping(self, sets: Sequence[Collection[int]]) -> np.ndarray:
        return self.exchanging(sets)


def test_exchanging_the_circuit_itself_would_be_seen() -> None:
    vlm, samples = induction_model(), induction_pairs()
    found = []
    for kind in (Bench, Swapped):
        bench, nodes = bench_of(vlm, samples, kind=kind)
        wanted = [
            i for i, node in enumerate(nodes.components) if node.site in (PREVIOUS, INDUCTION)
        ]
        found.append(list(search(bench, range(len(nodes.components))).kept) == wanted)
    assert found == [True, False]


# ---------------------------------------------------------------------- against plain hooks


def bench_of(
    vlm: ModelAdapter, samples: Sequence[Sample], kind: type[Bench] = Bench, **options: Any
) -> tuple[Bench, Nodes]:
    items = items_of(pairs_of(samples)[0], "noise")
    groups = groups_of(layouts_of(vlm, items, 8)[Axis.LLM], None)
    chosen = CircuitOptions.model_validate(options)
    nodes = all_nodes(vlm, chosen, groups)
    items, prefixes, tokens, _ = answer_tokens(vlm, items)
    return kind(context(vlm, samples), chosen, nodes, items, (prefixes, tokens)), nodes


@pytest.fixture(scope="module")
def samples() -> Sequence[Sample]:
    options = DemoDataset.Options.model_validate({"pairs": 10})
    return DemoDataset("pairs", options).samples([])


class Plain:
    """One pair by itself, with hooks of PyTorch on the modules of the demo model."""

    def __init__(self, vlm: ModelAdapter, item: Item) -> None:
        assert item.donor is not None
        self.vlm = vlm
        self.answers = [vlm.answer_ids(answer)[0] for answer in item.answers]
        self.target, self.donor = vlm.encode([item.target]), vlm.encode([item.donor])
        self.layout: TokenLayout = self.target.layouts[Axis.LLM].samples[0]
        self.given: dict[str, torch.Tensor] = {}

    def place(self, site: str) -> tuple[torch.nn.Module, bool, slice]:
        """The module of a node, whether its input is meant, and its columns."""
        (found,) = self.vlm.sites.resolve(site)
        module = self.vlm.module.get_submodule(found.path)
        return module, found.side == "in", slice(*(found.columns or (None, None)))

    def rows(self, group: str) -> torch.Tensor:
        is_image = torch.from_numpy(self.layout.kinds == TokenKind.IMAGE)
        return is_image if group == "image" else ~is_image

    def read(self, sites: Collection[str]) -> None:
        """Keep what all sites give for the donor."""

        def keep(site: str, module: Any, args: Any, output: Any = None) -> None:
            del module
            self.given[site] = (args[0] if output is None else output).detach().clone()

        with ExitStack() as stack:
            for site in sites:
                module, inside, _ = self.place(site)
                hook = partial(keep, site)
                handle = (
                    module.register_forward_pre_hook(hook)
                    if inside
                    else module.register_forward_hook(hook)
                )
                stack.callback(handle.remove)
            self.vlm.forward(self.donor, logits="last")

    @contextmanager
    def exchanged(self, nodes: Collection[tuple[str, str]]) -> Iterator[None]:
        def change(site: str, group: str, module: Any, args: Any, output: Any = None) -> Any:
            del module
            _, inside, columns = self.place(site)
            value = (args[0] if inside else output).clone()
            rows = self.rows(group)
            value[0, rows, columns] = self.given[site][0, rows, columns]
            return (value, *args[1:]) if inside else value

        with ExitStack() as stack:
            for site, group in nodes:
                module, inside, _ = self.place(site)
                hook = partial(change, site, group)
                handle = (
                    module.register_forward_pre_hook(hook)
                    if inside
                    else module.register_forward_hook(hook)
                )
                stack.callback(handle.remove)
            yield

    def difference(self, batch: Any = None) -> float:
        logits = self.vlm.forward(batch or self.target, logits="last").logits
        assert logits is not None
        return float(logits[0, self.answers[0]] - logits[0, self.answers[1]])


def test_faithfulness_is_that_of_plain_hooks(vlm: ModelAdapter, samples: Sequence[Sample]) -> None:
    bench, nodes = bench_of(vlm, samples[:6])
    circuit = {3, 11, 13, 21, 27, 35, 38, 39, 49, 59}
    outside = [i for i in range(len(nodes.components)) if i not in circuit]
    shares = bench.share(bench.keeping([circuit, (), range(len(nodes.components))]))
    left = bench.share(bench.exchanging([circuit]))
    top = bottom = others = 0.0
    for item in bench.items:
        plain = Plain(vlm, item)
        plain.read({node.site for node in nodes.components})
        clean, corrupted = plain.difference(), plain.difference(plain.donor)
        with plain.exchanged([(nodes.every[i].site, nodes.every[i].rows) for i in outside]):
            top += plain.difference() - corrupted
        with plain.exchanged([(nodes.every[i].site, nodes.every[i].rows) for i in circuit]):
            others += plain.difference() - corrupted
        bottom += clean - corrupted
    assert shares[0] == pytest.approx(top / bottom, abs=1e-4)
    assert left[0] == pytest.approx(others / bottom, abs=1e-4)
    assert shares[1:] == pytest.approx([0, 1], abs=1e-4)
    assert 0.05 < shares[0] < 0.95


def test_an_edge_is_that_of_plain_hooks(vlm: ModelAdapter, samples: Sequence[Sample]) -> None:
    """The receiver gets the sender's corrupted value, and all else what it has in the circuit."""
    bench, nodes = bench_of(vlm, samples[:2])
    names = [str(node) for node in nodes.every]
    sender = names.index("llm.block.2.attn.heads[3]/text")
    receiver = names.index("llm.block.3.mlp_out/text")
    every = range(len(nodes.components))
    lost = bench.paths(every, [(sender, receiver), (sender, None)])
    plain = Plain(vlm, bench.items[0])
    sites = {node.site for node in nodes.components}
    plain.read(sites)
    donor = plain.given[nodes.every[sender].site]
    plain.donor, given = plain.target, dict(plain.given)
    plain.read(sites)  # what each gives in the whole model, which is the circuit here
    own = dict(plain.given)
    plain.given = {**own, nodes.every[sender].site: donor}
    frozen = [(node.site, node.rows) for i, node in enumerate(nodes.components) if i != receiver]
    module, _, _ = plain.place(nodes.every[receiver].site)
    computed: list[torch.Tensor] = []
    with plain.exchanged(frozen):
        hook = module.register_forward_hook(lambda m, a, output: computed.append(output.clone()))
        plain.difference()
        hook.remove()
    plain.given = {**given, nodes.every[receiver].site: computed[0]}
    with plain.exchanged([(nodes.every[receiver].site, "text")]):
        effect = plain.difference()
    assert lost[sender, receiver][0] == pytest.approx(bench.clean[0] - effect, abs=1e-3)
    assert abs(lost[sender, receiver][0]) > 0.01
    assert abs(lost[sender, None][0]) > 0.01


# ---------------------------------------------------------------------- the demo's colours


@pytest.fixture(scope="module")
def colours(vlm: ModelAdapter, samples: Sequence[Sample]) -> Result:
    return analysed(vlm, samples, edges=10, controls=19)[0]


def test_the_colour_circuit_keeps_the_effect_with_few_components(colours: Result) -> None:
    (row,) = [{name: value[0] for name, value in colours.table("circuit").columns.items()}]
    assert row["keeps"] >= 0.9
    assert row["components"] <= row["candidates"] / 2
    assert row["pairs"] == row["searched_on"] == 5
    assert 0.95 <= row["keeps_searched"] <= 1.05
    random = column(colours, "circuit-random", "keeps")
    assert random.max() < 0.5
    assert abs(row["left"]) < 0.1
    assert abs(row["nothing_kept"]) < 1e-4
    assert row["inputs_image"] > 0.9
    assert abs(row["inputs_text"]) < 0.01
    assert colours.findings[0].verdict is Verdict.DIFFERS
    assert colours.findings[0].notable


def test_every_node_of_the_circuit_is_needed_in_it(colours: Result) -> None:
    chosen = np.array(colours.table("circuit-nodes").columns["kept"], bool)
    lost = column(colours, "circuit-nodes", "lost")
    assert (lost[chosen] > 0).mean() > 0.8
    assert np.isnan(lost[~chosen]).all()


def test_the_graph_goes_from_the_image_to_the_logits(colours: Result) -> None:
    (graph,) = [figure for figure in colours.figures if figure.kind == "graph"]
    assert graph.x == ["image rows", "text rows"]
    assert graph.y[0] == "inputs"
    assert graph.y[-1] == "logits"
    assert len(graph.nodes) == len(kept(colours)) + 3
    image = next(i for i, node in enumerate(graph.nodes) if (node.layer, node.lane) == (0, 0))
    assert any(edge.source == image and edge.value > 0.01 for edge in graph.edges)
    assert to_json(Result.from_dict(json.loads(to_json(colours)))) == to_json(colours)


def test_edges_that_attribution_ranks_high_carry_more(colours: Result) -> None:
    effect = np.abs(column(colours, "circuit-edges", "effect"))
    scores = np.abs(column(colours, "circuit-edges", "score"))
    outer = np.array(colours.table("circuit-edges").columns["to"]) == "logits"
    assert (~outer).sum() == 10
    assert np.corrcoef(effect[outer], scores[outer])[0, 1] > 0.9


# ---------------------------------------------------------------------- files


def test_a_saved_circuit_is_measured_on_other_pairs(saved: Path) -> None:
    assert saved.name == "circuit.all-samples.json"
    result, told = analysed(induction_model(), induction_pairs(8)[12:], circuit=str(saved))
    assert kept(result) == [f"{PREVIOUS}/text", f"{INDUCTION}/text"]
    assert result.table("circuit").columns["pairs"] == [2]
    assert result.table("circuit").columns["keeps"] == pytest.approx([1.0], abs=1e-6)
    assert not any("found" in message for message in told)
    assert read_results(saved.parent) == []


def test_a_saved_circuit_is_not_measured_on_the_pairs_it_was_found_on(saved: Path) -> None:
    vlm, samples, file = induction_model(), induction_pairs(), str(saved)
    result, told = analysed(vlm, samples, circuit=file)
    assert "all samples: 3 pairs are left out: the circuit was found on them." in told
    assert result.table("circuit").columns["pairs"] == [3]
    marks = set(open_circuit(file).searched)
    seen = [sample for sample in samples if mark_of(str(sample.group)) in marks]
    again, warned = analysed(vlm, seen, circuit=file)
    assert any("no other groups of pairs" in message for message in warned)
    assert again.findings[0].verdict is not Verdict.DIFFERS


@pytest.mark.parametrize(
    "change",
    [
        {"format": "vlmlens circuit 9"},
        {"nodes": []},
        {"nodes": [{"site": INDUCTION, "rows": "picture"}]},
        {"nodes": [{"site": INDUCTION, "rows": "text"}] * 2},
        {"rows": {"text": ["no selector!"]}},
        {"parts": None},
        {"task": 3},
        {"searched": [1]},
    ],
)
def test_a_file_that_holds_something_else_is_refused(
    change: dict[str, Any], saved: Path, tmp_path: Path
) -> None:
    file = tmp_path / saved.name
    file.write_text(json.dumps({**json.loads(saved.read_text()), **change}))
    with pytest.raises(DataError, match="no circuit that the analysis"):
        open_circuit(str(file))


def test_tasks_whose_names_have_no_letters_get_files_of_their_own(tmp_path: Path) -> None:
    circuit = SavedCircuit("", {"text": ["text"]}, ["heads"], [Node(INDUCTION, "text")])
    several = [replace(circuit, task=task) for task in ("颜色", "形状", "color", "数")]
    names = save_circuits(tmp_path, several)
    files = ("all", "all_2", "color", "all_3")
    assert names == [f"circuit.{file}.json" for file in files]
    assert [open_circuit(str(tmp_path / name)).task for name in names] == [s.task for s in several]


def test_wrong_files_and_options_are_refused_before_the_model(
    vlm: ModelAdapter, samples: Sequence[Sample], saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataNotFound, match="no file"):
        analysed(vlm, samples, circuit="nowhere.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match="no circuit"):
        open_circuit(str(tmp_path / "list.json"))
    with pytest.raises(SpecError, match="keep is given together with a circuit"):
        analysed(vlm, samples, circuit=str(saved), keep=0.5)
    data = json.loads(saved.read_text())
    data["nodes"].append({"site": "llm.block.77.mlp_out", "rows": "text"})
    file = tmp_path / saved.name
    file.write_text(json.dumps(data))
    with pytest.raises(CompositionError, match=r"no node 'llm\.block\.77\.mlp_out/text'"):
        analysed(vlm, samples, circuit=str(file))


# ---------------------------------------------------------------------- rows, halves, limits


@pytest.fixture
def layouts(vlm: ModelAdapter, samples: Sequence[Sample]) -> list[TokenLayout]:
    return vlm.encode(samples[:2]).layouts[Axis.LLM].samples  # type: ignore[return-value]


def test_groups_of_rows_are_all_rows_once(layouts: list[TokenLayout]) -> None:
    assert groups_of(layouts, None) == {"image": ["image"], "text": ["special", "text"]}
    own = groups_of(layouts, ["image", "special+text[:-1]", "last"])
    assert list(own) == ["image", "special+text[:-1]", "last"]
    total = sum(len(Selector.parse(p).positions(layouts[0])) for g in own.values() for p in g)
    assert total == len(layouts[0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["image", "text"], "leave out 1 rows"),
        (["image", "special+text", "last"], "1 more than once"),
        (["image.mean", "special+text"], "pools rows"),
    ],
)
def test_groups_that_are_no_partition_are_refused(
    rows: list[str], message: str, layouts: list[TokenLayout]
) -> None:
    with pytest.raises(SpecError, match=message):
        groups_of(layouts, rows)


def test_whole_blocks_are_a_circuit_too(vlm: ModelAdapter, samples: Sequence[Sample]) -> None:
    result, _ = analysed(vlm, samples[:4], parts="block", rank="patching", edges=6, controls=1)
    assert {place.count(".") for place in kept(result)} == {2}
    assert column(result, "circuit", "keeps")[0] > 0.8


def test_a_group_is_not_cut_in_halves() -> None:
    sample = Sample("s", "?", label="a")
    items = [Item(sample, ("a", "b"), sample, group=f"g{i // 3}") for i in range(15)]
    first, second = halves(items, 0)
    assert not {item.group for item in first} & {item.group for item in second}
    assert len(first) + len(second) == 15
    assert len({item.group for item in first}) == 3
    assert len(halves(items[:3], 0)) == 1


def test_a_single_group_is_said() -> None:
    samples = [replace(sample, group="one") for sample in induction_pairs(2)]
    result, told = analysed(induction_model(), samples)
    assert any("no other groups of pairs" in message for message in told)
    assert result.findings[0].verdict is Verdict.INCONCLUSIVE


def test_a_circuit_that_fits_its_pairs_too_closely_is_said() -> None:
    vlm, samples = induction_model(), induction_pairs()
    options = CircuitOptions(draws=100, edges=0)
    items = items_of(pairs_of(samples)[0], "noise")
    one = Circuit(options)._circuit(context(vlm, samples), "t", items, None)
    assert not any("too closely" in message for message in report.doubts(one, options))
    worse = replace(one, worth=replace(one.worth, keeps=(0.7, 0.6, 0.8), nothing=(0.2, 0.1, 0.3)))
    told = list(report.doubts(worse, options))
    assert any("keeps 100% on the pairs that it was searched on (3), and 70%" in m for m in told)
    assert any("20% of the effect is left while all components" in message for message in told)


def test_what_can_read_what(vlm: ModelAdapter, samples: Sequence[Sample]) -> None:
    _, nodes = bench_of(vlm, samples[:2])
    number = {str(node): i for i, node in enumerate(nodes.every)}
    reads = lambda sender, receiver: can_read(nodes, number[sender], number[receiver])  # noqa: E731
    assert reads("llm.block.1.attn.heads[0]/text", "llm.block.1.mlp_out/text")
    assert not reads("llm.block.1.attn.heads[0]/image", "llm.block.1.mlp_out/text")
    assert not reads("llm.block.1.mlp_out/text", "llm.block.1.attn.heads[0]/text")
    assert not reads("llm.block.1.attn.heads[0]/text", "llm.block.1.attn.heads[1]/text")
    assert reads("llm.block.1.mlp_out/image", "llm.block.2.attn.heads[0]/text")
    assert reads(f"{INPUTS}/image", "llm.block.0.attn.heads[0]/text")


def test_costs_and_missing_pairs_are_said_before_the_model_is_loaded(
    vlm: ModelAdapter, samples: Sequence[Sample]
) -> None:
    with pytest.raises(SpecError, match="max_passes is 20"):
        analysed(vlm, samples[:4], max_passes=20)
    with pytest.raises(MissingAnnotation, match="No sample belongs to a pair"):
        analysed(vlm, [replace(sample, attributes={}) for sample in samples])
    with pytest.raises(ValidationError, match="less than 1"):
        CircuitOptions.model_validate({"keep": 1.0})
    for parts in (["heads", "attn"], ["block", "mlp"]):
        with pytest.raises(ValidationError, match="a part contains another"):
            CircuitOptions.model_validate({"parts": parts})


def test_a_search_that_is_ended_says_so() -> None:
    bench, nodes = bench_of(induction_model(), induction_pairs(), max_passes=14)
    found = search(bench, range(len(nodes.components)))
    assert not found.done
    assert found.rounds == 0
