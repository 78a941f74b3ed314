"""OwnClass: loads a model class that is the family's own, with weights in the original layout."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import transformers

from vlmlens.abc.adapter import LoadRequest
from vlmlens.hf.checkpoints import read_config_json
from vlmlens.hf.loaded_model import LoadedModel
from vlmlens.hf.weights import StoredTensor, place_weights


class OwnClass(LoadedModel):
    """For families whose model class is not in transformers. List it first in the bases.

    No code of a checkpoint is run: the family reads config.json and renames the weights.
    """

    module_class: ClassVar[type[Any]]
    """A `PreTrainedModel`."""

    @classmethod
    @abstractmethod
    def native_config(
        cls, said: Mapping[str, Any], model: str, arguments: Mapping[str, Any]
    ) -> Any:
        """The config of `module_class`.

        Args:
            said: The checkpoint's config.json.
            model: Hub id or folder, named in errors.
            arguments: For every `from_pretrained`.
        """

    @classmethod
    @abstractmethod
    def native_weights(
        cls, model: str, config: Any, arguments: Mapping[str, Any]
    ) -> Mapping[str, StoredTensor]:
        """The checkpoint's weights by their names in the state dict; arguments: `read_module`."""

    @classmethod
    @abstractmethod
    def special_token_ids(
        cls, model: str, config: Any, arguments: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Fields of the generation config, at least `eos_token_id`; arguments: `read_module`."""

    @classmethod
    def read_config(cls, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `LoadedModel.read_config`."""
        said = read_config_json(model, arguments)
        config = cls.native_config(said, model, arguments)
        config._commit_hash = said.get("_commit_hash")
        return config

    @classmethod
    def read_module(cls, model: str, config: Any, arguments: Mapping[str, Any]) -> Any:
        """See `LoadedModel.read_module`."""
        ids = cls.special_token_ids(model, config, arguments)
        weights = cls.native_weights(model, config, arguments)
        module = place_weights(cls.module_class, config, weights, model, arguments)
        module.generation_config = transformers.GenerationConfig(**ids)
        return module

    @classmethod
    def empty_module(cls, config: Any, request: LoadRequest) -> Any:
        """See `LoadedModel.empty_module`."""
        del request
        return cls.module_class(config)
