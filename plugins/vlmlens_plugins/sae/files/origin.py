"""What the configuration of another tool says about an SAE."""

from __future__ import annotations

from vlmlens_plugins.sae.about import About
from vlmlens_plugins.sae.files.place import Config


def origin(source: str, config: Config, kept: tuple[str, ...], reads: str, *notes: str) -> About:
    """What is known about an SAE of another tool; never a column of ours.

    Args:
        source: The name of the format.
        config: The tool's configuration.
        kept: Which of its values are kept with the SAE.
        reads: The place in the model that it reads, in the tool's words; "" if it is not said.
        notes: What else its user should know.
    """
    said = config.said(*kept)
    if reads:
        said.setdefault("hook_name", reads)
    model = said.get("model_name") or said.get("lm_name")
    if model:
        said.setdefault("model_name", model)
    known = bool(reads or model)
    first = f"Its file says that it reads {reads or 'an unnamed place'!r} of "
    first += f"{model or 'an unnamed model'!r}."
    return About(trained=said, source=source, notes=(*([first] if known else []), *notes))
