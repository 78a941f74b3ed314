"""First-party plugins that are distributions of their own, installed or not.

So that `--adapter llava` without its distribution says what is missing, and does not answer with
names that look alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmlens.manifest import PluginKind


@dataclass(frozen=True, slots=True)
class KnownPlugin:
    """A plugin that the vlmlens project maintains outside the `vlmlens` distribution.

    Args:
        kind: What it is.
        name: Its name once installed.
        aliases: Other names that its distribution answers to, with `_` for `-`, which are equal.
    """

    kind: PluginKind
    name: str
    aliases: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Where it is in the vlmlens repository."""
        return f"{self.kind.value}s/{self.name}"

    @property
    def distribution(self) -> str:
        """The distribution that brings it.

        >>> KnownPlugin(PluginKind.ADAPTER, "aya_vision").distribution
        'vlmlens-adapter-aya-vision'
        """
        return f"vlmlens-{self.kind.value}-{self.name.replace('_', '-')}"

    @property
    def install_hint(self) -> str:
        """What to do to have it."""
        return (
            f"In a checkout of the vlmlens repository: pip install ./{self.folder} (nothing is "
            f"published yet; once it is: pip install {self.distribution})."
        )


def _adapter(name: str, *aliases: str) -> KnownPlugin:
    return KnownPlugin(PluginKind.ADAPTER, name, aliases)


KNOWN = (
    _adapter("aya_vision", "aya", "ayavision"),
    _adapter("blip2", "blip_2"),
    _adapter("clip", "siglip", "siglip2"),
    _adapter("cogvlm", "cog_vlm"),
    _adapter("glamm"),
    _adapter("internlm_xcomposer", "internlm", "xcomposer"),
    _adapter("internvl", "intern_vl"),
    _adapter("janus", "janus_pro"),
    _adapter("llava"),
    _adapter("llavanext", "llava_next"),
    _adapter("minicpm", "minicpm_o", "minicpm_v", "minicpmv"),
    _adapter("molmo", "molmo2"),
    _adapter("paligemma", "paligemma2", "pali_gemma"),
    _adapter("pixtral"),
    _adapter("plm", "perception_lm"),
    _adapter(
        "qwen2vl",
        "qwen", "qwen2_vl", "qwen2_5_vl", "qwen2_5vl", "qwen2.5_vl", "qwen2.5vl", "qwen3_vl",
        "qwen3vl", "qwen3_vl_moe",
    ),
    _adapter("smolvlm", "idefics3", "smolvlm2"),
)  # fmt: skip
"""The adapters of VLM-Lens, and those beside them, one distribution each."""
