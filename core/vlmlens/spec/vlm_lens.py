"""Config files of VLM-Lens, read as values of a run spec.

Every choice is taken over or reported: `translated` gives the values and a note for each. Where
what VLM-Lens does is a defect (tuples skipped, means over whatever lies on dimension 1, a row per
generated token), the note says what a run does instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlmlens._known import KNOWN
from vlmlens.errors import SpecError
from vlmlens.manifest import PluginKind
from vlmlens.sites.regex import PREFIX
from vlmlens.spec.model import read_yaml

_MARKS = ("architecture", "model_path")
"""Keys by which a file of VLM-Lens is told from a run spec."""

_DTYPES = ("auto", "float32", "bfloat16", "float16")
_POOLS = {"mean": "mean", "max": "max", None: "all", "None": "all", "none": "all"}
_OUTPUT_DB = "embeddings.db"

_ADAPTER_OPTIONS = {
    "tokenizer_path": "tokenizer",
    "template_version": "template",
    "vision_tower": "vision_tower",
}
"""Keys under `model` that an adapter has an option for."""

_MODEL_IDLE = {
    "low_cpu_mem_usage": "weights are always read without a second copy",
    "token": "not taken over, and kept nowhere; log in with `hf auth login`, or set HF_TOKEN",
    "cache_dir": "not taken over; HF_HOME says where checkpoints are kept",
    "trust_remote_code": "not taken over: the adapter has its own code for the checkpoint; "
    "--trust-remote-code would run the checkpoint's",
    "legacy": "the adapter knows which tokenizer the checkpoint needs",
    "conv_type": "VLM-Lens does not use it; the adapter's option `template` says how it asks",
    "image_size": "the checkpoint says it",
    "model_max_length": "no prompt is cut off",
    "use_mm_start_end": "the checkpoint says it",
    "lora_r": "no adapter weights are trained",
    "local_rank": "--device says where the model runs",
}
"""Keys under `model` without effect here, and why."""

_SAMPLING = "without effect: one pass over the prompt draws nothing"
_FORWARD_IDLE = {
    "do_sample": _SAMPLING,
    "temperature": _SAMPLING,
    "top_k": _SAMPLING,
    "top_p": _SAMPLING,
    "num_beams": _SAMPLING,
    "stop_strings": "without effect: nothing is generated",
    "generation_mode": "without effect: nothing is generated",
    "use_cache": "without effect: there is one pass",
}

_IDLE = {
    "download_path": "not taken over; HF_HOME says where checkpoints are kept",
    "debug": "without effect; --debug shows tracebacks",
    "vis_save_path": "not taken over: what a model draws is not saved",
}


def read_run_file(path: str | Path) -> tuple[dict[str, Any], list[str]]:
    """The values of a run file, and notes where it is one of VLM-Lens.

    Raises:
        SpecError: It cannot be read, or says something that has no meaning here.
    """
    values = read_yaml(path)
    if not is_vlm_lens(values):
        return values, []
    translation, notes = translated(values)
    return translation, [f"{path} is a config file of VLM-Lens. It is read so:", *notes]


def is_vlm_lens(values: Mapping[str, Any]) -> bool:
    """Whether a run file is one of VLM-Lens, told by its keys."""
    return "adapter" not in values and any(mark in values for mark in _MARKS)


def translated(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values of a run spec, and a note for every choice.

    Args:
        values: The content of a VLM-Lens file.

    Raises:
        SpecError: An unknown key, one that is missing, or a value of the wrong kind.
    """
    translation = _Translation(values)
    return translation.values, translation.notes


