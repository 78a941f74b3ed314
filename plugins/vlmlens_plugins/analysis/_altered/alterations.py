"""Plain data: which pixels of a sample's images are hidden, and what stands in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from vlmlens.abc.model_work import JSON

OTHER: Final = "other"
"""The fill that takes the pixels of another image."""

Fill: TypeAlias = Literal["mean", "blur", "gray", "black", "white", "noise", "other"]
FILLS: Final[tuple[Fill, ...]] = get_args(Fill)

Boxes: TypeAlias = tuple[tuple[int, float, float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Area:
    """Pixels of a sample's images: those of named regions, and those of boxes.

    Args:
        regions: Names of the sample's regions (`vlmlens.regions`).
        boxes: (number of the image, left, top, right, bottom), in pixels of the upright image.
            Pixels that a box covers in part are inside. What lies outside the image is cut off.
        shift: All pixels are moved so far (right, down). What leaves an image on one side comes
            in on the other, so that there are as many as before.
    """

    regions: tuple[str, ...] = ()
    boxes: Boxes = ()
    shift: tuple[int, int] = (0, 0)

    def to_json(self) -> JSON:
        """The area as JSON; left out is what is empty."""
        data: dict[str, JSON] = {"regions": list(self.regions)} if self.regions else {}
        data |= {"boxes": [list(box) for box in self.boxes]} if self.boxes else {}
        return data | ({"shift": list(self.shift)} if any(self.shift) else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Area:
        """The inverse of `to_json`."""
        boxes = tuple((int(image), *edges) for image, *edges in data.get("boxes", ()))
        right, down = data.get("shift", (0, 0))
        return cls(tuple(data.get("regions", ())), boxes, (right, down))


@dataclass(frozen=True, slots=True)
class Alteration:
    """What is hidden, or what alone is kept; one of the two.

    Args:
        hide: These pixels are filled.
        keep: All other pixels are filled.
        fill: What stands there: "mean", the mean color of the whole image; "blur", the image
            itself under a Gaussian blur; a color; "noise", uniform and drawn from the seed;
            "other", the pixels of another image, brought to this one's size.
        cleared: Of the other image: these pixels get its mean color first, so that its own object
            does not come with it.
        blur: Radius of the blur as a share of the longer side.
        seed: Of noise.
    """

    hide: Area | None = None
    keep: Area | None = None
    fill: Fill = "mean"
    cleared: Area | None = None
    blur: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.hide is None) == (self.keep is None):
            raise ValueError("an alteration has either hide or keep")

    @property
    def area(self) -> Area:
        """The pixels that are hidden or kept."""
        found = self.keep if self.hide is None else self.hide
        assert found is not None  # noqa: S101
        return found

    def to_json(self) -> JSON:
        """The alteration as JSON; left out is what is not used."""
        data: dict[str, JSON] = {"fill": self.fill}
        for name in ("hide", "keep", "cleared"):
            area: Area | None = getattr(self, name)
            if area is not None:
                data[name] = area.to_json()
        if self.fill == "blur":
            data["blur"] = self.blur
        if self.fill == "noise":
            data["seed"] = self.seed
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Alteration:
        """The inverse of `to_json`."""
        given: dict[str, Any] = {
            name: Area.from_json(data[name]) for name in ("hide", "keep", "cleared") if name in data
        }
        given |= {name: data[name] for name in ("fill", "blur", "seed") if name in data}
        return cls(**given)
