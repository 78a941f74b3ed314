"""Composing a run: choosing its parts, reading its samples, checking what needs no weights.

Over 400 lines: `compose` is the order of all steps before weights are loaded; what a step does is
in the modules beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from vlmlens._display import brief, count
from vlmlens.abc.adapter import LoadRequest, ModelAdapter
from vlmlens.abc.analysis import COLUMNS, MODEL
from vlmlens.abc.observer import Observer, SilentObserver
from vlmlens.compose.adapter_choice import check_adapter, with_adapter
from vlmlens.compose.applicability import (
    Asked,
    asked_analyses,
    check_storage,
    suitable,
)
from vlmlens.compose.drawn_samples import drawn_samples
from vlmlens.compose.edit_check import check_edits, opened_edits
from vlmlens.compose.estimate import Estimate, check_fits, estimated
from vlmlens.compose.given import IN_MEMORY, Given
from vlmlens.compose.plugin_checks import check_lifecycle
from vlmlens.compose.recall import Planned
from vlmlens.compose.row_check import check_named_rows
from vlmlens.compose.run_data import read_data
from vlmlens.compose.sample_reading import data_of, stood_in
from vlmlens.compose.tuned_check import check_tuned, opened_tuned
from vlmlens.compose.usable_samples import Usable
from vlmlens.compose.uses import used, without_missing_images
from vlmlens.errors import CompositionError
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.runs.trust import with_whole_paths
from vlmlens.sample_table import SampleTable
from vlmlens.samples import BadSample
from vlmlens.sites import SiteMap
from vlmlens.sites.name_cache import remember
from vlmlens.spec.model import RunSpec
from vlmlens.tokens import Column, TokenKind
from vlmlens.tuned.opening import open_tuned
from vlmlens.tuned.putting import put_in

if TYPE_CHECKING:
    from vlmlens.abc.analysis import Analysis
    from vlmlens.abc.extractor import Extractor
    from vlmlens.passes.edits import EdgeCut, Edit
    from vlmlens.registry import Registry
    from vlmlens.samples import Sample
    from vlmlens.tuned.record import Tuned

Loader = Callable[[], ModelAdapter]


@dataclass(frozen=True)
class Plan:
    """A composed run, checked and ready to execute.

    Args:
        spec: The spec with every default filled in, analyses included.
        registry: The plugins from which it was composed.
        samples: The samples, in order, with the sizes and fingerprints of their images (`seen`).
        columns: Names of the columns that extraction will give.
        analyses: The analyses, in the order in which they run.
        suggested: Options of analyses that the data suggests.
        left_out: Default analyses that do not suit this run, with the reasons.
        estimate: How much it will store.
        load: Loads the model with its weights.
        extractor: Makes the extractor for a loaded model.
        skipped: Samples that were left out because their images or videos cannot be used.
        notes: What was guessed or translated when the spec was made, or read from images.
        image_rules: The rules of `ImageRules` that matter to these images; part of the
            fingerprint of the columns.
        skeleton: The adapter without weights; None where nothing uses the model.
        asked: The spec as the user gave it.
        planned: What the run keeps, so that a resumed run need not check its samples again.
        recalled: Whether the samples were taken from the run in the spec's folder.
        tuned: What is put into the model, if anything.
    """

    spec: RunSpec
    registry: Registry
    samples: SampleTable
    columns: list[str]
    analyses: Mapping[str, Analysis]
    suggested: Asked
    left_out: Mapping[str, str]
    estimate: Estimate
    load: Loader
    extractor: Callable[[ModelAdapter], Extractor]
    skipped: Sequence[BadSample] = ()
    notes: Sequence[str] = ()
    image_rules: Mapping[str, Any] = field(default_factory=dict)
    skeleton: ModelAdapter | None = None
    asked: RunSpec | None = None
    planned: Planned | None = None
    recalled: bool = False
    tuned: Tuned | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", SampleTable.of(self.samples))

    def __repr__(self) -> str:
        return brief(
            self,
            self.spec.adapter,
            str(self.spec.data),
            count(len(self.samples), "sample"),
            count(len(self.columns), "column"),
            f"analyses: {', '.join(self.analyses) or 'none'}",
        )

    def without(self, columns: Collection[str]) -> Plan:
        """The same plan without some columns; its analyses stay."""
        if not columns:
            return self
        kept = [name for name in self.columns if name not in columns]
        manifest = self.registry.find(PluginKind.EXTRACTOR, self.spec.extractor)
        spec = self.spec.model_copy(update={"sites": kept})
        return replace(self, columns=kept, extractor=extractor_maker(spec, self.registry, manifest))


def compose(
    spec: RunSpec,
    registry: Registry,
    *,
    observer: Observer | None = None,
    analyse: bool = True,
    must_fit: bool = True,
    notes: Sequence[str] = (),
    data: Given | None = None,
    trust: bool = False,
) -> Plan:
    """Choose the parts of a run and check that they fit, without loading weights.

    Args:
        spec: What the user asked for.
        registry: The installed plugins.
        observer: Receives guesses, and warnings about samples and analyses that are left out.
        analyse: Whether to choose analyses; False for extraction alone.
        must_fit: Whether columns too large for the disk are an error; False for an estimate.
        notes: Notes from making the spec, which go into the plan.
        data: Samples in memory, instead of those that the spec names.
        trust: Whether to open pictures elsewhere that a run given as data names.

    Raises:
        PluginError: A part is not installed or cannot be used.
        SpecError: A part does not have such an option.
        VlmlensError: A lifecycle plugin refuses the run.
        DataError: Samples are missing, malformed, or lack something that an analysis needs.
        ImageError: Images cannot be used, and `on_bad_sample` is "stop". The error lists them.
        VideoError: The same of videos.
        SiteError: A site pattern matches nothing.
        CompositionError: The parts do not fit together.
        StoreFull: The columns do not fit on the disk.
    """
    observer = observer or SilentObserver()
    asked_spec = spec
    check_lifecycle(spec, registry)
    spec, chosen = with_adapter(spec, registry)
    adapter = registry.find(PluginKind.ADAPTER, spec.adapter)
    extractor = registry.find(PluginKind.EXTRACTOR, spec.extractor)
    storage = registry.find(PluginKind.STORAGE, spec.storage)
    registry.options(storage, spec.options.storage)
    tuned = opened_tuned(spec, trust=trust)
    parts = cache(partial(_checked_adapter, spec, registry, adapter))
    shell = cache(lambda: parts()[0].skeleton(parts()[1]))
    asking = partial(_asked, extractor if analyse else None)
    known = read_data(spec, registry, adapter, data, asking, shell, observer, trust=trust)
    spec, samples, suggests = known.spec, known.clips.samples, known.suggests
    notes = _noted(observer, [*notes, *chosen, *known.guesses])
    asked = asking(spec, suggests)
    suit = partial(
        suitable,
        registry,
        adapter=adapter,
        extractor=extractor,
        strict=bool(spec.analysis),
        edited=bool(spec.edits),
    )
    analyses, left_out = suit(asked, samples=_shown(spec, samples), columns=())
    uses = used(spec, analyses, samples)
    make_extractor = extractor_maker(spec, registry, extractor)
    begun = Plan(
        spec=_composed(spec, {name: asked[name] for name in analyses}, data),
        registry=registry,
        samples=samples,
        columns=[],
        analyses=analyses,
        suggested=suggests,
        left_out=left_out,
        estimate=estimated(spec, None, samples, []),
        load=lambda: _opened(spec, registry, adapter, samples),
        extractor=make_extractor,
        notes=notes,
        skipped=known.clips.skipped,
        recalled=known.planned is not None,
        asked=asked_spec,
        tuned=tuned,
    )
    if MODEL not in uses:
        return _without_model(begun, observer)

    adapter_class, request = parts()
    edits = opened_edits(with_whole_paths(spec), registry)
    _check_compile(spec)
    skeleton = shell()
    notes += _noted(observer, check_tuned(spec, tuned, skeleton))
    remember(adapter.name, spec.model, list(skeleton.sites.canonical))
    on_skeleton = make_extractor(skeleton) if COLUMNS in uses else None
    columns = [] if on_skeleton is None else on_skeleton.columns()
    notes += _noted(observer, stood_in(spec, columns, known.unasked))
    notes += _noted(observer, check_storage(storage, spec.storage, columns))
    if known.planned is not None:
        usable = Usable.before(known.planned, samples, observer)
    else:
        usable = Usable.checked(spec, samples, skeleton, on_skeleton, adapter, registry, observer)
        samples = usable.samples
    _check_generation(spec, adapter, columns)
    check_edits(edits, skeleton, samples, spec.generate)
    check_named_rows(columns, edits, samples)
    asked_still = {name: asked[name] for name in analyses}
    shown = _shown(spec, samples)
    analyses, unfit = suit(asked_still, samples=shown, columns=columns, skeleton=lambda: skeleton)
    _tell(observer, analyses, left_out | unfit)
    _tell_costs(observer, analyses, skeleton, shown)

    composed = _composed(spec, {name: asked[name] for name in analyses}, data)
    estimate = estimated(composed, skeleton, samples, columns)
    if must_fit:
        check_fits(estimate)
    return replace(
        begun,
        spec=composed,
        samples=samples,
        columns=columns,
        analyses=analyses,
        left_out=left_out | unfit,
        estimate=estimate,
        load=lambda: load_model(spec, adapter_class, request, edits, samples),
        skipped=[*known.clips.skipped, *usable.skipped],
        notes=[*notes, *usable.notes],
        image_rules=usable.image_rules,
        planned=known.to_keep(usable),
        skeleton=skeleton,
    )


def _asked(extractor: Manifest | None, spec: RunSpec, suggests: Asked) -> dict[str, dict[str, Any]]:
    """The analyses of a run; none without an extractor's manifest, for extraction alone."""
    return {} if extractor is None else asked_analyses(spec.analysis, suggests, extractor)


