"""The listed checkpoints: those that the adapters' manifests name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from scripts.models_page import manifests
from vlmlens.errors import SpecError, did_you_mean
from vlmlens.manifest import Checkpoint, Manifest


@dataclass(frozen=True, slots=True)
class Listed:
    """A checkpoint and the adapter that reads it.

    Args:
        adapter: The adapter's manifest.
        checkpoint: Id, parameters, whether it is gated.
    """

    adapter: Manifest
    checkpoint: Checkpoint

    @property
    def id(self) -> str:
        """Its id on the Hub, `ORG/NAME`."""
        return self.checkpoint.id

    @property
    def slug(self) -> str:
        """Its id as the name of a folder, `ORG--NAME`."""
        return self.id.replace("/", "--")

    @property
    def distribution(self) -> str:
        """The distribution that brings the adapter."""
        package = self.adapter.target.partition(".")[0]
        return "vlmlens" if package == "vlmlens_plugins" else package.replace("_", "-")


def listed(family: str | None = None, only: Sequence[str] = ()) -> list[Listed]:
    """The listed checkpoints, in the order of the page.

    Args:
        family: Name or alias of an adapter; None: all.
        only: Patterns of ids with `*` and `?`; one of them must match the id or its part after the
            slash, in upper or lower case.

    Raises:
        SpecError: No adapter has that name, or a pattern matches nothing.
    """
    found = [
        Listed(adapter, checkpoint)
        for adapter in manifests()
        if adapter.checkpoints and (family is None or family in (adapter.name, *adapter.aliases))
        for checkpoint in adapter.checkpoints
    ]
    if not found:
        names = [adapter.name for adapter in manifests() if adapter.checkpoints]
        raise SpecError(
            f"No adapter with listed checkpoints is named {family!r}.",
            subject=family,
            hint=did_you_mean(str(family), names) or f"There are: {', '.join(names)}.",
        )
    for pattern in only:
        if not any(_matches(each.id, pattern) for each in found):
            raise SpecError(
                f"No listed checkpoint matches {pattern!r}.",
                subject=pattern,
                hint="Use * for any characters. --list shows the checkpoints.",
            )
    return [each for each in found if not only or any(_matches(each.id, p) for p in only)]


def _matches(name: str, pattern: str) -> bool:
    whole, wanted = name.lower(), pattern.lower()
    return fnmatchcase(whole, wanted) or fnmatchcase(whole.partition("/")[2], wanted)
