"""What is pushed holds no picture and no credential unasked, wherever in the run it was."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from tests.unit._fake_hub import TOKEN, FakeHub, connected
from tests.unit._hub_runs import encoded, found, made_run, painted

import vlmlens
from vlmlens._files import write_text
from vlmlens.report.files import write_result
from vlmlens.results import Finding, Table
from vlmlens.runs.run import Run
from vlmlens.sharing._names import is_ours, is_read
from vlmlens.sharing._screen import NO_PICTURE, Screen, secrets_here

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=")  # the hub's client, of httpx
KEY = "Qx7" + "planted+key/of+a+cloud" + "9ZZ"
URL = "s3://me:planted-password@host/x?X-Amz-Signature=planted-signature"
KNOWN = "hf_" + "SomebodyElsesToken" * 2
SECRETS = [TOKEN, KEY, "planted-password", "planted-signature", KNOWN, "planted-assigned"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[Path]]:
    """A run with secrets and pictures in every file that it has, and in files that it has not."""
    folder = tmp_path_factory.mktemp("home")
    pictures = painted(folder / "photos")
    raw = base64.b64encode(pictures[0].read_bytes()).decode()
    uri = f"look: data:image/png;base64,{raw} there"
    texts = [TOKEN, KEY, URL, KNOWN, uri, raw, str(pictures[1]), pictures[0].read_bytes().hex()]
    table = Table("answers", "Answers", {"sample": list("ababab"), TOKEN: texts[:6]})
    said = [Finding(f"said {text}") for text in texts]
    result = found(
        tables=[table, replace(table, name="more")],
        findings=said,
        warnings=[f"secret=planted-assigned at {pictures[0]}", *texts],
        notes=texts,
        options={"where": texts, "inner": {KNOWN: URL}},
    )
    run = made_run(folder / "runs" / "x", pictures, result, warnings=texts, notes=texts)
    kept = (run.path / "samples.jsonl").read_text().splitlines()
    lines = [*map(json.loads, kept)]
    for line in lines:
        line["attributes"] = {f"extra {i}": text for i, text in enumerate(texts)}
        line["prompt"] = f"Which colour? {TOKEN} {uri}"
    write_text(run.path / "samples.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    with (run.path / "generated.jsonl").open("a") as file:
        file.write(json.dumps({"id": "b", "text": f"It is {KNOWN}.", "token_ids": [7]}) + "\n")
    skipped = {"id": "c", "image": str(pictures[1]), "reason": f"no such file {URL}"}
    write_text(run.path / "skipped.jsonl", json.dumps(skipped) + "\n")
    for name in ("results/toy.share.svg", "results/toy.answers.parquet", "results/toy.sae.json"):
        (run.path / name).write_bytes(f"<!-- {uri} {TOKEN} -->".encode())
    (run.path / "results" / "notes.txt").write_text(KEY)
    for name in ("plugins/log.json", "images/secret.png", "papers/a.png", "tuned/t.bin", ".env"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_bytes(pictures[0].read_bytes() + TOKEN.encode())
    (run.path / "units.sqlite").write_text(f"{KEY} {uri}")
    return run, pictures


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("MY_CLOUD_ACCESS_KEY", KEY)
    with connected(monkeypatch) as hub:
        yield hub


def texts_of_tables(hub: FakeHub, repo: str) -> bytes:
    """Parquet is compressed, so its texts are read."""
    tables = [
        pq.read_table(io.BytesIO(content)).to_pydict()
        for name, content in hub.files(repo).items()
        if name.endswith(".parquet")
    ]
    assert len(tables) >= 3
    return json.dumps(tables).encode()


def pixels(pictures: list[Path]) -> list[bytes]:
    return [*encoded(pictures[0]), pictures[0].read_bytes().hex()[60:160].encode()]


def test_the_search_finds_what_is_planted(planted: tuple[Run, list[Path]]) -> None:
    run, pictures = planted
    kept = b"".join(path.read_bytes() for path in run.path.rglob("*") if path.is_file())
    assert all(secret.encode() in kept for secret in SECRETS)
    assert any(each in (run.path / "report.html").read_bytes() for each in pixels(pictures))


def test_nothing_planted_is_sent_unasked(planted: tuple[Run, list[Path]], hub: FakeHub) -> None:
    run, pictures = planted
    vlmlens.push(run, "me/x", activations=True)
    hub.received.append(texts_of_tables(hub, "me/x"))
    assert hub.holds(b"Which colour?")
    assert hub.holds(NO_PICTURE.encode())
    assert [secret for secret in SECRETS if hub.holds(secret.encode())] == []
    assert [each for each in pixels(pictures) if hub.holds(each)] == []
    for place in (pictures[0].parent, run.path, Path.home() / ".cache", "vlmlens-push-"):
        assert not hub.holds(str(place).encode())
    assert all(map(is_ours, hub.files("me/x")))
    assert not any('token_ids": [7]' in each.decode("latin-1") for each in hub.received)


def test_pictures_are_sent_if_asked_for(planted: tuple[Run, list[Path]], hub: FakeHub) -> None:
    run, pictures = planted
    vlmlens.push(run, "me/x", images=True)
    hub.received.append(texts_of_tables(hub, "me/x"))
    assert sum(hub.holds(each) for each in encoded(pictures[0])) >= 2
    assert len([name for name in hub.files("me/x") if name.startswith("images/")]) == 2
    assert [secret for secret in SECRETS if hub.holds(secret.encode())] == []
    assert not any(name.startswith("columns/parts") for name in hub.files("me/x"))


@pytest.mark.parametrize("side", [24, 200])  # small ones are PNG in the report, others JPEG
def test_what_files_say_beside_the_pixels_is_not_sent(
    side: int, tmp_path: Path, hub: FakeHub
) -> None:
    from PIL import Image, PngImagePlugin

    pictures = painted(tmp_path / "p")
    told, exif = PngImagePlugin.PngInfo(), Image.Exif()
    told.add_text("comment", "of-the-author")
    exif[0x010E] = "of-the-camera"
    for path in pictures:
        with Image.open(path) as opened:
            shown = opened.resize((side, side))
        shown.save(path, pnginfo=told, exif=exif, icc_profile=b"of-the-screen")
        with Image.open(path) as opened:
            assert {"comment", "exif", "icc_profile"} <= opened.info.keys()
    run = made_run(tmp_path / "run", pictures)
    vlmlens.push(run, "me/x", images=True)
    files = hub.files("me/x")
    page = re.findall(rb"data:image/\w+;base64,([A-Za-z0-9+/=]+)", files["report.html"])
    sent = [content for name, content in files.items() if name.endswith(".png")]
    said = [Image.open(io.BytesIO(each)).info.keys() for each in (*sent, *map(b64decode, page))]
    assert len(said) >= 4
    assert {name for keys in said for name in keys if not name.startswith("jfif")} == set()


def test_folders_of_relative_paths_in_settings_are_not_sent(tmp_path: Path, hub: FakeHub) -> None:
    (tmp_path / "clients" / "acme").mkdir(parents=True)
    (tmp_path / "clients" / "acme" / "x.jsonl").touch()
    said = found(
        title="clients/acme/tiny on clients/acme/x.jsonl", findings=[Finding("and/or x.jsonl")]
    )
    run = made_run(
        tmp_path / "run", painted(tmp_path / "p"), said, notes=["./clients/acme/x.jsonl"]
    )
    settings = (run.path / "spec.yaml").read_text()
    named = re.sub("(?m)^data: .*$", "data: table:clients/acme/x.jsonl", settings)
    named = re.sub("(?m)^model: .*$", "model: clients/acme/tiny", named)
    (tmp_path / "clients" / "acme" / "tiny").mkdir()
    write_text(run.path / "spec.yaml", named)
    vlmlens.push(run.path, "me/x")
    assert b"data: table:x.jsonl\n" in hub.files("me/x")["spec.yaml"]
    assert b"tiny on x.jsonl" in hub.files("me/x")["results/toy.json"]
    assert b"and/or x.jsonl" in hub.files("me/x")["results/toy.json"]
    assert not hub.holds(b"acme")


def test_what_was_taken_out_and_left_out_is_said(
    planted: tuple[Run, list[Path]], hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    run, _ = planted
    with caplog.at_level("WARNING", "vlmlens"):
        done = vlmlens.push(run, "me/x", dry_run=True)
    assert "credential" in caplog.text
    assert "picture in base64" in caplog.text
    assert set(done.left_out) == {
        ".env", "columns", "images", "papers", "plugins", "tuned", "units.sqlite",
        "results/notes.txt", "results/toy.sae.json",
    }  # fmt: skip
    assert hub.requests == []


def test_a_run_with_a_credential_in_its_spec_is_refused(tmp_path: Path, hub: FakeHub) -> None:
    run = made_run(tmp_path / "run", painted(tmp_path / "p"))
    spec = (run.path / "spec.yaml").read_text().replace("dataset: {}", f"dataset: {{a: '{URL}'}}")
    (run.path / "spec.yaml").write_text(spec)
    with pytest.raises(vlmlens.VlmlensError, match="holds a credential") as told:
        vlmlens.push(run.path, "me/x")
    assert "planted" not in str(told.value)
    assert hub.requests == []


def test_a_text_that_slips_through_stops_the_push(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A screen with a hole: the last look at all files sees it."""
    run = made_run(tmp_path / "run", painted(tmp_path / "p"), found(findings=[Finding(TOKEN)]))
    monkeypatch.setattr(Screen, "data", lambda self, text: text)
    with pytest.raises(vlmlens.VlmlensError, match="would hold a credential of yours"):
        vlmlens.push(run, "me/x")
    assert not hub.holds(TOKEN.encode())
    assert hub.repos == {}


