"""What the real SAELens computes: `python tests/_sae_lens.py FOLDER`, where sae-lens is installed.

It loads every SAE in `FOLDER/ours`, writes SAEs of its own to `FOLDER/theirs`, and keeps the codes
and rows that it gives for `FOLDER/rows.npy` beside each, as `NAME.npz`. It does not import vlmlens.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch


def main() -> None:
    """Check one folder."""
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    rows = torch.from_numpy(np.load(folder / "rows.npy"))
    for path in sorted((folder / "ours").iterdir()):
        keep(path, loaded(path), rows)
    for path in sorted((folder / "refused").iterdir()):
        try:
            loaded(path)
        except (KeyError, ValueError) as error:
            path.with_suffix(".txt").write_text(repr(error))
    torch.manual_seed(0)
    for name, sae in made(rows.shape[1]).items():
        with torch.no_grad():
            for each in sae.parameters():
                each.copy_(torch.randn_like(each) * 0.5)
            if hasattr(sae, "threshold"):
                sae.threshold.abs_()
            if hasattr(sae, "topk_threshold"):
                sae.topk_threshold.fill_(0.8)
        path = folder / "theirs" / name
        training = hasattr(sae, "save_inference_model")
        sae.save_inference_model(path) if training else sae.save_model(path)
        keep(path, loaded(path), rows)
        if training:  # a checkpoint: the same SAE as its training keeps it
            sae.save_model(path.with_name(f"{name}-checkpoint"))
            keep(path.with_name(f"{name}-checkpoint"), loaded(path), rows)


def loaded(path: Path) -> Any:
    """The SAE of a folder."""
    from sae_lens import SAE

    return SAE.load_from_disk(path)


def keep(path: Path, sae: Any, rows: torch.Tensor) -> None:
    """Its codes and the rows that it writes."""
    with torch.no_grad():
        codes, written = sae.encode(rows), sae(rows)
    np.savez(path.with_suffix(".npz"), codes=codes.numpy(), rows=written.numpy())


def made(width: int) -> dict[str, Any]:
    """One SAE of each architecture."""
    from sae_lens import saes

    size = {"d_in": width, "d_sae": 5 * width}
    out = {"d_out": width, "apply_b_dec_to_input": False}
    return {
        "standard": saes.StandardSAE(saes.StandardSAEConfig(**size)),
        "layer-norm": saes.StandardSAE(
            saes.StandardSAEConfig(**size, normalize_activations="layer_norm")
        ),
        "topk": saes.TopKSAE(saes.TopKSAEConfig(**size, k=6)),
        "topk-rescaled": saes.TopKSAE(
            saes.TopKSAEConfig(**size, k=6, rescale_acts_by_decoder_norm=True)
        ),
        "jumprelu": saes.JumpReLUSAE(saes.JumpReLUSAEConfig(**size)),
        "gated": saes.GatedSAE(saes.GatedSAEConfig(**size)),
        "transcoder": saes.Transcoder(saes.TranscoderConfig(**size, **out)),
        "skip": saes.SkipTranscoder(saes.SkipTranscoderConfig(**size, **out)),
        "jumprelu-transcoder": saes.JumpReLUTranscoder(
            saes.JumpReLUTranscoderConfig(**size, **out)
        ),
        "batchtopk": saes.BatchTopKTrainingSAE(saes.BatchTopKTrainingSAEConfig(**size, k=6)),
        "matryoshka": saes.MatryoshkaBatchTopKTrainingSAE(
            saes.MatryoshkaBatchTopKTrainingSAEConfig(
                **size, k=6, matryoshka_widths=[width, 5 * width]
            )
        ),
    }


if __name__ == "__main__":
    main()
