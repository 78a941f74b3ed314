"""Check 4: the same samples in batches of other sizes, left-padded, and on each sdpa backend.

Flash attention takes no mask, so prompts of one length, which need none, are tried as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch.nn.attention import SDPBackend, sdpa_kernel

from scripts.gpu_check.columns import rows, some_sites
from scripts.gpu_check.measuring import Rows, apart, finite, flags
from scripts.gpu_check.questions import PROMPTS
from scripts.gpu_check.setting import Dtype
from scripts.gpu_check.trial import Trial

LIMIT = 1e-4
DRIFTS = 2.0
"""In bfloat16, rows may be farther from float32 than single passes are by this factor."""
_SIZES = (8, 32)
_REFUSALS = ("No available kernel", "No viable backend")
_BACKENDS = {
    "math": SDPBackend.MATH,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def check(trial: Trial) -> None:
    """Compare with passes of single samples in float32."""
    setting = trial.setting
    count = 32 if setting.cuda else 8
    samples = setting.samples(count)
    exact = setting.model("float32")
    sites = some_sites(exact)
    with flags(matmul=False, convolutions=False):
        reference = rows(exact, samples, sites, batch=1)
    parts = {"padded": slice(8), "unpadded": slice(None, None, PROMPTS)}
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16")
    for dtype in dtypes:
        vlm = setting.model(dtype)
        alone = apart(rows(vlm, samples, sites, batch=1), reference)
        allowed = limits(dtype, alone)
        with setting.tested(vlm), flags(matmul=False, convolutions=False):
            for size in (size for size in _SIZES if size <= count):
                found = rows(vlm, samples, sites, batch=size)
                _compare(trial, f"{dtype}_batch_{size}", found, reference, allowed)
            for name, backend in _BACKENDS.items():
                for padded, some in parts.items():
                    with sdpa_kernel(backend):
                        made = _tried(vlm, samples[some], sites)
                    told = f"{dtype}_{name}_{padded}"
                    if isinstance(made, str):
                        trial.note(**{told: made})
                    else:
                        _compare(trial, told, made, _part(reference, some), allowed)


def limits(dtype: str, drift: Mapping[str, float]) -> dict[str, float]:
    """What is allowed at each site: float32 rounding, or a bit more than single passes drift."""
    if dtype == "float32":
        return dict.fromkeys(drift, LIMIT)
    return {name: max(LIMIT, DRIFTS * each) for name, each in drift.items()}


def _compare(
    trial: Trial, name: str, found: Rows, reference: Rows, allowed: Mapping[str, float]
) -> None:
    trial.expect(finite(found), f"{name}: numbers that are not finite")
    distance = apart(found, reference)
    worst = max(distance, key=lambda site: distance[site] / allowed[site])
    trial.at_most(name, distance[worst], allowed[worst])


def _tried(vlm: object, samples: Sequence[object], sites: Sequence[str]) -> Rows | str:
    """The rows, or why the backend does not compute them: a mask is too much for some."""
    try:
        return rows(vlm, samples, sites)  # type: ignore[arg-type]
    except RuntimeError as error:
        # Not just "kernel": each error of CUDA speaks of kernels.
        if not any(said in str(error) for said in _REFUSALS):
            raise
        return "not available"


def _part(found: Rows, some: slice) -> Rows:
    return {name: each[some] for name, each in found.items()}
