"""Colours, the same on paper (matplotlib) and on the page (CSS), for light and dark.

The series colours follow Okabe and Ito, "Color Universal Design" (2008), darkened for white
paper and lightened for dark screens, to a contrast of 3 or more; yellow is left out because it
vanishes on white.
"""

from __future__ import annotations

from typing import Literal

from vlmlens.results import Verdict

SERIES_LIGHT = (
    "#0072b2", "#d55e00", "#00916a", "#b8578f", "#b87f00", "#3a95cf", "#6b4c9a", "#6f6f6f",
)  # fmt: skip
SERIES_DARK = (
    "#4da8e0", "#f4894a", "#34c796", "#e39bc6", "#eab54a", "#9ad4f7", "#b095e0", "#b0b0b0",
)  # fmt: skip
RAMP_LIGHT = ("#f1f5fa", "#c8dcee", "#86b6dc", "#3f83c1", "#0b4a8f")
RAMP_DARK = ("#1b222d", "#1d3d63", "#2a64a2", "#5a9bd9", "#c4e2ff")
RAMP_MAP = ("#0b0724", "#57106e", "#bc3754", "#f98e09", "#fcffa4")
"""Over a picture, on light and dark screens alike; the stops of matplotlib's "inferno"."""

LEVELS = 24
"""Steps of a heat map's colour scale."""

MARKERS = ("circle", "square", "triangle", "diamond")
DASHES: tuple[Literal["--", ":", "-."], ...] = ("--", ":", "-.")
"""Of baselines and chance levels; report.css draws them as .d0, .d1 and .d2."""
"""Marker shapes by series, so that colour is never the only difference."""

_VERDICTS = {
    Verdict.ENCODED: ("●", "yes", "bold green"),
    Verdict.USES_IMAGE: ("●", "yes", "bold green"),
    Verdict.NOT_ENCODED: ("○", "no", "bold dark_orange"),
    Verdict.IGNORES_IMAGE: ("○", "no", "bold dark_orange"),
    Verdict.PARTLY: ("◐", "partly", "bold cyan"),
    Verdict.RESTS_ON_REGION: ("●", "yes", "bold green"),
    Verdict.RESTS_ON_IMAGE: ("◐", "partly", "bold cyan"),
    Verdict.RESTS_ON_TEXT: ("○", "no", "bold dark_orange"),
    Verdict.INCONCLUSIVE: ("?", "unsure", "bold yellow"),
    Verdict.DIFFERS: ("≠", "yes", "bold green"),
    Verdict.NO_DIFFERENCE: ("≈", "unsure", "bold yellow"),
    Verdict.INFO: ("i", "info", "bold blue"),
}


def verdict_look(verdict: Verdict) -> tuple[str, str, str]:
    """A verdict's (symbol, CSS class, rich style)."""
    return _VERDICTS[verdict]


def level(value: float, low: float, high: float) -> int:
    """Which step of the colour scale a value takes, 0 to `LEVELS` - 1; outside values clip."""
    share = (value - low) / (high - low) if high > low else 0.5
    return round(min(max(share, 0.0), 1.0) * (LEVELS - 1))


def ramp(stops: tuple[str, ...]) -> list[str]:
    """`LEVELS` colours interpolated between stops."""
    return [_mixed(stops, index / (LEVELS - 1)) for index in range(LEVELS)]


def ink(background: str) -> str:
    """Black or white, whichever has the higher contrast by WCAG 2's relative luminance."""
    red, green, blue = (_linear(part / 255) for part in _rgb(background))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000000" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "#ffffff"


def css() -> str:
    """CSS of series colours and heat-map steps, for light and for dark screens."""
    dark = _rules(SERIES_DARK, RAMP_DARK)
    return (
        f"{_rules(SERIES_LIGHT, RAMP_LIGHT)}@media screen and (prefers-color-scheme:dark){{{dark}}}"
        + "".join(f".patch.h{index}{{fill:{c}}}" for index, c in enumerate(ramp(RAMP_MAP)))
    )


def _rules(series: tuple[str, ...], stops: tuple[str, ...]) -> str:
    lines = [f".c{index}{{--c:{colour}}}" for index, colour in enumerate(series)]
    for index, colour in enumerate(ramp(stops)):
        lines.append(f".h{index}{{fill:{colour}}}text.t{index}{{fill:{ink(colour)}}}")
        look = f"{{background:{colour};color:{ink(colour)}}}"
        lines.append(f"td.h{index},.lit.h{index}{look}")
    return "".join(lines)


def _mixed(stops: tuple[str, ...], share: float) -> str:
    position = share * (len(stops) - 1)
    index = min(int(position), len(stops) - 2)
    part = position - index
    pairs = zip(_rgb(stops[index]), _rgb(stops[index + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in pairs)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)