def test_pictures_elsewhere_of_a_run_from_elsewhere_are_not_sent(
    tmp_path: Path, hub: FakeHub
) -> None:
    run = made_run(tmp_path / "run", painted(tmp_path / "p"))
    info = json.loads((run.path / "run.json").read_text())
    write_text(run.path / "run.json", json.dumps({**info, "signed": {}}))
    with pytest.raises(vlmlens.VlmlensError, match="picture cannot be sent"):
        vlmlens.push(run.path, "me/x", images=True)
    vlmlens.push(run.path, "me/x", images=True, trust=True)
    assert hub.holds(encoded(tmp_path / "p" / "photo-0.png")[1])


@pytest.mark.parametrize(
    "text",
    [
        "Is it </s> or and/or 1/2 llm.block.3/last?",
        "yes /no/maybe",
        "https://example.org/a/b/c",
        "password: apple or cookie: pear",
        "AAAA and iVBORw0KGgo are words",
        "/9j/ is how it begins",
        "",
    ],
)
def test_ordinary_texts_of_data_stay_as_they_are(text: str) -> None:
    screen = Screen(["/data/photos"], ["a-long-secret-value"])
    assert screen.data(text) == text
    assert not any(screen.found.values())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see /data/photos/a/b.png", "see a/b.png"),
        ("file:///data/photos/b.png", "b.png"),
        ("cannot open '/somewhere/else/x.bin': no", "cannot open 'x.bin': no"),
        ("table:/somewhere/else/x.jsonl", "table:x.jsonl"),
        ("--out=~/mine/of/me", "--out=me"),
        ("key a-long-secret-value!", "key ***!"),
        ("secret=abcdef", "secret=***"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("mine/of/me/x.png, mine/of/meadow", "me/x.png, mine/of/meadow"),
        ("https://a.org/mine/of/me", "https://a.org/mine/of/me"),
        ("/data/photographs/of/x", "x"),
    ],
)
def test_messages_lose_paths_and_credentials(text: str, shown: str) -> None:
    screen = Screen(["/data/photos"], ["a-long-secret-value"], ["mine/of/me/"])
    assert screen.words(text) == shown


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("form", ["uri", "plain", "urlsafe", "lines"])
def test_pictures_in_base64_are_seen(kind: str, form: str, tmp_path: Path) -> None:
    from PIL import Image

    sink = io.BytesIO()
    Image.open(painted(tmp_path, 1)[0]).save(sink, kind)
    text = base64.b64encode(sink.getvalue()).decode()
    forms = {
        "uri": f"data:image/x;base64,{text}",
        "plain": text,
        "urlsafe": base64.urlsafe_b64encode(sink.getvalue()).decode(),
        "lines": base64.encodebytes(sink.getvalue()).decode(),
    }
    shown = Screen().data(f"before {forms[form]} after")
    assert shown.startswith(f"before {NO_PICTURE}")
    assert text[40:80] not in shown
    assert len(shown) < 60