def _shown(spec: RunSpec, samples: Sequence[Sample]) -> SampleTable:
    """The samples that analyses read."""
    return drawn_samples(SampleTable.of(samples), spec.samples, spec.seed)


def _composed(spec: RunSpec, asked: Mapping[str, Mapping[str, Any]], data: Given | None) -> RunSpec:
    """The spec with its data and analyses filled in."""
    named = {"data": data_of(spec)} if data is None else {"data": IN_MEMORY, "prompt": []}
    return with_whole_paths(spec.model_copy(update={**named, "analysis": dict(asked)}))


def _without_model(plan: Plan, observer: Observer) -> Plan:
    """The plan of a run in which nothing uses the model: images that are not there are left out."""
    samples, missing = without_missing_images(plan.samples)
    _noted(observer, missing)
    _tell(observer, plan.analyses, plan.left_out)
    if not missing:
        return plan
    return replace(plan, samples=samples, notes=[*plan.notes, *missing], recalled=False)


def _noted(observer: Observer, notes: Sequence[str]) -> list[str]:
    for note in notes:
        observer.note(note)
    return list(notes)


def _opened(
    spec: RunSpec, registry: Registry, adapter: Manifest, samples: Sequence[Sample]
) -> ModelAdapter:
    """The model of a run whose analyses said that they use none."""
    return load_model(spec, *_checked_adapter(spec, registry, adapter), samples=samples)


