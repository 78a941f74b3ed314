"""One sample's page, and its pictures: what is shown of it, and what cannot be reached."""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from tests.unit._view_pages import (
    Elements,
    client_of,
    make_run,
    page_of,
    planted,
    planted_results,
    runs_nothing,
)

from vlmlens.abc.storage import ColumnBlock, Values
from vlmlens.images import ImageRules
from vlmlens.registry import Registry
from vlmlens.runs.run import Run
from vlmlens.samples import Sample
from vlmlens.stores.opening import open_named
from vlmlens.videos import Video
from vlmlens.view.sample_pictures import SIDES, KeptPictures, SmallPicture

IMAGES = {"accept": "image/webp,image/*"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("one")
    samples, values = planted(folder / "pictures", 40)
    return make_run(folder / "run", samples, planted_results(samples, values))


@pytest.fixture(scope="module")
def client(run: Run) -> TestClient:
    return client_of(run)


def picture(client: TestClient, address: str) -> Image.Image:
    answer = client.get(address, headers=IMAGES)
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def links(page: str) -> dict[str, str]:
    return {
        str(each["rel"]): str(each["href"]) for each in Elements(page).of("a") if each.get("rel")
    }


def test_all_that_is_known_of_a_sample_is_shown(client: TestClient, run: Run) -> None:
    page = page_of(client, "/runs/0/samples/2")
    text = Elements(page).text
    table = run.results["blind-test"].table("answers").columns
    place = list(table["sample"]).index("s0002")
    answer, right = table["answer"][place], table["answer"][place] == table["label"][place]
    assert "What color has thing 2?" in text
    assert f"answer{answer}" in text
    assert f"the answer is{'right' if right else 'wrong'}" in text
    assert "depth0.2" in text
    assert "By blank" in text
    assert "noise" in text
    assert "Top tokens" in text
    assert "Where it looks" not in text
    assert "left half" in text
    assert runs_nothing(page)


def test_the_sample_before_and_after_are_those_of_the_filter(client: TestClient) -> None:
    query = "task=color&sort=blind-test/answers/score&order=down"
    answer = client.get(f"/runs/0/samples/rows?{query}").json()["html"]
    listed = [str(each["href"]) for each in Elements(answer).of("a")]
    number = 7
    found = links(page_of(client, listed[number]))
    assert found == {"prev": listed[number - 1], "next": listed[number + 1]}
    assert "next" in links(page_of(client, listed[0]))
    assert "prev" not in links(page_of(client, listed[0]))
    outside = page_of(client, f"/runs/0/samples/1?{query}")
    assert "does not fit the filter" in outside
    assert links(outside) == {}
    assert client.get("/runs/0/samples/2?task=nix").status_code == 422


def test_patches_are_those_of_a_figure_or_of_a_picture_of_the_same_size(
    client: TestClient,
) -> None:
    def grids(number: int) -> list[str]:
        page = Elements(page_of(client, f"/runs/0/samples/{number}"))
        return [str(path["d"]) for path in page.of("path") if "g0" in str(path.get("class"))]

    halves = "M0.0000 0.0000H0.5000V1.0000H0.0000ZM0.5000 0.0000H1.0000V1.0000H0.5000Z"
    assert grids(1) == [halves]
    assert grids(2) == [halves]
    assert grids(4) == []
    assert "as those of s0001" in page_of(client, "/runs/0/samples/2")
    assert "as those of" not in page_of(client, "/runs/0/samples/1")


def test_regions_lie_where_they_are(client: TestClient) -> None:
    for number, right in ((0, 60 / 120), (1, 60 / 160)):
        page = Elements(page_of(client, f"/runs/0/samples/{number}"))
        (path,) = [each["d"] for each in page.of("path") if each.get("class") == "region"]
        assert path == f"M0.0000 0.0000H{right:.4f}V{120 / (160, 120)[number]:.4f}H0.0000Z"


def test_the_live_page_is_linked_where_there_is_a_model(run: Run, client: TestClient) -> None:
    assert "/live?" not in page_of(client, "/runs/0/samples/5")
    with_model = client_of(run, live=object())
    assert "/live?run=0&amp;sample=5" in page_of(with_model, "/runs/0/samples/5")


def test_what_is_stored_is_listed_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [Sample(f"s{i}", "What is it?") for i in range(3)]
    run = make_run(tmp_path / "run", samples)
    name, folder = "llm.block.3/image", str(run.path / "columns")
    rows = Values(np.zeros((6, 5), np.float32), "float32", (2, 2, 2))
    with open_named(Registry.default(), "lmdb", folder, mode="a", options={}) as store:
        store.write(ColumnBlock(tuple(one.id for one in samples), {name: rows}))
        monkeypatch.setattr(type(store), "read", None)
        monkeypatch.setattr(type(store), "read_range", None)
    text = Elements(page_of(client_of(run), "/runs/0/samples/1")).text
    assert f"{name} [rows, 5] float32, of 3 samples" in text


def test_pictures_come_small_in_a_few_sizes(client: TestClient, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    noise = np.random.default_rng(0).integers(0, 255, (300, 1500, 3), np.uint8)
    Image.fromarray(noise).save(path)
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 200), "red").save(turned, exif=exif)
    sized = ImageRules(size=(64, 32))
    samples = [
        Sample("a", "?", (str(path), str(turned))),
        Sample("b", "?", (str(path),), rules=sized),
    ]
    own = client_of(make_run(tmp_path / "run", samples))
    for side in SIDES:
        shown = picture(own, f"/runs/0/samples/0/pictures/0?side={side}")
        assert shown.size == (side, round(side / 5))
    assert picture(own, "/runs/0/samples/0/pictures/1?side=96").size == (64, 96)
    assert picture(own, "/runs/0/samples/1/pictures/0?side=96").size == (64, 32)
    for side in ("97", "1e3", "-1", "", "99999999"):
        refused = own.get(f"/runs/0/samples/0/pictures/0?side={side}")
        assert refused.status_code == 422
        assert "Ask for one of 96" in refused.json()["hint"]


