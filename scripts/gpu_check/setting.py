"""The setting of all checks of a process: device, shape, and the models, which are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from scripts.gpu_check.shapes import SHAPES, Shape

if TYPE_CHECKING:
    from vlmlens import ModelAdapter
    from vlmlens.samples import Sample

Dtype: TypeAlias = Literal["float32", "bfloat16"]


@dataclass
class Setting:
    """What checks are run with.

    Args:
        device: "cuda" or "cpu".
        shape: Of the model.
        folder: For the checkpoint, pictures and runs.
        mistake: A mistake that is made on purpose: "weight", "hang", or "" for none.
    """

    device: str
    shape: Shape
    folder: Path
    mistake: str = ""
    _models: dict[str, ModelAdapter] = field(default_factory=dict, init=False)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """A setting from `device`, `shape` (a name), `folder` and `mistake`."""
        return cls(data["device"], SHAPES[data["shape"]], Path(data["folder"]), data["mistake"])

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU that is checked."""
        return self.device == "cuda"

    @property
    def fast(self) -> bool:
        """Whether goals of speed hold: the full shape on a GPU."""
        return self.cuda and self.shape.full

    @property
    def dtype(self) -> Dtype:
        """The dtype in which speed is measured: bfloat16 on a GPU."""
        return "bfloat16" if self.cuda else "float32"

    def checkpoint(self) -> Path:
        """The folder of the checkpoint, which is made if it is not there."""
        from scripts.gpu_check.checkpoint import made_checkpoint

        return made_checkpoint(self.shape, self.folder / f"model-{self.shape.name}", self.device)

    def samples(self, count: int, *, questions: int = 1) -> list[Sample]:
        """Samples with pictures; `questions` of them have the same one."""
        from scripts.gpu_check.questions import asked

        return asked(self.folder / "pictures", count, questions=questions)

    def load(self, dtype: Dtype, device: str | None = None, **settings: Any) -> ModelAdapter:
        """A model of its own, as users load it.

        Args:
            dtype: "float32" or "bfloat16".
            device: Another device than that of the setting.
            settings: More keywords of `vlmlens.load`.
        """
        import vlmlens

        return vlmlens.load(
            "llava", self.checkpoint(), dtype=dtype, device=device or self.device, **settings
        )

    def model(self, dtype: Dtype) -> ModelAdapter:
        """A model that all checks of the process share."""
        if dtype not in self._models:
            self._models[dtype] = self.load(dtype)
        return self._models[dtype]

    def drop(self, dtype: Dtype) -> None:
        """Keep a model no longer."""
        self._models.pop(dtype, None)

    @contextmanager
    def tested(self, vlm: ModelAdapter) -> Iterator[ModelAdapter]:
        """The model under test. With the mistake "weight", one of its weights is wrong inside."""
        import torch

        if self.mistake != "weight":
            yield vlm
            return
        block = vlm.sites.canonical["llm.block.0"].path
        weight = vlm.module.get_parameter(f"{block}.mlp.down_proj.weight")
        with torch.no_grad():
            weight.neg_()
            try:
                yield vlm
            finally:
                weight.neg_()
