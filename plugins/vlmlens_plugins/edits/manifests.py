"""Manifests of the built-in interventions."""

from __future__ import annotations

from vlmlens.manifest import Manifest, PluginKind


def _manifest(name: str, target: str, help_text: str) -> Manifest:
    constant = name.upper().replace("-", "_").replace(".", "_")
    return Manifest(
        kind=PluginKind.INTERVENTION,
        name=name,
        target=f"vlmlens_plugins.edits.{target}",
        help=help_text,
        requires=("torch",),
        checks=f"vlmlens_plugins.edits.checks:{constant}_CHECKS",
    )


ZERO = _manifest("zero", "plain:Zero", "Zeros instead of the rows.")
SCALE = _manifest("scale", "plain:Scale", "The rows times a number: scale(0.5).")
NOISE = _manifest(
    "noise", "of_others:Noise", "Gaussian noise of sigma times each dimension's spread: noise(3)."
)
MEAN = _manifest(
    "mean", "of_others:Mean", "The mean of such rows over other samples, or of a stored column."
)
RESAMPLE = _manifest("resample", "of_others:Resample", "Such rows of another, random sample.")
PATCH = _manifest("patch", "of_others:Patch", "The same rows of a donor's pass.")
ADD = _manifest("add", "directions:Add", "A direction is added: add(FILE, 4).")
PROJECT_OUT = _manifest(
    "project-out", "directions:ProjectOut", "What the rows have of a direction is taken away."
)
CLAMP = _manifest(
    "clamp", "directions:Clamp", "The coordinate along a direction is kept within bounds."
)
SAE_ABLATE = _manifest(
    "sae.ablate", "saes:Ablate", "Features of an SAE write nothing: sae.ablate(FILE, 12)."
)
SAE_CLAMP = _manifest(
    "sae.clamp", "saes:Clamp", "Features fire in every row, equally: sae.clamp(FILE, 12, 4)."
)
SAE_SCALE = _manifest(
    "sae.scale", "saes:Scale", "Features write more or less: sae.scale(FILE, 12, 0.5)."
)
SAE_STEER = _manifest(
    "sae.steer", "saes:Steer", "The direction of features is added: sae.steer(FILE, 12, 4)."
)
SAE_RECONSTRUCT = _manifest(
    "sae.reconstruct", "saes:Reconstruct", "What an SAE leaves of the rows: sae.reconstruct(FILE)."
)
