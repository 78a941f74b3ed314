"""The manifests of the benchmarks."""

from __future__ import annotations

from vlmlens.manifest import Manifest, PluginKind

POPE = Manifest(
    kind=PluginKind.DATASET,
    name="pope",
    target="vlmlens_plugins.benchmarks.pope:Pope",
    help="POPE: is the object there? (yes/no; official files, hub, VLMEvalKit, OPERA, LLaVA).",
    checks="vlmlens_plugins.benchmarks.pope.checks:CHECKS",
)

HPOPE = Manifest(
    kind=PluginKind.DATASET,
    name="hpope",
    target="vlmlens_plugins.benchmarks.hpope:HPope",
    help="H-POPE: objects, then their attributes; also built from your own objects.",
    aliases=("h-pope",),
    checks="vlmlens_plugins.benchmarks.hpope.checks:CHECKS",
)

HALLUSIONBENCH = Manifest(
    kind=PluginKind.DATASET,
    name="hallusionbench",
    target="vlmlens_plugins.benchmarks.hallusionbench:HallusionBench",
    help="HallusionBench: questions on original and edited figures.",
    aliases=("hallusion",),
    checks="vlmlens_plugins.benchmarks.hallusionbench.checks:CHECKS",
)

MME = Manifest(
    kind=PluginKind.DATASET,
    name="mme",
    target="vlmlens_plugins.benchmarks.mme:Mme",
    help="MME: two yes/no questions per image, 14 tasks.",
    checks="vlmlens_plugins.benchmarks.mme.checks:CHECKS",
)

MMMU = Manifest(
    kind=PluginKind.DATASET,
    name="mmmu",
    target="vlmlens_plugins.benchmarks.mmmu:Mmmu",
    help="MMMU: college questions with options or short answers.",
    checks="vlmlens_plugins.benchmarks.mmmu.checks:CHECKS",
)

CDH = Manifest(
    kind=PluginKind.DATASET,
    name="cdh",
    target="vlmlens_plugins.benchmarks.cdh:CdhBench",
    help="CDH-Bench: pairs of a common and an odd picture.",
    aliases=("cdh-bench",),
    checks="vlmlens_plugins.benchmarks.cdh.checks:CHECKS",
)

CHAIR = Manifest(
    kind=PluginKind.DATASET,
    name="chair",
    target="vlmlens_plugins.benchmarks.chair:Chair",
    help="CHAIR: objects in captions of COCO that are not there.",
    checks="vlmlens_plugins.benchmarks.chair.checks:CHECKS",
)

AMBER = Manifest(
    kind=PluginKind.DATASET,
    name="amber",
    target="vlmlens_plugins.benchmarks.amber:Amber",
    help="AMBER: captions and yes/no questions on hallucination.",
    checks="vlmlens_plugins.benchmarks.amber.checks:CHECKS",
)

VQAV2 = Manifest(
    kind=PluginKind.DATASET,
    name="vqav2",
    target="vlmlens_plugins.benchmarks.vqav2:VqaV2",
    help="VQAv2: open questions with ten answers each.",
    aliases=("vqa-v2",),
    checks="vlmlens_plugins.benchmarks.vqav2.checks:CHECKS",
)

CHARTQA = Manifest(
    kind=PluginKind.DATASET,
    name="chartqa",
    target="vlmlens_plugins.benchmarks.chartqa:ChartQa",
    help="ChartQA: questions on charts, with the charts' tables.",
    checks="vlmlens_plugins.benchmarks.chartqa.checks:CHECKS",
)

CLEVR = Manifest(
    kind=PluginKind.DATASET,
    name="clevr",
    target="vlmlens_plugins.benchmarks.clevr:Clevr",
    help="CLEVR: questions on drawn scenes that are known exactly.",
    checks="vlmlens_plugins.benchmarks.clevr.checks:CHECKS",
)

VIDEOMME = Manifest(
    kind=PluginKind.DATASET,
    name="videomme",
    target="vlmlens_plugins.benchmarks.videomme:VideoMme",
    help="Video-MME: questions with options on videos.",
    aliases=("video-mme",),
    checks="vlmlens_plugins.benchmarks.videomme.checks:CHECKS",
)

LMMS_EVAL = Manifest(
    kind=PluginKind.DATASET,
    name="lmms-eval",
    target="vlmlens_plugins.benchmarks.lmms_eval:LmmsEval",
    help="Answers that lmms-eval logged (*_samples_*.jsonl), to look inside them.",
    checks="vlmlens_plugins.benchmarks.lmms_eval.checks:CHECKS",
)

BLINK = Manifest(
    kind=PluginKind.DATASET,
    name="blink",
    target="vlmlens_plugins.benchmarks.blink:Blink",
    help="BLINK: what people see at a glance, 14 tasks, up to four images.",
    checks="vlmlens_plugins.benchmarks.blink.checks:CHECKS",
)