def _tell(
    observer: Observer, analyses: Mapping[str, Analysis], left_out: Mapping[str, str]
) -> None:
    """Say which analyses are left out."""
    for name, why in left_out.items():
        observer.warn(f"{name} is left out: {why}")


def _tell_costs(
    observer: Observer,
    analyses: Mapping[str, Analysis],
    skeleton: ModelAdapter,
    samples: Sequence[Sample],
) -> None:
    """Say what the analyses cost."""
    for name, analysis in analyses.items():
        if cost := analysis.cost(skeleton, samples):
            observer.note(f"{name}: {cost}.")


def _check_compile(spec: RunSpec) -> None:
    if spec.compile:
        from vlmlens.passes.compiling import check_can_compile

        check_can_compile(spec)


def _check_generation(spec: RunSpec, adapter: Manifest, columns: Sequence[str]) -> None:
    """Raise an error if a column or the user needs generated text, and there is none."""
    if spec.generate is not None:
        if "generate" not in adapter.offers:
            raise CompositionError(
                f"--generate asks for text, but the adapter {adapter.name!r} generates none.",
                subject=adapter.name,
                hint="Leave --generate out.",
            )
        return
    for name in columns:
        selector = Column.parse(name).selector
        if selector.steps or selector.kind == TokenKind.ANSWER:
            raise CompositionError(
                f"The column {name!r} is about generated text, but the model writes nothing.",
                subject=name,
                hint="Let the model write with --generate N.",
            )


