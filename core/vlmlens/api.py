"""The Python API: the commands as functions. See docs/python.md.

Over 400 lines: each function spells out its keywords, typed and documented, where an editor finds
them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import vlmlens.report.notebook  # noqa: F401  from here on, notebooks show runs and results
from vlmlens._keywords import (
    Analyses,
    StrPath,
    described,
    place_of,
    spec_of,
    with_keywords_of,
    with_workers,
)
from vlmlens.abc.adapter import ModelAdapter
from vlmlens.abc.observer import Observer
from vlmlens.compose.adapter_choice import check_adapter, with_adapter
from vlmlens.compose.given import Given
from vlmlens.compose.looking import ANALYSIS, Picture, notes_on, questions
from vlmlens.compose.plan import compose, load_model, load_request
from vlmlens.compose.tuned_check import check_tuned, opened_tuned
from vlmlens.covers import Cover
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.results import Result
from vlmlens.runner import execution
from vlmlens.runner.interruption import resumable, with_folder
from vlmlens.runner.progress import watched
from vlmlens.runner.run_folder import RunMode
from vlmlens.runs.look import Look
from vlmlens.runs.run import Run, is_run
from vlmlens.spec.model import MAX_PIXELS, RunSpec, make_spec
from vlmlens.tuned.record import ANALYSIS as TUNE

__all__ = [
    "Look",
    "Run",
    "analyze",
    "compare",
    "export",
    "extract",
    "load",
    "look",
    "open",
    "run",
    "tune",
]


@described
def load(
    adapter: str = "auto",
    model: StrPath | None = None,
    *,
    revision: str | None = None,
    device: str = "auto",
    device_map: str | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    attention: str | None = None,
    autocast: Literal["bfloat16", "float16"] | None = None,
    quantization: Literal["4bit", "8bit"] | None = None,
    compile: bool = False,  # noqa: A002
    trust_remote_code: bool = False,
    tuned: StrPath | Run | None = None,
    merge_tuned: bool = True,
    options: Mapping[str, Any] | None = None,
    peft: StrPath | None = None,
) -> ModelAdapter:
    """Load a vision-language model.

    `options` holds `{"adapter": {...}}`, the adapter's own options. `peft` is a second name of
    `tuned`.

    Raises:
        PluginError: The adapter is not installed or cannot be used.
        CheckpointError: The checkpoint cannot be had, or what was tuned does not fit it.
        SpecError: A value is of the wrong kind.
    """
    given = spec_of(locals())
    registry = Registry.default()
    spec, _ = with_adapter(given, registry)
    manifest = registry.find(PluginKind.ADAPTER, spec.adapter)
    adapter_class: type[ModelAdapter] = registry.load(manifest)
    request = load_request(spec, registry, manifest)
    check_adapter(manifest, adapter_class, request, registry)
    if found := opened_tuned(spec):
        check_tuned(spec, found, adapter_class.skeleton(request))
    return load_model(spec, adapter_class, request)


@described
def run(
    *,
    adapter: str = "auto",
    model: StrPath | None = None,
    revision: str | None = None,
    device: str = "auto",
    device_map: str | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    attention: str | None = None,
    autocast: Literal["bfloat16", "float16"] | None = None,
    quantization: Literal["4bit", "8bit"] | None = None,
    compile: bool = False,  # noqa: A002
    trust_remote_code: bool = False,
    tuned: StrPath | Run | None = None,
    merge_tuned: bool = True,
    data: StrPath | Given | Run | None = None,
    prompt: str | Sequence[str] = (),
    sites: str | Sequence[str] = (),
    edits: str | Sequence[str] = (),
    extractor: str = "activations",
    engine: str | None = None,
    storage: str = "lmdb",
    analysis: Analyses = (),
    samples: int | None = None,
    batch_size: int | Literal["auto"] = "auto",
    share_prefix: bool = True,
    generate: int | None = None,
    limit: int | None = None,
    on_bad_sample: Literal["stop", "skip"] = "stop",
    max_pixels: int = MAX_PIXELS,
    background: str = "white",
    image_bits: int | None = None,
    frames: int | None = None,
    fps: float | None = None,
    text_only: bool = False,
    seed: int = 0,
    out: StrPath | None = None,
    options: Mapping[str, Any] | None = None,
    peft: StrPath | None = None,
    mode: RunMode = "new",
    workers: int | str = 1,
    progress: bool | None = None,
    observer: Observer | None = None,
) -> Run:
    """Do a whole run: extract, analyse, report. The same as `vlmlens run`.

    The keywords are the fields of the run file. Beside a path, `data` may be samples in memory: a
    list of `vlmlens.Sample`, a DataFrame (or rows) with the columns of a table, a `Dataset`, or
    another `Run`, whose samples are used. What was given in memory is kept in the run's folder.

    `peft` is a second name of `tuned`.

    `mode` is "new" (refuse a folder that holds a run), "resume" (go on with it) or "fresh" (start
    it over). `workers` is the number of processes that do the work, with the engine "processes";
    `engine="ray"` or another one takes its options from `options={"engine": {...}}`. `progress`
    shows bars on stderr, in notebooks below the cell; None: in terminals and notebooks. `observer`
    is told instead of them. A run that was interrupted goes on with mode="resume".

    Returns:
        The finished run: `run.results`, `run.activations`, `run.report_path`.

    Raises:
        VlmlensError: Bad input, before anything heavy starts.
    """
    return _executed(locals())


@described
def look(
    image: Picture | Sequence[Picture],
    question: str | Sequence[str],
    *,
    choices: Sequence[str] = (),
    against: Picture | None = None,
    against_question: str | None = None,
    covers: Sequence[Sequence[float]] = (),
    edits: str | Sequence[str] = (),
    grid: int | None = None,
    adapter: str = "auto",
    model: StrPath | None = None,
    revision: str | None = None,
    device: str = "auto",
    device_map: str | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    attention: str | None = None,
    quantization: Literal["4bit", "8bit"] | None = None,
    trust_remote_code: bool = False,
    tuned: StrPath | Run | None = None,
    merge_tuned: bool = True,
    batch_size: int | Literal["auto"] = "auto",
    seed: int = 0,
    out: StrPath | None = None,
    mode: RunMode = "new",
    progress: bool | None = None,
    observer: Observer | None = None,
) -> Look:
    """Ask about a picture: the answer, where it forms, and what it rests on. As `vlmlens look`.

    `image` is a path (of a video, too) or a Pillow image, `question` a text; of several, each
    question is asked about each picture. `choices` are answers to choose from. `against` is another
    picture, or `against_question` another question, and the difference to it is traced. `covers`
    are parts of the picture that are hidden: (left, top, right, bottom), as fractions of its width
    and height; the picture's mean color stands there. `grid` is
    the number of steps along each side of the picture for the map of evidence. Without an adapter
    or a model, the demo model answers, which only knows drawn scenes. `mode`, `progress` and
    `observer` are those of `run`.

    Returns:
        `look.answer`, `look.findings`, `look.page`; in a notebook it shows itself.

    Raises:
        VlmlensError: Bad input, before anything heavy starts.
    """
    settings = {name: value for name, value in locals().items() if name in RunSpec.model_fields}
    several = isinstance(image, list | tuple)
    pictures = cast("Sequence[Picture]", image if several else [image])
    texts = [question] if isinstance(question, str) else question
    samples = questions(
        pictures,
        texts,
        choices=choices,
        against=against,
        against_question=against_question,
        covers=[Cover.of(each) for each in covers],
    )
    spec = spec_of({**settings, "analysis": {ANALYSIS: {"samples": len(samples), "grid": grid}}})
    with watched(observer, progress) as told:
        plan = compose(spec, Registry.default(), observer=told, notes=notes_on(spec), data=samples)
        return Look(_carried_out(plan, mode=mode, observer=told))


def tune(
    component: str | None = None,
    *,
    method: Literal["lora", "weights", "prompt"] | None = None,
    task: str | Sequence[str] = (),
    samples: int | None = None,
    epochs: int | None = None,
    rate: float | None = None,
    rank: int | None = None,
    tokens: int | None = None,
    seeds: int | None = None,
    tuning: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Run:
    """Train one component on labelled questions, and measure again. The same as `vlmlens tune`.

    Args:
        component: "vision", "projector", "llm" (the default), or a pattern of sites.
        method: How: LoRA, all weights, or virtual tokens; None: all weights of the projector, LoRA
            of other components.
        task: Tasks to train on; none: all that have labels.
        samples: Learn from at most so many samples, held-out ones included.
        epochs: The most passes through them.
        rate: The learning rate.
        rank: Of LoRA.
        tokens: Virtual tokens of a prompt.
        seeds: Train so often; the first one is kept.
        tuning: Other options of the analysis `tune`, by name.
        settings: Keywords of `run`: the model, the data, the folder. It takes no `analysis`.

    Returns:
        The run: `run.results["tune"]`. Its folder is what `tuned=` of other functions takes.

    Raises:
        VlmlensError: Bad input, before anything heavy starts.
    """
    given = {
        "component": component, "method": method, "task": task or None, "samples": samples,
        "epochs": epochs, "rate": rate, "rank": rank, "tokens": tokens, "seeds": seeds,
    }  # fmt: skip
    chosen = {name: value for name, value in given.items() if value is not None}
    return run(**settings, analysis={TUNE: {**chosen, **(tuning or {})}})


@described
@with_keywords_of(run)
def extract(**settings: Any) -> Run:
    """Run a model and keep its activations. The same as `vlmlens extract`.

    The keywords are those of `run`, which see. Analyses that are named are kept in the run's spec:
    `analyze` does them.

    Returns:
        The run, without results: `run.activations`.

    Raises:
        VlmlensError: Bad input, before anything heavy starts.
    """
    return _executed(settings, extract_only=True)


def analyze(
    run: Run | StrPath,
    analysis: Analyses = (),
    *,
    tuned: StrPath | Run | None = None,
    merge_tuned: bool = True,
    edits: str | Sequence[str] = (),
    samples: int | None = None,
    seed: int | None = None,
    fresh: bool = False,
    trust: bool = False,
    engine: str | None = None,
    workers: int | str = 1,
    options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    observer: Observer | None = None,
) -> dict[str, Result]:
    """Analyse what a run has stored, or a database of VLM-Lens. The same as `vlmlens analyze`.

    The model is loaded only where an analysis needs it.

    Args:
        run: A run or its folder, or a database; that one's results go beside it, to FILE.vlmlens.
        analysis: Names of analyses, or their options by name; default: those of the run's spec,
            else all that suit. A label (`logit-lens:patches`) keeps the result beside others of
            the same analysis.
        tuned: What was tuned of the model, in place of the run's own, while an analysis runs it.
            Stored columns stay as they are. Such results need a label.
        merge_tuned: Whether LoRA is added to the weights.
        edits: Edits of the model while an analysis runs it, beside those of the run. Stored columns
            stay as they are. Such results need a label.
        samples: How many of the samples analyses read, drawn by task and label, whole groups
            together; None: as many as the run's spec says, else all.
        seed: Seed of everything random; None: the run's own.
        fresh: Replace earlier results of these analyses that have other options.
        trust: Allow what a run from elsewhere names: code, other places, pictures elsewhere.
        engine: What spreads the model work of analyses: "processes", "ray"; None: this process,
            or "processes" if there are several workers.
        workers: The number of workers.
        options: More options of the engine: `{"engine": {...}}`.
        progress: Show bars on stderr, or below a notebook's cell; None: in terminals and notebooks.
        observer: Told how it goes, instead of bars.

    Returns:
        The new results by analysis; `run.results` has them too.

    Raises:
        VlmlensError: Bad input, before anything heavy starts.
    """
    from vlmlens.runner.bare_store import analyze_stored, only_stored, run_beside
    from vlmlens.runner.changes import Changes

    registry = Registry.default()
    spread = with_workers({"engine": engine, "options": options}, workers)
    spec = spec_of({**spread, "edits": edits, "tuned": tuned, "merge_tuned": merge_tuned})
    changes = Changes.of(spec)
    engine_made = execution.engine_of(spec, registry)
    if isinstance(run, Run):
        stored = run
    elif is_run(run):
        stored = Run(run, trust=trust)
    else:
        only_stored(spec.engine, changes)
        stored = run_beside(os.fspath(run), registry, trust=trust)
    asked = make_spec({"analysis": analysis}).analysis
    if not asked:
        stored.check_trust("analysis")
        asked = stored.spec.analysis
    chosen = stored.spec.seed if seed is None else seed
    number = stored.spec.samples if samples is None else make_spec({"samples": samples}).samples
    given = (stored, asked, registry)
    with watched(observer, progress) as told, resumable(stored.path, "Make the same call again."):
        if stored.has_model:
            results = execution.analyze(
                *given,
                observer=told,
                seed=chosen,
                fresh=fresh,
                engine=engine_made,
                changes=changes,
                number=number,
            )
        else:
            only_stored(spec.engine, changes)
            results = analyze_stored(*given, observer=told, seed=chosen, fresh=fresh, number=number)
    return {result.analysis: result for result in results}


def compare(
    *runs: Run | StrPath, to: StrPath | None = None, seed: int = 0, trust: bool = False
) -> Result:
    """Put runs side by side, with tests on the differences. The same as `vlmlens compare`.

    Args:
        runs: Runs or their folders, RUN@COLUMN for one column of a run; the first one is what the
            others are compared with.
        to: Where the page goes; None: no page.
        seed: Seed of everything random.
        trust: As of `open`.

    Raises:
        RunError: There are fewer than two, or one has no results.
    """
    from vlmlens.comparison import compare_runs

    places = [place_of(each) for each in runs]
    trust = trust or any(isinstance(each, Run) and each.trust for each in runs)
    return compare_runs(places, to=None if to is None else Path(to), seed=seed, trust=trust)


def export(
    source: Run | StrPath,
    target: StrPath,
    *,
    format: str | None = None,  # noqa: A002
    storage: str | None = None,
    sites: Sequence[str] = (),
    samples: Sequence[str] = (),
    trust: bool = False,
    progress: bool | None = None,
    observer: Observer | None = None,
) -> str:
    """Write columns to another store, or to files for other programs. As `vlmlens export`.

    Args:
        source: A run or its folder, a store, or its URI.
        target: A path or URI that does not exist yet.
        format: "safetensors", "safetensors-shards", "npz", "npy", "parquet", "hdf5" or a storage
            plugin; None: as the target's suffix says.
        storage: The storage plugin that reads a store without a run.
        sites: Only these columns or sites; `*` and `?` stand for other characters.
        samples: Only samples with these ids; `*` and `?` stand for other characters.
        trust: As of `open`.
        progress: Show bars on stderr, or below a notebook's cell; None: in terminals and notebooks.
        observer: Told how it goes, instead of bars.

    Returns:
        The format that was written.

    Raises:
        StoreError: The target exists, or does not say how it is to be written.
        RunNotFound: There is no source.
    """
    from vlmlens.transfer import carry, origin_of

    registry = Registry.default()
    allowed = trust or (isinstance(source, Run) and source.trust)
    with (
        watched(observer, progress) as told,
        origin_of(registry, place_of(source), storage, trust=allowed) as whole,
    ):
        origin = whole.select(sites, samples)
        told.stage("export", sum(info.samples for info in origin.store.columns()))
        place = os.fspath(target)
        return carry(registry, origin, place, format, lambda done, total: told.advance(done))


def open(path: StrPath, *, trust: bool = False) -> Run:  # noqa: A001
    """Open a run's folder.

    Args:
        path: The folder that `run` or `extract` wrote.
        trust: Allow what a run from elsewhere names: Python files, remote code, URIs, pictures
            outside its folder. A run that you made on this machine may do so anyway.

    Raises:
        RunNotFound: It holds no run.
        UntrustedRun: Somebody else made it, and parts of it are links to other places.
    """
    return Run(path, trust=trust)


def _executed(settings: dict[str, Any], *, extract_only: bool = False) -> Run:
    observer, progress = settings.pop("observer", None), settings.pop("progress", None)
    mode, workers = settings.pop("mode", "new"), settings.pop("workers", 1)
    source = settings.pop("data", None)
    trust = isinstance(source, Run) and source.trust
    data = place_of(source)
    given = None if isinstance(data, str | None) else data
    settings = with_workers(settings, workers)
    spec = spec_of({**settings, "data": data if given is None else None})
    registry = Registry.default()
    engine = execution.engine_of(spec, registry)
    with watched(observer, progress) as told:
        plan = compose(
            spec,
            registry,
            observer=told,
            analyse=not extract_only,
            data=given,
            trust=trust,
        )
        return _carried_out(
            plan,
            mode=mode,
            observer=told,
            extract_only=extract_only,
            engine=engine,
        )


def _carried_out(plan: execution.Plan, **how: Any) -> Run:
    """Execute a plan; where it is interrupted, say how to go on."""
    plan = with_folder(plan)
    again = f'Go on with the same call and out={plan.spec.out!r}, mode="resume".'
    with resumable(plan.spec.out, again):
        return execution.execute(plan, **how)