@pytest.mark.parametrize("ways", [[], [json.dumps], [json.dumps] * 2, [html.escape], [quote]])
def test_secrets_are_seen_however_they_are_written(ways: list[Callable[[str], str]]) -> None:
    secret = 'grün "of" <the>\\n\nservice'
    text = f"before {secret} after"
    for way in ways:
        text = way(text)
    screen = Screen(secrets=[secret])
    assert screen.holds(text.encode())
    assert "service" not in screen.data(text)
    assert "before" in screen.data(text)
    assert not screen.holds(text.replace("of", "off").encode())


def test_secrets_of_the_environment_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "of-the-service-1")
    monkeypatch.setenv("SOME_KEY_FILE", "/etc/of/the/file")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    known = secrets_here("my-token-of-the-hub")
    assert {"of-the-service-1", "my-token-of-the-hub"} <= {*known}
    assert not {"/etc/of/the/file", "abc"} & {*known}


@pytest.mark.parametrize(
    "name",
    [
        "../x", "/etc/passwd", "results/../../x.json", "results/a/b.json", "images/x.png",
        "columns/key.json", "columns/data.mdb", "report.html", "x.py", "results/x.json\n",
        "run.json/../x", "columns/parts/1.safetensors.py", "RESULTS/x.json", "results/a.b.json",
        "leases/plan.json", "units.sqlite", "results/\u0430\u0300.json", "",
    ],
)  # fmt: skip
def test_names_that_pull_never_writes(name: str) -> None:
    assert not is_read(name)


def test_results_of_damaged_kind_are_no_way_around(tmp_path: Path, hub: FakeHub) -> None:
    """A result's own name comes from its file, and could be anything."""
    run = made_run(tmp_path / "run", painted(tmp_path / "p"))
    write_result(found(analysis="toy", title=f"../../{TOKEN}"), run.path / "results")
    data = json.loads((run.path / "results" / "toy.json").read_text())
    data["analysis"] = f"/home/me/plugin.py:{TOKEN}"
    write_text(run.path / "results" / "toy.json", json.dumps(data))
    vlmlens.push(run, "me/x")
    assert not hub.holds(TOKEN.encode())
    assert all(map(is_ours, hub.files("me/x")))
