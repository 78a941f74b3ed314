"""Tab completion, by the protocols of the shells, in processes of their own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.end_to_end._bad_plugins import NOISE, card, install

from tests import _program
from vlmlens.sites.name_cache import SELECTORS, USUAL

WATCH = """
import atexit, sys
heavy = ("torch", "transformers", "numpy", "pydantic", "yaml", "sklearn", "lmdb", "matplotlib",
         "pyarrow", "rich.console", "PIL")
atexit.register(lambda: print(*(n for n in heavy if n in sys.modules), file=sys.__stderr__))
from vlmlens.cli import main
main()
"""


def complete(line: str, cwd: Path | None = None, **env: str) -> list[str]:
    """What bash is offered at the end of a line; importing anything heavy fails."""
    words = shlex.split(line)
    position = len(words) if line.endswith(" ") else len(words) - 1
    asked = {"_VLMLENS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(position)}
    return offered(asked, cwd, **env)


def offered(asked: dict[str, str], cwd: Path | None = None, **env: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WATCH],
        env={**os.environ, **asked, **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == "\n", done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vlmlens doc", ["doctor"]),
        ("vlmlens plugins sh", ["show"]),
        ("vlmlens run --adapter d", ["demo"]),
        ("vlmlens run --adapter in", ["internlm_xcomposer", "internvl"]),
        ("vlmlens run --adapter demo --analysis l", ["logit-lens", "look"]),
        ("vlmlens run --analysis probe --analysis bl", ["blind-test"]),
        ("vlmlens run --storage s", ["safetensors", "sqlite"]),
        ("vlmlens run --extractor a", ["activations", "attention"]),
        ("vlmlens run --dtype b", ["bfloat16"]),
        ("vlmlens run --data im", ["images:"]),
        ("vlmlens extract --gen", ["--generate"]),
        ("vlmlens plugins show blind", ["blind-test"]),
        ("vlmlens plugins list --kind an", ["analysis"]),
        ("vlmlens run --adapter llava --model llava-hf/llava-1.5-7", ["llava-hf/llava-1.5-7b-hf"]),
        ("vlmlens run --adapter no-such --sites proj", ["projector"]),
        ("vlmlens run --set bat", ["batch_size="]),
        ("vlmlens run --set analysis.pro", ["analysis.probe."]),
        ("vlmlens run --set options.plugins.t", ["options.plugins.timing."]),
        ("vlmlens run --sites llm.block.3/image", ["llm.block.3/image", "llm.block.3/image.mean"]),
    ],
)  # fmt: skip
def test_bash(line: str, expected: list[str], tmp_path: Path) -> None:
    assert complete(line, tmp_path, VLMLENS_CACHE=str(tmp_path / "cache")) == expected


def test_paths_beside_names(tmp_path: Path) -> None:
    (tmp_path / "images-of-mine").mkdir()
    (tmp_path / "images-of-mine" / "a.png").touch()
    (tmp_path / ".hidden").touch()
    assert complete("vlmlens run --data images", tmp_path) == ["images:", "images-of-mine/"]
    assert complete("vlmlens run --data images-of-mine/", tmp_path) == ["images-of-mine/a.png"]
    assert ".hidden" not in complete("vlmlens run --data ", tmp_path)


@pytest.mark.parametrize(
    ("shell", "expected"), [("zsh", "_arguments '*: :((\"demo\"))'"), ("fish", "demo")]
)
def test_other_shells(shell: str, expected: str) -> None:
    asked = {
        "_VLMLENS_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "vlmlens run --adapter d",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    assert offered(asked) == [expected]


def test_a_real_bash(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    script = """
        source <(_VLMLENS_COMPLETE=source_bash vlmlens)
        COMP_WORDS=(vlmlens run --adapter qwen); COMP_CWORD=3
        _vlmlens_completion vlmlens
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run([bash, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "qwen2vl\n", done.stderr


def test_sites_of_the_model_once_they_were_listed(tmp_path: Path) -> None:
    env = {"VLMLENS_CACHE": str(tmp_path)}
    line = "vlmlens run --adapter demo --sites vision.block."
    assert complete(line, **env) == ["vision.block.*"]
    listed = _program.vlmlens("sites", "--json", **env)
    assert listed.returncode == 0, listed.stderr
    known = ["vision.block.0", "vision.block.1", "vision.block.2", "vision.block.*"]
    found = complete(line, **env)
    assert found[:2] == known[:2]
    assert found[-1] == "vision.block.*"
    assert complete("vlmlens sites vision.block.1", **env)[0] == "vision.block.1"
    assert complete("vlmlens run --sites vision.block.0", **env)[0] == "vision.block.0"
    other = complete("vlmlens run --adapter demo --model other --sites vision.block.", **env)
    assert other == ["vision.block.*"]


def test_what_a_run_holds(tmp_path: Path) -> None:
    run = tmp_path / "mine"
    (run / "results").mkdir(parents=True)
    for name in ("probe.json", "overview.json", "probe.layers.parquet"):
        (run / "results" / name).touch()
    (run / "run.json").write_text('{"columns": ["llm.block.0/last", "projector/last"]}')
    assert complete("vlmlens show mi", tmp_path) == ["mine/"]
    assert complete("vlmlens show mine ", tmp_path) == [
        "llm.block.0/last", "probe", "projector/last",
    ]  # fmt: skip
    assert complete("vlmlens show mine pro", tmp_path) == ["probe", "projector/last"]
    assert complete("vlmlens show nothing ", tmp_path) == [""]


def test_settings_are_those_of_the_spec() -> None:
    from vlmlens.cli._completion import SETTINGS
    from vlmlens.spec.model import RunSpec

    assert {*SETTINGS, "analysis", "options"} == set(RunSpec.model_fields)


def test_a_damaged_cache_is_no_harm(tmp_path: Path) -> None:
    from vlmlens.sites import name_cache as site_names

    folder = tmp_path / "sites"
    folder.mkdir()
    for text in ("", "[]", '{"sites": 3}', '{"sites": [3]}'):
        for file in [site_names._file("demo", None).name]:
            (folder / file).write_text(text)
        line = "vlmlens run --sites proj"
        assert complete(line, VLMLENS_CACHE=str(tmp_path)) == ["projector"]


def test_what_is_offered_parses() -> None:
    from vlmlens.tokens import Column, Selector

    for selector in SELECTORS:
        assert Selector.parse(selector)
        for site in USUAL:
            assert str(Column.parse(f"{site}/{selector}"))


def test_bad_plugins_neither_speak_nor_stop_it(tmp_path: Path) -> None:
    install(tmp_path, "noisy", "vlmlens.adapters", NOISE + card("ADAPTER", "noisy"))
    install(tmp_path, "broken", "vlmlens.adapters", "1 / 0\n")
    install(tmp_path, "hook-broken", "vlmlens.plugins", "1 / 0\n")
    words = ("n", "brok", "demo")
    found = [
        subprocess.run(
            [sys.executable, "-m", "vlmlens"],
            env={
                **os.environ,
                "PYTHONPATH": str(tmp_path),
                "_VLMLENS_COMPLETE": "complete_bash",
                "COMP_WORDS": f"vlmlens run --adapter {word}",
                "COMP_CWORD": "3",
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for word in words
    ]
    assert found == [["noisy"], [], ["demo"]]
    assert complete("vlmlens ver", PYTHONPATH=str(tmp_path)) == ["verify", "version"]
