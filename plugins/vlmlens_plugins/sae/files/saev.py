"""Files of saev: a line of JSON, and then what `torch.save` wrote."""

from __future__ import annotations

import torch

from vlmlens_plugins.sae.activations import Activation, JumpRelu, Relu, TopK
from vlmlens_plugins.sae.files.origin import origin
from vlmlens_plugins.sae.files.place import Config, Place
from vlmlens_plugins.sae.files.tensors import Tensors, of_torch, tensors_in
from vlmlens_plugins.sae.files.weights import Weights
from vlmlens_plugins.sae.sae import Sae

_WEIGHTS = "sae.pt"
_LONGEST_LINE = 1 << 20
_SCHEMAS = (0, 1, 2, 3, 4, 5)
_SUBTRACTS = (0, 1)
"""The encoder stopped to take b_dec away on 31 July 2025, when schema 2 came."""
_SCALED = (0, 1, 2)
_CLASSES = ("Relu", "TopK", "BatchTopK")
_KEPT = ("d_vit", "d_model", "exp_factor", "d_sae", "sparsity_coeff", "seed")
_THRESHOLD = "activation.threshold"


def is_saev(place: Place) -> bool:
    """Whether a file of weights begins with a line of JSON."""
    name = place.weights or _WEIGHTS
    if not name.endswith(".pt") or not place.has(name):
        return False
    with place.file(name).open("rb") as file:
        return file.read(1) == b"{"


def read_saev(place: Place) -> Sae:
    """The SAE of a saev file.

    Until schema 1 (July 2025) `b_dec` is taken from the rows, later not. TopK keeps negative
    numbers, and is BatchTopK's form where no threshold is stored.

    Raises:
        DataError: It is damaged, or of an unknown schema.
    """
    name = place.weights or _WEIGHTS
    with place.file(name).open("rb") as file:
        line = file.readline(_LONGEST_LINE)
    header = Config(place, place.object_in(line, f"the first line of {name}"))
    schema = header.whole("schema") if "schema" in header.values else 0
    if schema not in _SCHEMAS:
        raise place.refused(f"its schema is {schema}", "Known are files without one, and 1 to 5.")
    config = header.part("cfg") if schema else header
    tensors = tensors_in(place, of_torch(place, name, skip=len(line)), name)
    found = Weights.plain(tensors)
    activation = _activation(header, config, schema, tensors, found.b_enc)
    tensors.done()
    about = origin("saev", config, _KEPT, "", *_notes(schema))
    sae = found.sae(activation, subtract=schema in _SUBTRACTS, about=about)
    config.must_be("d_vit" if "d_vit" in config.values else "d_model", sae.inputs)
    if "d_sae" in config.values:
        config.must_be("d_sae", sae.features)
    elif "exp_factor" in config.values:
        config.must_expand("exp_factor", sae.inputs, sae.features, None)
    return sae


def _activation(
    header: Config, config: Config, schema: int, tensors: Tensors, like: torch.Tensor
) -> Activation:
    kind, options = _said(header, config, schema)
    if kind not in _CLASSES:
        raise config.place.refused(
            f"its activation is {kind!r}", f"Known are: {', '.join(_CLASSES)}."
        )
    if kind == "Relu":
        return Relu()
    if kind == "BatchTopK" and _THRESHOLD in tensors:
        return JumpRelu(torch.full_like(like, max(0.0, tensors.number(_THRESHOLD))))
    return TopK(min(options.whole("top_k", 32), max(1, like.numel())), rectified=False)


def _said(header: Config, config: Config, schema: int) -> tuple[str, Config]:
    """The class of the activation and its options, wherever the schema has them."""
    if not schema:
        return "Relu", config
    if schema == 1 and header.values.get("cls") in _CLASSES:
        return header.text("cls"), config
    said = config.part("activation")
    return said.text("cls", "missing"), said.part("params")


def _notes(schema: int) -> list[str]:
    found = []
    if schema in _SCALED:
        found.append(
            "saev centred and scaled its rows by numbers that are not in the file: codes are "
            "those of rows treated in the same way."
        )
    if schema == 1:
        found.append(
            "Its schema does not say whether b_dec is taken from the rows: it is, as in all "
            "files before 31 July 2025."
        )
    return found
