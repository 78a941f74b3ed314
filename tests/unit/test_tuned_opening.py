"""Opening tuned folders: what is found, what is refused, and that nothing else is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from safetensors.numpy import save_file

from vlmlens.errors import CheckpointError, CheckpointNotFound, UntrustedRun
from vlmlens.tuned.about import write_about
from vlmlens.tuned.lora_settings import LoraSettings
from vlmlens.tuned.opening import open_tuned
from vlmlens.tuned.record import FOLDER, in_words

CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
WEIGHTS = "adapter_model.safetensors"


def lora(folder: Path, **said: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **said}), encoding="utf-8")
    save_file({"base_model.model.q_proj.lora_A.weight": np.ones((4, 2), "f4")}, folder / WEIGHTS)
    return folder


def test_the_kinds_of_folders(tmp_path: Path) -> None:
    others = open_tuned(lora(tmp_path / "a", base_model_name_or_path="x/y"))
    assert (others.kind, others.component, others.base) == ("lora", "", {})
    assert others.about["base_model_name_or_path"] == "x/y"
    own = lora(tmp_path / "run" / FOLDER)
    write_about(own, "lora", {"component": "llm", "base": {"digest": "1"}, "kind": "?", "steps": 7})
    (tmp_path / "run" / "run.json").write_text("{}", encoding="utf-8")
    for source in (own, str(own), tmp_path / "run"):
        found = open_tuned(source)
        assert (found.kind, found.component, found.base["digest"]) == ("lora", "llm", "1")
        assert found.about == {"base_model_name_or_path": "", "steps": 7}
        assert found.path == own
    assert in_words({**vars_of(found), "merged": True}).startswith("lora of llm, merged, ")


def vars_of(found: Any) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("kind", "component", "digest")}


def test_the_digest_is_of_the_numbers(tmp_path: Path) -> None:
    folder = lora(tmp_path)
    first = open_tuned(folder).digest
    write_about(folder, "lora", {"component": "llm"})
    (folder / "README.md").write_text("words", encoding="utf-8")
    assert open_tuned(folder).digest == first
    lora(tmp_path, r=2)
    second = open_tuned(folder).digest
    lora(tmp_path)
    save_file({"base_model.model.q_proj.lora_A.weight": np.zeros((4, 2), "f4")}, folder / WEIGHTS)
    assert len({first, second, open_tuned(folder).digest}) == 3


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys; from vlmlens.tuned.opening import open_tuned; "
        f"open_tuned({str(lora(tmp_path))!r}); "
        "print(sorted({'torch', 'transformers', 'peft', 'sklearn'} & set(sys.modules)))"
    )
    made = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == "[]"


# ------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"peft_type": "IA3"}, "of the kind IA3"),
        ({"peft_type": None}, "of the kind nothing"),
        ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING"),
        ({"target_parameters": ["experts.down_proj"]}, "uses target_parameters"),
        ({"trainable_token_indices": [1]}, "uses trainable_token_indices"),
        ({"alora_invocation_tokens": [1, 2]}, "uses alora_invocation_tokens"),
        ({"layer_replication": [[0, 4]]}, "uses layer_replication"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: pissa"),
        ({"loftq_config": {"loftq_bits": 4}}, "uses loftq_config"),
        ({"of_tomorrow": True}, "uses of_tomorrow"),
        ({"bias": "some"}, "bias: some"),
        ({"r": 0}, "no number above 0"),
        ({"r": True}, "no number above 0"),
        ({"r": "8"}, "no number above 0"),
        ({"lora_alpha": "many"}, "is not one of LoRA"),
        ({"rank_pattern": ["a"]}, "is not one of LoRA"),
        ({"target_modules": [3]}, "no list of names"),
        ({"target_modules": "a" * 300_000}, "too long"),
        ({"modules_to_save": ["(a+)+$"]}, "no name of a module"),
    ],
)
def test_what_is_no_lora(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_tuned(lora(tmp_path, **said))


def test_settings_that_mean_nothing_are_fine(tmp_path: Path) -> None:
    said = {"auto_mapping": {"parent_library": "evil"}, "runtime_config": {"offload": False},
            "eva_config": {"rho": 2}, "init_lora_weights": "eva"}  # fmt: skip
    assert open_tuned(lora(tmp_path, **said)).kind == "lora"
    assert "evil" not in sys.modules


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"a": ' * 200 + "1" + "}" * 200, ""])
@pytest.mark.parametrize("name", ["adapter_config.json", "tuned.json"])
def test_damaged_json(tmp_path: Path, name: str, text: str) -> None:
    (lora(tmp_path) / name).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"cannot be read|nested"):
        open_tuned(tmp_path)


def test_pickles_are_refused(tmp_path: Path) -> None:
    folder = lora(tmp_path)
    (folder / "adapter_model.bin").write_bytes(b"x")
    assert open_tuned(folder).kind == "lora"
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"are a pickle \(adapter_model.bin\)") as caught:
        open_tuned(folder)
    assert "save_file" in caught.value.hint
    (lora(folder) / "non_lora_trainables.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="which would be left out"):
        open_tuned(folder)


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}", encoding="utf-8")
    (lora(tmp_path / "half") / WEIGHTS).unlink()
    write_about(lora(tmp_path / "odd"), "future", {})  # type: ignore[arg-type]
    (tmp_path / "empty").mkdir()
    write_about(tmp_path / "empty", "weights", {})
    for name, message in (
        ("none/at/all", "There is no folder"),
        ("model", "holds nothing that was tuned"),
        ("file", "is a file"),
        ("run", "holds nothing that was tuned"),
        ("half", "lacks adapter_model.safetensors"),
        ("odd", "says that it holds 'future'"),
        ("empty", r"lacks a file with weights"),
    ):
        with pytest.raises(CheckpointError, match=message):
            open_tuned(tmp_path / name)
    write_about(lora(tmp_path / "run" / "results" / "tune@x" / "tune.tuned"), "lora", {})
    with pytest.raises(CheckpointNotFound, match="nothing that was tuned at") as caught:
        open_tuned(tmp_path / "run")
    assert str(tmp_path / "run" / "results" / "tune@x" / "tune.tuned") in caught.value.hint


def test_links_do_not_leave_the_folder(tmp_path: Path) -> None:
    outside, folder = lora(tmp_path / "outside"), lora(tmp_path / "inside")
    for name in (WEIGHTS, "adapter_config.json"):
        (folder / name).unlink()
        (folder / name).symlink_to(outside / name)
    with pytest.raises(CheckpointError, match="outside its folder"):
        open_tuned(folder)
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}", encoding="utf-8")
    write_about(outside, "lora", {})
    (run / FOLDER).parent.mkdir()
    (run / FOLDER).symlink_to(outside)
    with pytest.raises(UntrustedRun, match="links to other places"):
        open_tuned(run)
    assert open_tuned(run, trust=True).kind == "lora"


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    folder = lora(tmp_path)
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="no file"):
        open_tuned(folder)


# ------------------------------------------------------------------------ expressions


PATHS = [
    f"{head}.layers.{i}.{leaf}"
    for head in ("model.language_model", "model.vision_tower.encoder")
    for i in (0, 1, 11)
    for leaf in ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc1", "mlp.experts.3.up_proj")
] + ["lm_head", "model.projector.fc1", "q_proj"]
SETTINGS: list[dict[str, Any]] = [
    {"target_modules": ["q_proj", "fc1"]},
    {"target_modules": ["q_proj"], "exclude_modules": ["0.self_attn.q_proj"]},
    {"target_modules": r".*language_model.*q_proj", "exclude_modules": r".*\.1\..*"},
    {"target_modules": r"(?!.*vision).*(?:q_proj|fc1)"},
    {"target_modules": r"q_proj|model\.projector\.fc1"},
    {"target_modules": ["fc1", "up_proj"], "layers_to_transform": [1, 11]},
    {"target_modules": ["fc1"], "layers_to_transform": 1, "layers_pattern": "layers"},
    {"target_modules": ["up_proj"], "layers_to_transform": [3], "layers_pattern": ["experts"]},
    {"target_modules": ["fc1", "q_proj"], "modules_to_save": ["projector", "lm_head"]},
    {"target_modules": [PATHS[0]], "layers_to_transform": [1]},
]  # fmt: skip


@pytest.mark.parametrize("said", SETTINGS, ids=str)
def test_modules_are_matched_as_peft_does(said: dict[str, Any]) -> None:
    config = LoraConfig(**said)
    settings = LoraSettings.of({**CONFIG, **said}, "x")
    theirs = [path for path in PATHS if check_target_module_exists(config, path)]
    assert [path for path in PATHS if settings.targeted(path)] == theirs
    assert 0 < len(theirs) < len(PATHS)


def test_patterns_of_ranks_are_those_of_peft() -> None:
    ranks = {"fc1": 2, r"layers.1.self_attn.q_proj": 3, "^lm_head": 5, r"layers\.\d+\.mlp\..*": 7}
    settings = LoraSettings.of({**CONFIG, "rank_pattern": ranks}, "x")
    theirs = [ranks.get(get_pattern_key(ranks.keys(), path), 4) for path in PATHS]
    assert [settings.rank_of(path) for path in PATHS] == theirs
    assert len({*theirs}) == 5
    assert settings.unused_patterns(["fc1"]) == sorted({*ranks} - {"fc1"})


@pytest.mark.parametrize("pattern", ["(a|aa)+$", "(", r"(.*)*x"])
def test_an_expression_of_others_cannot_hang(pattern: str) -> None:
    settings = LoraSettings.of({**CONFIG, "target_modules": pattern}, "x")
    path = "a" * 60 + "!"
    try:
        assert not settings.targeted(path)
    except CheckpointError as error:
        assert "list of names" in error.hint  # noqa: PT017 - either is right


# -------------------------------------------------------------------------------- hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with one LoRA, offline."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--some--lora"
    snapshot = repository / "snapshots" / ("a" * 40)
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40, encoding="utf-8")
    blobs = lora(repository / "blobs", base_model_name_or_path="x/y")
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    return snapshot


def test_a_lora_in_the_cache_of_the_hub(hub: Path) -> None:
    for source, revision in (("some/lora", None), ("some/lora@main", None), ("some/lora", "main")):
        found = open_tuned(source, revision=revision)
        assert found.path.resolve() == hub.resolve()
        assert found.about["base_model_name_or_path"] == "x/y"


@pytest.mark.parametrize("source", ["some/other", "some/lora@nothing"])
def test_what_is_not_in_the_cache(hub: Path, source: str) -> None:
    with pytest.raises(CheckpointNotFound, match="on the Hugging Face hub it") as caught:
        open_tuned(source)
    assert "HF_HUB_OFFLINE" in caught.value.hint
