"""Manifests of the built-in analyses."""

from __future__ import annotations

from vlmlens.manifest import Manifest, PluginKind

PROBE = Manifest(
    kind=PluginKind.ANALYSIS,
    name="probe",
    target="vlmlens_plugins.analysis.probe:Probe",
    help="What each layer encodes: probes, compared with shuffled labels and the majority.",
    needs=frozenset({"labels"}),
    requires=("torch", "sklearn"),
    checks="vlmlens_plugins.analysis.checks:PROBE_CHECKS",
)

LOGIT_LENS = Manifest(
    kind=PluginKind.ANALYSIS,
    name="logit-lens",
    target="vlmlens_plugins.analysis.logit_lens:LogitLens",
    help="Where the answer forms: the final norm and unembedding applied to every block.",
    needs=frozenset({"readout", "activations"}),
    requires=("torch",),
    aliases=("lens",),
    checks="vlmlens_plugins.analysis.checks:LOGIT_LENS_CHECKS",
)

BLIND_TEST = Manifest(
    kind=PluginKind.ANALYSIS,
    name="blind-test",
    target="vlmlens_plugins.analysis.blind_test:BlindTest",
    help="Whether the answers depend on the image: the same questions with a blank image.",
    needs=frozenset({"model", "images", "answers"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.checks:BLIND_TEST_CHECKS",
)

ATTENTION = Manifest(
    kind=PluginKind.ANALYSIS,
    name="attention",
    target="vlmlens_plugins.analysis.attention:AttentionAnalysis",
    help="Where attention goes: image, key region, sinks; and maps: rollout, relevance, values.",
    needs=frozenset({"images", "model", "text"}),
    requires=("torch",),
    aliases=("attention-map",),
    checks="vlmlens_plugins.analysis.attention.checks:ATTENTION_CHECKS",
)

KNOCKOUT = Manifest(
    kind=PluginKind.ANALYSIS,
    name="knockout",
    target="vlmlens_plugins.analysis.knockout:Knockout",
    help="Which rows must read which for the answer: attention is cut, layer by layer.",
    needs=frozenset({"labels", "model", "text"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.checks:KNOCKOUT_CHECKS",
)

ABLATION = Manifest(
    kind=PluginKind.ANALYSIS,
    name="ablation",
    target="vlmlens_plugins.analysis.ablation:Ablation",
    help="Which heads, MLPs and blocks the answer needs: they are replaced one by one.",
    needs=frozenset({"labels", "model", "text"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.checks:ABLATION_CHECKS",
)

PATCHING = Manifest(
    kind=PluginKind.ANALYSIS,
    name="patching",
    target="vlmlens_plugins.analysis.patching:Patching",
    help="What carries the answer: activations of one run in place of those of another.",
    needs=frozenset({"model", "generate"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.patching.checks:PATCHING_CHECKS",
)

CIRCUIT = Manifest(
    kind=PluginKind.ANALYSIS,
    name="circuit",
    target="vlmlens_plugins.analysis.circuit:Circuit",
    help="Which components suffice: a circuit, found and tested on pairs, drawn as a graph.",
    needs=frozenset({"model", "generate"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.circuit.checks:CIRCUIT_CHECKS",
)

STEERING = Manifest(
    kind=PluginKind.ANALYSIS,
    name="steering",
    target="vlmlens_plugins.analysis.steering:Steering",
    help="Moves answers along a learnt direction, and measures the damage to other questions.",
    needs=frozenset({"labels", "model", "generate"}),
    requires=("torch", "sklearn"),
    checks="vlmlens_plugins.analysis.steering.checks:STEERING_CHECKS",
)

HEADS = Manifest(
    kind=PluginKind.ANALYSIS,
    name="heads",
    target="vlmlens_plugins.analysis.heads:Heads",
    help="Heads by role: previous token, duplicate token, induction, and those that see the image.",
    needs=frozenset({"model", "generate"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.heads.checks:HEADS_CHECKS",
)

ATTRIBUTION = Manifest(
    kind=PluginKind.ANALYSIS,
    name="attribution",
    target="vlmlens_plugins.analysis.attribution:Attribution",
    help="What each head, MLP and patch does to the answer, by gradients held to the truth.",
    needs=frozenset({"labels", "model", "generate", "readout"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.attribution.checks:ATTRIBUTION_CHECKS",
)

WEIGHTS = Manifest(
    kind=PluginKind.ANALYSIS,
    name="weights",
    target="vlmlens_plugins.analysis.weights:Weights",
    help="What heads copy, write and hand to later heads, from the weights alone.",
    needs=frozenset({"model"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.weights.checks:WEIGHTS_CHECKS",
)

ACTIVATING = Manifest(
    kind=PluginKind.ANALYSIS,
    name="activating",
    target="vlmlens_plugins.analysis.activating:Activating",
    help="What activates single coordinates: samples, patches and words that drive them.",
    needs=frozenset({"activations"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.activating.checks:ACTIVATING_CHECKS",
)

LOOK = Manifest(
    kind=PluginKind.ANALYSIS,
    name="look",
    target="vlmlens_plugins.analysis.look:Look",
    help="One look at a few questions: the answer, where it forms, and what it rests on.",
    needs=frozenset({"model", "images", "text"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.look.checks:LOOK_CHECKS",
)

HALLUCINATION = Manifest(
    kind=PluginKind.ANALYSIS,
    name="hallucination",
    target="vlmlens_plugins.analysis.hallucination:Hallucination",
    help="Which internal signals tell wrong answers, beside the answer's own probability.",
    needs=frozenset({"labels", "images", "model", "generate"}),
    requires=("torch", "sklearn"),
    checks="vlmlens_plugins.analysis.hallucination.checks:HALLUCINATION_CHECKS",
)

OCCLUSION = Manifest(
    kind=PluginKind.ANALYSIS,
    name="occlusion",
    target="vlmlens_plugins.analysis.occlusion:Occlusion",
    help="Where in the image the answer's evidence lies; maps compared by deletion and insertion.",
    needs=frozenset({"model", "images", "answers"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.occlusion.checks:OCCLUSION_CHECKS",
)

CAPTIONS = Manifest(
    kind=PluginKind.ANALYSIS,
    name="captions",
    target="vlmlens_plugins.analysis.captions:Captions",
    help="Which objects generated texts name, and which of these are not there (CHAIR).",
    needs=frozenset({"model", "text"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.captions.checks:CAPTIONS_CHECKS",
)

EVIDENCE = Manifest(
    kind=PluginKind.ANALYSIS,
    name="evidence",
    target="vlmlens_plugins.analysis.evidence:Evidence",
    help="Whether the answer rests on a region, on the rest of the image, or on the text.",
    needs=frozenset({"model", "images", "answers"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.evidence.checks:EVIDENCE_CHECKS",
)

REMOVAL = Manifest(
    kind=PluginKind.ANALYSIS,
    name="removal",
    target="vlmlens_plugins.analysis.removal:Removal",
    help="Removes objects from image rows by an edit: do hallucinated ones go, true ones stay?",
    needs=frozenset({"model", "generate", "images"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.removal.checks:REMOVAL_CHECKS",
)

SAE = Manifest(
    kind=PluginKind.ANALYSIS,
    name="sae",
    target="vlmlens_plugins.analysis.sae:SaeAnalysis",
    help="Sparse autoencoders of columns: trained, judged beside untrained ones, shown, tried out.",
    requires=("torch", "sklearn"),
    checks="vlmlens_plugins.analysis.sae.checks:SAE_CHECKS",
)

BENCHMARK = Manifest(
    kind=PluginKind.ANALYSIS,
    name="benchmark",
    target="vlmlens_plugins.analysis.benchmark:BenchmarkScores",
    help="The benchmark's own score, read as its toolkits read it, beside what guessing gains.",
    needs=frozenset({"model", "text"}),
    checks="vlmlens_plugins.analysis.benchmark.checks:BENCHMARK_CHECKS",
)

BOTTLENECK = Manifest(
    kind=PluginKind.ANALYSIS,
    name="bottleneck",
    target="vlmlens_plugins.analysis.bottleneck:Bottleneck",
    help="Where errors come from: eye, alignment, language, reasoning, or a prior.",
    needs=frozenset({"labels", "images", "model", "answers"}),
    requires=("torch", "sklearn"),
    checks="vlmlens_plugins.analysis.bottleneck.checks:BOTTLENECK_CHECKS",
)

TUNE = Manifest(
    kind=PluginKind.ANALYSIS,
    name="tune",
    target="vlmlens_plugins.analysis.tune:Tune",
    help="Train one component (tower, projector, language model, prompt), and measure again.",
    needs=frozenset({"labels", "model", "text"}),
    requires=("torch",),
    checks="vlmlens_plugins.analysis.tune.checks:CHECKS",
)

CONCEPTS = Manifest(
    kind=PluginKind.ANALYSIS,
    name="concepts",
    target="vlmlens_plugins.analysis.concepts:Concepts",
    help="What is near what: directions of concepts, their separation, neighbours, pictures.",
    requires=("torch", "sklearn"),
    aliases=("concept-similarity",),
    checks="vlmlens_plugins.analysis.concepts.checks:CHECKS",
)

SIMILARITY = Manifest(
    kind=PluginKind.ANALYSIS,
    name="similarity",
    target="vlmlens_plugins.analysis.similarity:Similarity",
    help="How alike layers and models are: CKA, RSA and mutual neighbours.",
    aliases=("cka",),
    checks="vlmlens_plugins.analysis.similarity.checks:CHECKS",
)
