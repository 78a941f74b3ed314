"""Finding the canonical sites in an unknown module tree, without running it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from vlmlens.sites import Axis, SiteTemplate

_FINAL_NORMS = ("norm", "norm_f", "ln_f", "layer_norm", "final_layernorm", "final_layer_norm")
_OTHER_SENSES = re.compile("audio|speech|video|generation")


def find_templates(model: Any) -> list[SiteTemplate]:
    """The canonical sites of a transformers image-text-to-text model; what is unclear is left out.

    Blocks are the longest `ModuleList` of the vision encoder and of the decoder; the connector is
    what is neither; the final norm stands beside the decoder's blocks.

    Args:
        model: On any device, the meta device too.
    """
    return [template for template in _candidates(_Tree(model)) if template is not None]


def find_text_templates(model: Any) -> list[SiteTemplate]:
    """The canonical sites of a text-only model: those of a language model in `find_templates`."""
    return [template for template in _of_text(_Tree(model, text=True)) if template is not None]


def _candidates(tree: _Tree) -> Iterator[SiteTemplate | None]:
    yield _blocks("vision", tree.vision_blocks, Axis.VISION)
    yield _one("projector", tree.connector, Axis.PROJECTOR)
    yield from _of_text(tree)


def _of_text(tree: _Tree) -> Iterator[SiteTemplate | None]:
    yield _one("llm.embed", tree.embed, Axis.LLM)
    yield _blocks("llm", tree.language_blocks, Axis.LLM)
    yield _one("llm.norm", tree.final_norm, Axis.LLM)
    yield _one("llm.head", tree.head, Axis.LLM)


def _blocks(side: str, path: str | None, axis: Axis) -> SiteTemplate | None:
    return None if path is None else SiteTemplate(f"{side}.block.{{i}}", (f"{path}.{{i}}",), axis)


def _one(name: str, path: str | None, axis: Axis) -> SiteTemplate | None:
    return None if path is None else SiteTemplate(name, (path,), axis)


class _Tree:
    """The landmarks of a module tree, as paths; None where there is none.

    Args:
        model: The model.
        text: Whether it is known to have no vision tower.
    """

    def __init__(self, model: Any, *, text: bool = False) -> None:
        self.model = model
        self._names = {id(module): name for name, module in model.named_modules()}
        self.encoder = None if text else self._part(model.get_encoder(modality="image"))
        self.decoder = self._part(model.get_decoder()) or ""
        self.vision_blocks = self._longest_list(self.encoder) if self.encoder else None
        self.embed = self.name(model.get_input_embeddings())
        self.head = self.name(model.get_output_embeddings())
        self.language_blocks = self._longest_list(self.decoder)
        if self.encoder is None and not text and not self._beside_embed(self.language_blocks):
            self.language_blocks = None

    def name(self, module: nn.Module | None) -> str | None:
        """The path of a module of the tree."""
        return self._names.get(id(module))

    @property
    def final_norm(self) -> str | None:
        """The norm beside the decoder's blocks; of several, the one with a usual name."""
        if self.language_blocks is None:
            return None
        beside = self._children(self.language_blocks.rpartition(".")[0])
        norms = [path for path, module in beside if "norm" in type(module).__name__.lower()]
        usual = [path for path in norms if path.rpartition(".")[2] in _FINAL_NORMS]
        chosen = norms if len(norms) == 1 else usual
        return chosen[0] if len(chosen) == 1 else None

    @property
    def connector(self) -> str | None:
        """What has weights and is neither encoder nor decoder; else what ends the encoder."""
        if self.encoder is None:
            return None
        parent = self.encoder.rpartition(".")[0]
        known = {self.encoder, self.decoder, self.language_blocks, self.final_norm}
        known |= {self.embed, self.head}
        beside = [
            (path, module)
            for path, module in self._children(parent)
            if not _holds(path, known) and not _OTHER_SENSES.search(path.rpartition(".")[2])
        ]
        inside = [item for item in self._children(self.encoder) if not _holds(item[0], known)]
        return self._only(beside) or self._only([item for item in inside if self._ends(item[1])])

    def _only(self, found: list[tuple[str, nn.Module]]) -> str | None:
        weighty = [item for item in found if any(True for _ in item[1].parameters())]
        if len(weighty) > 1:
            weighty = [item for item in weighty if self._ends(item[1])]
        return weighty[0][0] if len(weighty) == 1 else None

    def _ends(self, module: nn.Module) -> bool:
        """Whether it can hand tokens to the language model: a linear layer of its width."""
        width = self.model.config.get_text_config().hidden_size
        layers = (part for part in module.modules() if isinstance(part, nn.Linear))
        blocks = self.vision_blocks or ""
        name = self.name(module) or ""
        return not _holds(name, {blocks}) and any(part.out_features == width for part in layers)

    def _beside_embed(self, blocks: str | None) -> bool:
        """Whether blocks stand beside the embeddings, and so cannot be a hidden vision tower."""
        if blocks is None or self.embed is None:
            return False
        return blocks.rpartition(".")[0] == self.embed.rpartition(".")[0]

    def _part(self, module: nn.Module | None) -> str | None:
        """The path of a proper part of the model."""
        return self.name(module) or None

    def _children(self, path: str) -> Iterator[tuple[str, nn.Module]]:
        for name, module in self.model.get_submodule(path).named_children():
            yield (f"{path}.{name}" if path else name), module

    def _longest_list(self, path: str) -> str | None:
        """The longest outermost `ModuleList`: lists inside of blocks (experts) do not count."""
        found: list[tuple[str, int]] = []
        for name, module in self.model.get_submodule(path).named_modules(prefix=path):
            vision = self.encoder and not _below(path, self.encoder) and _below(name, self.encoder)
            nested = any(_below(name, outer) for outer, _ in found)
            if isinstance(module, nn.ModuleList) and not nested and not vision and len(module):
                found.append((name, len(module)))
        return max(found, key=lambda item: item[1])[0] if found else None


def _below(name: str, outer: str) -> bool:
    return name == outer or name.startswith(f"{outer}.")


def _holds(name: str, others: set[str | None]) -> bool:
    """Whether a path is one of the others, or one of them lies below it."""
    return any(other is not None and _below(other, name) for other in others)
