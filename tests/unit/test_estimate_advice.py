"""What an estimate says where columns are beyond reason, and where they go elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlmlens.compose.estimate as estimates
from vlmlens.cli._plan import estimate_line
from vlmlens.compose.estimate import Estimate, advice, check_fits, estimated
from vlmlens.errors import StoreFull
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec

TIB = 2**40
IMAGE, LAST = "llm.block.3/image", "llm.block.3/last"


def large(free: int | None = 64 * TIB, **given: object) -> Estimate:
    """10^6 samples of 576 rows and one pooled row, 8 KiB each: 4.3 TiB."""
    columns = {IMAGE: 10**6 * 576 * 8192, LAST: 10**6 * 8192}
    return Estimate(
        samples=10**6,
        columns=columns,
        bytes=sum(columns.values()),
        free_bytes=free,
        rows={IMAGE: 576.0},
        **given,  # type: ignore[arg-type]
    )


def test_terabytes_are_beyond_reason_although_they_fit() -> None:
    said = advice(large())
    assert large().fits is True
    assert "4.3 TiB: 4.5 MiB for each of 1,000,000 samples" in said[0]
    assert "4.3 TiB for a column (llm.block.3/image)" in said[0]
    assert "about 6.6 h at 200 MB/s" in said[0]
    assert "1 column keeps several rows of each sample (576 in llm.block.3/image)" in said[1]
    assert "image.mean in place of image, or last), that is 7.6 GiB" in said[1]
    assert "analysis.sae.source=model" in said[2]
    assert "analysis.sae.column=llm.block.3/image" in said[2]
    assert any("--limit 152" in each for each in said)
    assert "zarr+s3://" in said[-1]
    check_fits(large())


def test_what_is_not_known_is_not_left_out_without_a_word() -> None:
    some = large()
    more = Estimate(some.samples, {**some.columns, "x/all": None}, some.bytes, 64 * TIB)
    assert "take at least 4.3 TiB" in advice(more)[0]
    assert "at least" not in advice(some)[0]


def test_what_is_advised_is_within_reason() -> None:
    """With the number of samples that is named, nothing is left to advise."""
    for free in (64 * TIB, 2**36, 2**32, None):
        (said,) = [each for each in advice(large(free)) if "--limit" in each]
        samples = int(said.partition("--limit ")[2].split()[0])
        share = samples / 10**6
        before = large(free)
        columns = {name: int(size * share) for name, size in before.columns.items() if size}
        fewer = Estimate(samples, columns, sum(columns.values()), free, rows=before.rows)
        assert advice(fewer) == []
        check_fits(fewer)


def test_small_columns_need_no_advice() -> None:
    small = Estimate(10, {LAST: 81_920}, 81_920, TIB)
    assert advice(small) == []
    assert small.to_dict()["advice"] == []
    assert small.bytes_per_sample == 8192


def test_the_hint_of_a_full_disk_has_the_same_words() -> None:
    with pytest.raises(StoreFull) as caught:
        check_fits(large(free=2**36))
    assert caught.value.hint == " ".join(advice(large(free=2**36))[1:])


def test_an_object_store_is_neither_refused_nor_promised() -> None:
    there = large(None, storage="zarr+s3://bucket/x", own_free_bytes=TIB)
    assert there.fits is None
    assert there.to_dict()["fits"] is None
    check_fits(there)
    said = advice(there)
    assert said
    assert not any("zarr+s3" in each or "--out" in each for each in said)
    assert estimate_line(there) == "2 columns, 4.3 TiB"
    with pytest.raises(StoreFull, match=r"The disk of the run has 1.0 MiB free"):
        check_fits(large(None, storage="zarr+s3://bucket/x", own_free_bytes=2**20))


@pytest.mark.parametrize(
    ("storage", "known"),
    [
        ("lmdb", True),
        ("zarr+s3://bucket/x", False),
        ("zarr+memory://x", False),
        ("lmdb://{here}/a%20b", True),
        ("zarr+file://{here}/x", True),
    ],
)
def test_free_space_is_that_of_the_place_of_the_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, known: bool
) -> None:
    asked = []

    class Usage:
        free = 12_345

    def usage(path: Path) -> Usage:
        asked.append(Path(path))
        return Usage()

    monkeypatch.setattr(estimates.shutil, "disk_usage", usage)
    (tmp_path / "a b").mkdir()
    spec = make_spec(
        {"storage": storage.format(here=tmp_path), "out": str(tmp_path / "run"), "adapter": "llava"}
    )
    found = estimated(spec, None, [Sample("a", "?")], [])
    assert (found.free_bytes == 12_345) is known
    assert found.fits is (False if known else None)
    if "%20" in storage:
        assert asked[-1] == tmp_path / "a b"


def test_one_of_a_thing_is_not_several() -> None:
    one = Estimate(1, {LAST: 8192}, 8192, 2**30)
    assert estimate_line(one) == "1 column, 8.0 KiB (1.0 GiB free)"
