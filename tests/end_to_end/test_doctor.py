"""`vlmlens doctor`: what it finds, what it advises, and what it never prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests._program import python
from tests.end_to_end._bad_plugins import card, install

from vlmlens._known import KNOWN
from vlmlens.cli import _diagnosis
from vlmlens.registry import Registry

SECRET = "hf_never_to_be_seen"


def doctor(**env: str) -> tuple[int, dict[str, Any], dict[tuple[str, str], dict[str, str]]]:
    """Exit code, document, and checks by topic and name."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "vlmlens", "doctor", "--json"],
        env={**os.environ, "HF_TOKEN": SECRET, "HTTPS_PROXY": f"http://me:{SECRET}@x", **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert SECRET not in done.stdout + done.stderr
    document = json.loads(done.stdout)
    checks = {(check["topic"], check["name"]): check for check in document["checks"]}
    return done.returncode, document, checks


def test_this_environment(tmp_path: Path) -> None:
    (tmp_path / "models--a--b").mkdir()
    code, document, checks = doctor(HF_HUB_CACHE=str(tmp_path), VLMLENS_CACHE=str(tmp_path / "x"))
    assert (code, document["healthy"]) == (0, True)
    assert checks["hub", "cache"]["detail"].startswith(f"{tmp_path}: 1 models, ")
    assert checks["hub", "token"]["detail"] == "set"
    assert checks["program", "cache"]["detail"].startswith(f"{tmp_path / 'x'}: ")
    assert checks["extra zarr", "zarr"]["topic"] == "extra zarr"
    assert checks["storage", "lmdb"]["detail"].startswith("ok (vlmlens ")
    assert not [check for check in checks.values() if check["topic"] == "environment"]


def test_an_old_dependency_and_a_bad_plugin(tmp_path: Path) -> None:
    old = tmp_path / "rich-1.0.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: rich\nVersion: 1.0\n")
    install(tmp_path, "bad-one", "vlmlens.analyses", "1 / 0\n")
    install(tmp_path, "slow-one", "vlmlens.analyses", "import jax\n" + card("ANALYSIS", "slow-one"))
    (tmp_path / "jax.py").touch()
    code, document, checks = doctor(PYTHONPATH=str(tmp_path))
    assert (code, document["healthy"]) == (1, False)
    assert checks["dependency", "rich"]["state"] == "FAILS"
    assert checks["dependency", "rich"]["detail"].startswith("1.0, but >=")
    assert "pip install 'rich" in checks["dependency", "rich"]["advice"]
    assert [name for (_, name), check in checks.items() if check["state"] == "FAILS"] == ["rich"]
    assert checks["analysis", "bad-one"]["state"] == "note"
    assert "ZeroDivisionError" in checks["analysis", "bad-one"]["advice"]
    assert "imports jax" in checks["analysis", "slow-one"]["advice"]


def test_an_extra_that_is_not_installed_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['zarr'] = None\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    status, document, checks = doctor(PYTHONPATH=path)
    assert (status, document["healthy"]) == (0, True)
    assert checks["storage", "zarr"]["state"] == "note"
    assert "vlmlens[zarr]" in checks["storage", "zarr"]["advice"]
    without = "import runpy, sys\nsys.modules['zarr'] = None\n"
    for command in (["plugins", "list"], ["schema"]):
        code = f"{without}runpy.run_module('vlmlens', run_name='__main__', alter_sys=True)"
        done = python(code, *command, strict=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "needs the module" not in done.stdout
        assert "zarr" in done.stdout


def test_the_verdict_names_what_is_missing() -> None:
    fine = _diagnosis.Check("dependency", "lmdb", "ok", "1.0")
    extra = _diagnosis.Check("extra zarr", "zarr", "note", "missing")
    broken = _diagnosis.Check("dependency", "rich", "FAILS", "1.0, but >=13 is needed")
    assert _diagnosis.verdict([fine]) == (True, "vlmlens can run.")
    healthy, sentence = _diagnosis.verdict([fine, extra])
    assert healthy
    assert sentence == "vlmlens can run. Optional extras that are not installed: zarr."
    assert _diagnosis.verdict([fine, extra, broken]) == (False, "vlmlens cannot run: rich failed.")


def test_variables_that_leave_plugins_out() -> None:
    env = {"VLMLENS_DISABLE_PLUGINS": "zarr,zrar", "VLMLENS_LOAD_PLUGINS": ""}
    code, _, checks = doctor(**env)
    assert code == 0
    disable = checks["environment", "VLMLENS_DISABLE_PLUGINS"]
    assert (disable["state"], disable["detail"]) == ("note", "zarr,zrar")
    assert disable["advice"] == "No plugin or distribution is named zrar."
    assert checks["environment", "VLMLENS_LOAD_PLUGINS"]["detail"] == "(empty)"
    assert checks["storage", "zarr"]["state"] == "note"
    assert checks["storage", "zarr"]["detail"].startswith("disabled")


def test_first_party_adapters_that_are_not_installed() -> None:
    (check,) = _diagnosis._not_installed([])
    assert check.detail.split(", ") == [known.name for known in KNOWN]
    assert "pip install vlmlens-adapter-" in check.advice
    there = Registry.default().entries()
    names = {name for entry in there for name in entry.names}
    missing = [known.name for known in KNOWN if known.name not in names]
    assert [check.detail for check in _diagnosis._not_installed(there)] == (
        [", ".join(missing)] if missing else []
    )


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "a" / "b"))
    assert _diagnosis._cache().state == "ok"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "VLMLENS_CACHE" in _diagnosis._cache().advice