def _checked_adapter(
    spec: RunSpec, registry: Registry, adapter: Manifest
) -> tuple[type[ModelAdapter], LoadRequest]:
    adapter_class: type[ModelAdapter] = registry.load(adapter)
    request = load_request(spec, registry, adapter)
    check_adapter(adapter, adapter_class, request, registry)
    return adapter_class, request


def load_request(spec: RunSpec, registry: Registry, adapter: Manifest) -> LoadRequest:
    """The part of a spec that is about loading the model."""
    return LoadRequest(
        model=spec.model,
        revision=spec.revision,
        device=spec.device,
        device_map=spec.device_map,
        dtype=spec.dtype,
        attention=spec.attention,
        autocast=spec.autocast,
        quantization=spec.quantization,
        trust_remote_code=spec.trust_remote_code,
        options=registry.options(adapter, spec.options.adapter),
    )


def load_model(
    spec: RunSpec,
    adapter_class: type[ModelAdapter],
    request: LoadRequest,
    edits: Sequence[Edit | EdgeCut] = (),
    samples: Sequence[Sample] = (),
) -> ModelAdapter:
    """Load the model of a spec, put in what was tuned, compile its blocks if asked to, and edit it.

    Args:
        spec: The spec.
        adapter_class: The class of its adapter.
        request: What to load, and how.
        edits: Edits that hold for all of its passes.
        samples: The samples to which edits compare.

    Raises:
        CompositionError: Its blocks cannot be compiled.
        CheckpointError: What was tuned does not fit it.
    """
    vlm = adapter_class.load(request)
    if spec.tuned is not None:
        put_in(vlm, open_tuned(spec.tuned), merge=spec.merge_tuned)
    if spec.compile:
        from vlmlens.passes.compiling import compile_blocks

        compile_blocks(vlm)
    vlm.edit_always(edits, others=samples)
    return vlm


def open_sites(
    spec: RunSpec, registry: Registry
) -> tuple[SiteMap, Mapping[str, int], Mapping[str, str]]:
    """A model's sites, and output widths and class names by module path, from its config alone."""
    spec, _ = with_adapter(spec, registry)
    adapter = registry.find(PluginKind.ADAPTER, spec.adapter)
    adapter_class, request = _checked_adapter(spec, registry, adapter)
    skeleton = adapter_class.skeleton(request)
    remember(adapter.name, spec.model, list(skeleton.sites.canonical))
    classes = {name: type(module).__name__ for name, module in skeleton.module.named_modules()}
    return skeleton.sites, skeleton.widths(), classes


def extractor_maker(
    spec: RunSpec, registry: Registry, manifest: Manifest
) -> Callable[[ModelAdapter], Extractor]:
    """A function that makes the spec's extractor for a model; its class is loaded when called."""

    def make(vlm: ModelAdapter) -> Extractor:
        options = registry.options(manifest, spec.options.extractor)
        extractor_class: type[Extractor] = registry.load(manifest)
        return extractor_class(vlm, spec.sites, options)

    return make
