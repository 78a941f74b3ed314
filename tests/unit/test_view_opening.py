"""Opening the app: whose model is asked, which addresses are taken, what is refused."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from vlmlens.cli._app import app
from vlmlens.errors import ImageError, MissingDependency, PluginError, SpecError
from vlmlens.registry import Registry
from vlmlens.runs.run import Run
from vlmlens.spec.model import make_spec
from vlmlens.view import opening
from vlmlens.view.access import Access
from vlmlens.view.server import check_host, listen

Said = Callable[[Any, str], None]


def made(path: Path, **spec: Any) -> Run:
    return Run.create(path, make_spec(spec), {"samples": 0})


def from_elsewhere(run: Run) -> Run:
    """The same run, as if somebody had edited it since."""
    spec = run.path / "spec.yaml"
    spec.write_text(spec.read_text() + "\n# edited\n")
    return Run(run.path)


def test_the_runs_own_model_is_asked_by_default(tmp_path: Path) -> None:
    edits = ["llm.block.1/image = scale(0.5)"]
    run = made(tmp_path / "run", adapter="demo", edits=edits, data="demo:scenes", dtype="float32")
    found = opening.model_for([run], {}, Registry.default())
    assert found is not None
    assert found.spec.edits == edits
    assert found.spec.dtype == "float32"
    assert found.spec.data is None
    assert not found.is_loaded


def test_flags_change_how_the_runs_model_is_loaded(tmp_path: Path) -> None:
    run = made(tmp_path / "run", adapter="demo", dtype="float32")
    found = opening.model_for([run], {"dtype": "bfloat16"}, Registry.default())
    assert found is not None
    assert found.spec.dtype == "bfloat16"


def test_a_run_from_elsewhere_names_no_model_to_load(tmp_path: Path) -> None:
    registry = Registry.default()
    own = made(tmp_path / "own", adapter="demo")
    demo = from_elsewhere(own)
    assert opening.model_for([demo], {}, registry) is not None, "the demo model is no risk"
    for number, spec in enumerate(
        (
            {"adapter": "llava", "model": "someone/model"},
            {"adapter": "demo", "model": "someone/model"},
            {"adapter": "demo", "tuned": "someone/lora"},
            {"adapter": "demo", "edits": ["llm.block.1/last = add(/etc/passwd)"]},
            {"adapter": "demo", "options": {"adapter": {"x": "y"}}},
        )
    ):
        run = from_elsewhere(made(tmp_path / f"{number}", **spec))
        assert not run.trusted
        assert opening.model_for([run], {}, registry) is None, spec
        with pytest.raises(SpecError, match="No model can be asked"):
            opening.model_for([run], {"device": "cpu"}, registry)
        named = opening.model_for([run], {"adapter": "demo"}, registry)
        assert named is not None
        assert not named.spec.edits


def test_a_model_that_is_named_wins(tmp_path: Path) -> None:
    run = made(tmp_path / "run", adapter="demo", edits=["llm.block.1/last = zero"])
    found = opening.model_for([run], {"adapter": "demo"}, Registry.default())
    assert found is not None
    assert not found.spec.edits
    with pytest.raises(PluginError):
        opening.model_for([], {"adapter": "no-such"}, Registry.default())


@pytest.mark.parametrize("host", ["0.0.0.0", "example.org", "::", "192.168.1.5"])
def test_others_need_a_token_that_was_chosen(host: str) -> None:
    with pytest.raises(SpecError, match="no token was given"):
        check_host(host, None)
    check_host(host, "0123456789abcdef")
    for own in ("127.0.0.1", "localhost", "::1"):
        check_host(own, None)
    with pytest.raises(SpecError, match="15 characters") as raised:
        check_host("127.0.0.1", "0123456789abcde")
    assert "0123456789abcde" not in str(raised.value)


@pytest.mark.parametrize("host", ["256.0.0.1", "no such host", "a" * 300, "x..y"])
def test_addresses_that_cannot_be_used(host: str) -> None:
    with pytest.raises(SpecError, match="cannot be used"):
        listen(host, 0)


def test_addresses_hold_the_token_and_are_shown_nowhere_else() -> None:
    access = Access("::1", 8000, "0123456789abcdef")
    assert access.address("/live?a=b") == "http://[::1]:8000/live?a=b&token=0123456789abcdef"
    assert "0123456789abcdef" not in repr(access)
    once = access.address_once("/").rpartition("token=")[2]
    assert not access.may_enter("\u00fc\ud800")
    assert once not in repr(access)
    assert access.may_enter(once)
    assert not access.may_enter(once), "it works once"
    assert not access.may_enter("")
    assert not access.is_token(once)
    assert access.may_enter(access.token)
    assert access.may_enter(access.token)


def test_hosts_of_an_open_address_are_not_known() -> None:
    access = Access("0.0.0.0", 8000, "0123456789abcdef")
    assert access.is_open
    assert access.is_own_host("my-server:8000")
    assert not Access("127.0.0.1", 8000).is_own_host("my-server:8000")
    assert Access("127.0.0.1", 80).is_own_host("localhost")


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    own = builtins.__import__

    def missing(name: str, *given: Any, **more: Any) -> Any:
        if name == "uvicorn":
            raise ModuleNotFoundError("no uvicorn", name="uvicorn")
        return own(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingDependency, match="uvicorn") as raised:
        opening.check_installed()
    assert "pip install 'vlmlens[view]'" in raised.value.hint


def test_nothing_to_show_is_said() -> None:
    for line in (["view"], ["view", "--no-live", "--adapter", "demo"]):
        done = CliRunner().invoke(app, line)
        assert done.exit_code == 2
        assert "nothing to show" in done.output


@pytest.mark.parametrize(
    "more",
    [["--cover", "0,0,1,1"], ["--edit", "llm.block.1/last = zero"], ["--out", "x"],
     ["--against", "b.png"], ["--against-question", "Why?"], ["--prompt", "Why?"]],
)  # fmt: skip
def test_a_live_look_takes_what_the_page_takes(more: list[str], in_tmp: Path) -> None:
    Image.new("RGB", (4, 4)).save("a.png")
    done = CliRunner().invoke(app, ["look", "a.png", "What?", "--live", *more])
    assert done.exit_code == 2
    assert more[0] in done.output


def test_a_live_look_opens_with_its_picture_and_question(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (6, 4)).save("a b.png")
    opened: dict[str, Any] = {}

    def view(runs: Any, **given: Any) -> bool:
        opened.update(given, runs=runs)
        return True

    monkeypatch.setattr(opening, "view", view)
    line = ["look", "a b.png", "What's this?", "--choices", "red,blue", "--live"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    start, _, rest = opened["page"].partition("upload=")
    assert start == "/live?"
    name, _, query = rest.partition("&")
    assert query == "text=What%27s+this%3F&choices=red%2Cblue"
    upload = opened["live"].uploads.get(name)
    assert (upload.file, upload.size) == ("a b.png", (6, 4))
    assert opened["host"] == "127.0.0.1"
    assert opened["live"].spec.adapter == "demo"


def test_pictures_of_a_live_look_that_cannot_be_used(in_tmp: Path) -> None:
    Path("text.png").write_text("no picture")
    Path("folder").mkdir()
    for name in ("text.png", "folder", "gone.png", "https://example.org/a.png"):
        with pytest.raises(ImageError):
            opening.view_picture(name, "?", (), {}, Registry.default(), said=lambda *_: None)


def test_its_address_is_data(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(viewer: Any, access: Any, at: Any, ready: Callable[[], None]) -> bool:
        at.close()
        monkeypatch.setattr(
            opening, "Thread", lambda **given: type("T", (), {"start": lambda s: 0})()
        )
        ready()
        return bool(viewer.live.close(1.0))

    monkeypatch.setattr("vlmlens.view.server.serve", serve)
    done = CliRunner().invoke(app, ["view", "--adapter", "demo", "--no-open", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["url"].startswith("http://127.0.0.1:")
