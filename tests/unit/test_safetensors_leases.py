from __future__ import annotations

import json
from contextlib import suppress

import fsspec
import pytest
from tests.unit._safetensors_parts import (
    check_numbered,
    open_part,
    open_parts,
    open_store,
    part_of,
)

from vlmlens.errors import FingerprintMismatch, StoreCorrupt, StoreError
from vlmlens.testing._stores import expect_same, numbered
from vlmlens_plugins.storage import _safetensors_draft
from vlmlens_plugins.storage.safetensors import SafetensorsOptions, SafetensorsStore


class TestLeases:
    def written(self, folder, count=4):
        cards = {}
        for number in range(count):
            name = f"001/0000{number}-abc"
            with open_part(folder / name) as store:
                store.set_meta({"fingerprint": {"torch": "2"}})
                store.write(numbered(2 * number))
                store.write(numbered(2 * number + 1))
            cards[name] = json.loads(json.dumps(store.card()))
        return cards

    @pytest.mark.parametrize("known", [True, False])
    def test_leases_are_read_as_one(self, tmp_path, known):
        cards = self.written(tmp_path)
        with open_parts(tmp_path, cards if known else dict.fromkeys(cards)) as store:
            check_numbered(store, 8)
            assert store.get_meta() == {"fingerprint": {"torch": "2"}}
            assert [check.problem for check in store.verify()] == [""] * 16
        assert len(list(tmp_path.rglob("*.safetensors"))) == 4

    def test_one_attempt_is_a_store(self, tmp_path):
        (name, *_) = self.written(tmp_path, 1)
        with open_store(tmp_path / name, "r") as store:
            check_numbered(store, 2)
            assert store.get_meta() == {"fingerprint": {"torch": "2"}}

    def test_large_attempts_are_spooled(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_safetensors_draft, "_IN_MEMORY", 100)
        with open_parts(tmp_path, self.written(tmp_path)) as store:
            check_numbered(store, 8)

    def test_nothing_is_written_before_the_end(self, tmp_path):
        with suppress(KeyError), open_part(tmp_path / "x") as store:
            store.write(numbered(0))
            expect_same(store.read("a/last"), numbered(0).columns["a/last"], "before the end")
            with pytest.raises(StoreError, match="stored in column"):
                store.write(numbered(0))
            raise KeyError
        assert list(tmp_path.rglob("*")) == []
        assert store.card() is None

    def test_a_lost_or_other_part(self, tmp_path):
        cards = self.written(tmp_path)
        names = list(cards)
        path = part_of(tmp_path / names[1], 0)
        content = path.read_bytes()
        path.unlink()
        with open_parts(tmp_path, cards) as store:
            with pytest.raises(StoreCorrupt, match=r"00001-abc.*missing"):
                store.read("a/last")
            assert any("missing" in check.problem for check in store.verify())
        with pytest.raises(StoreCorrupt, match=r"00001-abc.*missing"):
            open_parts(tmp_path, dict.fromkeys(cards))
        path.write_bytes(part_of(tmp_path / names[0], 0).read_bytes())
        with pytest.raises(StoreCorrupt, match="which another part has too"):
            open_parts(tmp_path, dict.fromkeys(cards))
        with open_parts(tmp_path, cards) as store, pytest.raises(StoreCorrupt, match="00001-abc"):
            store.read("a/last")
        path.write_bytes(content)

    @pytest.mark.parametrize(
        "card",
        [
            {},
            {"start": 8},
            {"start": True, "record": {}},
            {"start": 9, "record": {"format": "vlmlens-part"}},
        ],
    )
    def test_forged_cards(self, tmp_path, card):
        with pytest.raises(StoreCorrupt, match="damaged"):
            open_parts(tmp_path, {**self.written(tmp_path, 1), "001/x": card})

    def test_other_conditions(self, tmp_path):
        cards = self.written(tmp_path, 1)
        with open_part(tmp_path / "other") as store:
            store.set_meta({"fingerprint": {"torch": "3"}})
        with pytest.raises(FingerprintMismatch, match="other conditions"):
            open_parts(tmp_path, {**cards, "other": store.card()})


class TestPlaces:
    def test_memory_is_like_a_folder(self):
        place = "safetensors+memory://some/where"
        with open_store(place) as store:
            for number in range(3):
                store.write(numbered(number))
        with open_store(place, "r") as store:
            check_numbered(store, 3)
        SafetensorsStore.remove(place, options=SafetensorsOptions())
        SafetensorsStore.remove(place, options=SafetensorsOptions())
        assert not fsspec.filesystem("memory").exists("/some/where")

    def test_unknown_protocols(self):
        with pytest.raises(StoreError, match="nothing"):
            open_store("safetensors+nothing://x/y")