@pytest.mark.parametrize(
    "address",
    ["/0/pictures/1", "/40/pictures/0", "/0/pictures/..%2f..%2fetc%2fpasswd", "/0/pictures/-1"],
)
def test_no_path_is_taken_from_an_address(client: TestClient, address: str) -> None:
    assert client.get(f"/runs/0/samples{address}", headers=IMAGES).status_code == 404


def bomb(path: Path) -> None:
    """A PNG file of a few bytes that claims to have 3.6 billion pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_a_picture_that_cannot_be_shown_says_why(tmp_path: Path) -> None:
    names = ("gone", "damaged", "bomb", "many", "program")
    paths = {name: tmp_path / f"{name}.png" for name in names}
    for path in paths.values():
        Image.new("RGB", (40, 40), "red").save(path)
    samples = [Sample(name, "?", (str(path),)) for name, path in paths.items()]
    samples += [Sample("none", "?"), Sample("video", "?", video=Video("clip.mp4"))]
    client = client_of(make_run(tmp_path / "run", samples, max_pixels=1_000))
    paths["gone"].unlink()
    paths["damaged"].write_bytes(paths["many"].read_bytes()[:60])
    bomb(paths["bomb"])
    paths["program"].write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    for number, name in enumerate(names):
        address = f"/runs/0/samples/{number}/pictures/0"
        drawn = client.get(address, headers=IMAGES)
        assert (drawn.status_code, drawn.headers["content-type"]) == (422, "image/svg+xml"), name
        assert len(drawn.content) < 2_000
        assert f"Sample '{name}'" in client.get(address).json()["message"]
        assert f"Sample '{name}'" in Elements(page_of(client, f"/runs/0/samples/{number}")).text
    assert "40 x 40 pixels" in client.get("/runs/0/samples/3/pictures/0").json()["message"]
    assert "No image." in page_of(client, "/runs/0/samples/5")
    assert "no frame was read" in page_of(client, "/runs/0/samples/6")
    assert "no image" in page_of(client, "/runs/0/samples")


def test_pictures_outside_a_run_that_is_not_trusted_stay_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, _ = planted(tmp_path / "pictures", 2)
    inside = tmp_path / "run" / "images" / "own.png"
    inside.parent.mkdir(parents=True)
    Image.new("RGB", (20, 20), "red").save(inside)
    samples[1] = replace(samples[1], images=(str(inside),), attributes={})
    made = make_run(tmp_path / "run", samples)
    info = json.loads((made.path / "run.json").read_text())
    (made.path / "run.json").write_text(json.dumps({**info, "signed": {}}))
    client = client_of(Run(made.path))
    refused = client.get("/runs/0/samples/0/pictures/0", headers=IMAGES)
    assert refused.status_code == 422
    assert "outside the run" in client.get("/runs/0/samples/0/pictures/0").json()["message"]
    assert "--trust" in Elements(page_of(client, "/runs/0/samples/0")).text
    assert picture(client, "/runs/0/samples/1/pictures/0").size == (20, 20)
    trusted = client_of(Run(made.path, trust=True))
    assert picture(trusted, "/runs/0/samples/0/pictures/0").size == (120, 160)


def test_pictures_are_kept_up_to_a_bound_and_not_when_the_file_changes(tmp_path: Path) -> None:
    kept = KeptPictures(most=100)
    for number in range(20):
        kept.keep(number, SmallPicture(bytes(30), "image/png"))
        assert kept.bytes <= 100
    kept.keep("large", SmallPicture(bytes(101), "image/png"))
    assert [kept.get(number) is not None for number in (16, 17, 18, 19, "large")] == [
        False, True, True, True, False,
    ]  # fmt: skip
    path = tmp_path / "a.png"
    Image.new("RGB", (20, 20), "red").save(path)
    client = client_of(make_run(tmp_path / "run", [Sample("a", "?", (str(path),))]))
    address = "/runs/0/samples/0/pictures/0"
    assert picture(client, address).getpixel((5, 5)) == (255, 0, 0)
    Image.new("RGB", (30, 30), "blue").save(path)
    assert picture(client, address).getpixel((5, 5)) == (0, 0, 255)


def test_frames_of_a_video_are_told_apart(tmp_path: Path) -> None:
    paths = []
    for number in range(6):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (30, 20), (number * 40, 0, 0)).save(paths[-1])
    video = Video("clip.mp4", frames=(0, 10, 20, 30, 40, 50), times=(0, 1, 2, 3, 4, 5), total=60)
    client = client_of(make_run(tmp_path / "run", [Sample("a", "?", tuple(paths), video=video)]))
    page = page_of(client, "/runs/0/samples/0")
    assert "Frame 50, 5.00 s, 30 x 20" in Elements(page).text
    red: Any = picture(client, "/runs/0/samples/0/pictures/5").getpixel((0, 0))
    assert red[0] == 200


ODD = (None, 5, [None], [["x"]], {"a": [1]}, "\ud800")


def test_odd_values_in_a_line_of_samples_are_shown_or_told(tmp_path: Path) -> None:
    samples, values = planted(tmp_path / "pictures", 10)
    run = make_run(tmp_path / "run", samples, planted_results(samples, values)[1:])
    path = run.path / "samples.jsonl"
    first, *others = path.read_text().splitlines()
    kept = json.loads(first)
    answers: set[int] = set()
    told: set[str] = set()
    for field in ("id", "prompt", "images", "label", "choices", "group", "task", "attributes",
                  "video", "rules"):  # fmt: skip
        for odd in ODD:
            path.write_text("\n".join([json.dumps({**kept, field: odd}), *others, ""]))
            client = client_of(Run(run.path, trust=True))
            for address in ("?q=thing", "/0", "/0/pictures/0"):
                answer = client.get(f"/runs/0/samples{address}", headers={"accept": "text/html"})
                answers.add(answer.status_code)
                told.add(answer.text if answer.status_code == 422 else "")
    assert answers <= {200, 404, 422}
    assert any("lines 1 to 10 hold something else" in each for each in told)
