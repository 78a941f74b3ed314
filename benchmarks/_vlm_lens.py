"""VLM-Lens on the benchmark's model and samples, from a checkout of it, unchanged.

It is no package: its modules are called `src`, and it reads its settings from a file and from the
command line. Samples are given as a dataset on disk, its way to prompts of their own per image.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import yaml

from vlmlens.samples import Sample


def vlm_lens(
    checkout: Path, folder: Path, model: str, samples: Sequence[Sample], paths: Sequence[str]
) -> Callable[[], object]:
    """What stores the means of some modules' outputs, one sample at a time; loaded once.

    Args:
        checkout: The folder that holds its `src`.
        folder: Gets its dataset, settings and database.
        model: Folder of a LLaVA's checkpoint.
        samples: With one image file each.
        paths: Of the modules.

    Raises:
        SystemExit: There is no VLM-Lens in that folder.
    """
    if not (checkout / "src" / "models" / "base.py").is_file():
        raise SystemExit(f"{checkout} is no checkout of VLM-Lens: it has no src/models/base.py.")
    database = folder / "vlm-lens.db"
    settings = {
        "architecture": "llava",
        "model_path": model,
        "modules": [path.replace(".", r"\.") for path in paths],
        "dataset": [{"local_dataset_path": str(_dataset(folder / "vlm-lens", samples))}],
        "pooling_method": "mean",
        "output_db": str(database),
    }
    file = folder / "vlm-lens.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    sys.path.insert(0, str(checkout))
    with patch.object(sys, "argv", ["main.py", "-c", str(file), "--device", "cpu"]):
        config = importlib.import_module("src.models.config").Config()
    loaded = importlib.import_module("src.main").get_model(config.architecture, config)

    def run() -> None:
        database.unlink(missing_ok=True)
        loaded.run()

    return run


def _dataset(folder: Path, samples: Sequence[Sample]) -> Path:
    from datasets import Dataset

    columns = {
        "id": [number for number, _ in enumerate(samples)],
        "prompt": [sample.prompt for sample in samples],
        "image": [sample.images[0] for sample in samples],
    }
    Dataset.from_dict(columns).save_to_disk(str(folder))
    return folder