class _Translation:
    """One file on its way; every key is read by the method of its name."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self.values: dict[str, Any] = {}
        self.notes: list[str] = []
        readers: dict[str, Callable[[], None]] = {
            "architecture": self._architecture,
            "model_path": self._model_path,
            "model": self._model,
            "device": self._device,
            "input_dir": self._input_dir,
            "dataset": self._dataset,
            "prompt": self._prompt,
            "modules": self._modules,
            "pooling_method": self._pooling,
            "forward": self._forward,
            "output_db": self._output_db,
            "log_named_modules": self._log_named_modules,
        }
        _known("The VLM-Lens file", given, {*readers, *_IDLE})
        for read in readers.values():
            read()
        for key in (key for key in given if key in _IDLE):
            self._note(key, _IDLE[key])

    def _note(self, key: str, text: str) -> None:
        self.notes.append(f"{key}: {text}.")

    def _text(self, key: str) -> str:
        value = self._given.get(key)
        if not isinstance(value, str) or not value.strip():
            raise SpecError(
                f"The VLM-Lens file needs {key!r}, a text; it has {value!r}.", subject=key
            )
        return value

    # ---------------------------------------------------------------------- model

    def _architecture(self) -> None:
        name = self._text("architecture")
        self.values["adapter"] = adapter_of(name)
        self._note("architecture", f"{name} is the adapter {self.values['adapter']}")

    def _model_path(self) -> None:
        self.values["model"] = self._text("model_path")
        self._note("model_path", f"the checkpoint {self.values['model']}")

    def _model(self) -> None:
        settings = dict(_merged("model", self._given.get("model")))
        self._dtype(settings.pop("torch_dtype", settings.pop("dtype", None)))
        for key, field in (
            ("device_map", "device_map"),
            ("attn_implementation", "attention"),
            ("revision", "revision"),
        ):
            if key in settings:
                self.values[field] = settings.pop(key)
                self._note(f"model.{key}", f"{field} {self.values[field]}")
        for key, bits in (("load_in_4bit", "4bit"), ("load_in_8bit", "8bit")):
            if settings.pop(key, False):
                self.values["quantization"] = bits
                self._note(f"model.{key}", f"quantization {bits}")
        for key in [key for key in settings if key in _ADAPTER_OPTIONS]:
            option = _ADAPTER_OPTIONS[key]
            self._options("adapter")[option] = settings.pop(key)
            self._note(f"model.{key}", f"the adapter's option {option!r}")
        _known("The VLM-Lens file, under `model`,", settings, set(_MODEL_IDLE))
        for key in settings:
            self._note(f"model.{key}", _MODEL_IDLE[key])

    def _dtype(self, given: Any) -> None:
        if given is None:
            self.values["dtype"] = "float32"
            self._note(
                "model.torch_dtype",
                "not given, and float32 then in VLM-Lens; --dtype auto takes the checkpoint's",
            )
            return
        dtype = str(given).removeprefix("torch.")
        if dtype not in _DTYPES:
            raise SpecError(
                f"The VLM-Lens file: model.torch_dtype = {given!r} is none of "
                f"{', '.join(_DTYPES)}.",
                subject="torch_dtype",
            )
        self.values["dtype"] = dtype
        self._note("model.torch_dtype", f"dtype {dtype}")

    def _device(self) -> None:
        if "device" not in self._given:
            self._note("device", "not given: the best that there is, where VLM-Lens takes cuda")
            return
        self.values["device"] = self._text("device")
        self._note(
            "device",
            f"{self.values['device']}; VLM-Lens overrides its file by its flag's default, cuda",
        )

    # ----------------------------------------------------------------------- data

    def _input_dir(self) -> None:
        if self._given.get("input_dir") is None:
            if self._given.get("dataset") is None:
                raise SpecError(
                    "The VLM-Lens file names neither 'input_dir' nor 'dataset'.",
                    subject="input_dir",
                    hint="Questions without images go into a .jsonl file with a column 'prompt': "
                    "use a run file of vlmlens.",
                )
            return
        if self._given.get("dataset") is not None:
            raise SpecError(
                "The VLM-Lens file names both 'input_dir' and 'dataset'; give one.",
                subject="dataset",
            )
        self.values["data"] = f"images:{self._text('input_dir')}"
        self._note(
            "input_dir",
            "its images, sub-folders included, also .webp and .tif, in natural order; where every "
            "image lies in a sub-folder, the folder's name is its label",
        )

    def _dataset(self) -> None:
        if self._given.get("dataset") is None:
            return
        settings = dict(_merged("dataset", self._given["dataset"]))
        keys = {"dataset_path", "local_dataset_path", "dataset_split", "image_dataset_path"}
        _known("The VLM-Lens file, under `dataset`,", settings, keys)
        hosted, local = settings.get("dataset_path"), settings.get("local_dataset_path")
        if bool(hosted) == bool(local):
            raise SpecError(
                "The VLM-Lens file needs one of dataset.dataset_path and "
                "dataset.local_dataset_path.",
                subject="dataset",
            )
        source = str(hosted) if hosted else str(_absolute(str(local)))
        split = settings.get("dataset_split")
        self.values["data"] = f"hf:{source}:{split}" if split else f"hf:{source}"
        self._note("dataset", f"data {self.values['data']}")
        if settings.get("image_dataset_path"):
            root = str(_absolute(str(settings["image_dataset_path"])))
            self._options("dataset")["image_root"] = root
            self._note("dataset.image_dataset_path", f"images are read from {root}")

    def _prompt(self) -> None:
        if self._given.get("prompt") is None:
            return
        prompt = self._text("prompt")
        if self._given.get("dataset") is not None:
            self._note("prompt", "not used, as in VLM-Lens: the dataset has prompts of its own")
            return
        self.values["prompt"] = [prompt]
        self._note("prompt", "asked of each image, in the checkpoint's chat template")

    # -------------------------------------------------------------------- columns

    def _modules(self) -> None:
        modules = self._given.get("modules")
        if not isinstance(modules, list) or not modules:
            raise SpecError(
                f"The VLM-Lens file needs 'modules', a list of names; it has {modules!r}.",
                subject="modules",
            )
        selector = self._selector()
        self.values["sites"] = [f"{PREFIX}{module}/{selector}" for module in modules]
        self._note(
            "modules",
            "regular expressions over module paths, of the installed transformers and of older "
            "ones; columns are named by site (llm.block.16), `vlmlens sites` says which is which",
        )
        self._note(
            "modules",
            "of a module that gives a tuple, the first tensor is kept; VLM-Lens skips the module",
        )

    def _pooling(self) -> None:
        selector = self._selector()
        if selector == "all":
            self._note("pooling_method", "none: every token of a sample's own, without padding")
            return
        self._note(
            "pooling_method",
            f"the {selector} over a sample's own tokens; VLM-Lens takes dimension 1 of what the "
            "module gives, whatever it holds: padding, one tile of several, or features",
        )

    def _selector(self) -> str:
        given = self._given.get("pooling_method")
        if isinstance(given, str | None) and given in _POOLS:
            return _POOLS[given]
        raise SpecError(
            f"The VLM-Lens file: pooling_method = {given!r} is none of mean, max and None.",
            subject="pooling_method",
        )

    def _forward(self) -> None:
        settings = dict(_merged("forward", self._given.get("forward")))
        tokens = settings.pop("max_new_tokens", None)
        if tokens is not None:
            once = "one pass over the prompt, as for one new token in VLM-Lens"
            often = (
                "one pass over the prompt; VLM-Lens's hooks also fire for every generated token, "
                "and write a row each under the same name (--generate N keeps those, by step)"
            )
            self._note("forward.max_new_tokens", once if tokens == 1 else often)
        _known("The VLM-Lens file, under `forward`,", settings, set(_FORWARD_IDLE))
        for key in settings:
            self._note(f"forward.{key}", _FORWARD_IDLE[key])

    def _output_db(self) -> None:
        name = self._given.get("output_db")
        path = _absolute(_OUTPUT_DB if name is None else self._text("output_db"))
        self.values["storage"] = path.as_uri().replace("file:", "sqlite:", 1)
        self._note(
            "output_db", f"columns go to {path}, the rest of the run to a folder of its own (--out)"
        )

    def _log_named_modules(self) -> None:
        if self._given.get("log_named_modules"):
            raise SpecError(
                "The VLM-Lens file only lists module names (log_named_modules).",
                subject="log_named_modules",
                hint=f"Use: vlmlens sites --adapter {self.values['adapter']} "
                f"--model {self.values['model']} --all",
            )

    def _options(self, kind: str) -> dict[str, Any]:
        options: dict[str, Any] = self.values.setdefault("options", {}).setdefault(kind, {})
        return options


def adapter_of(architecture: str) -> str:
    """The adapter for an architecture of VLM-Lens; the name itself where none is known.

    >>> adapter_of("aya-vision"), adapter_of("qwen")
    ('aya_vision', 'qwen2vl')
    """
    wanted = architecture.strip().lower().replace("-", "_")
    adapters = (known for known in KNOWN if known.kind is PluginKind.ADAPTER)
    named = (known.name for known in adapters if wanted in (known.name, *known.aliases))
    return next(named, architecture)


def _merged(key: str, value: Any) -> Mapping[str, Any]:
    """A mapping, or a list of mappings as one; later ones win."""
    parts = [] if value is None else [value] if isinstance(value, Mapping) else value
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise SpecError(f"The VLM-Lens file: {key!r} is no list of `name: value`.", subject=key)
    return {name: item for part in parts for name, item in part.items()}


def _known(where: str, given: Mapping[str, Any], known: set[str]) -> None:
    unknown = [str(key) for key in given if key not in known]
    if unknown:
        raise SpecError(
            f"{where} has keys without a meaning here: {', '.join(unknown)}.",
            subject=unknown[0],
            hint=f"Remove them; settings of vlmlens go over the file as flags. Known: "
            f"{', '.join(sorted(known))}.",
        )


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()
