"""docs/models.md lists what the adapters' manifests list."""

from __future__ import annotations

from scripts.models_page import PAGE, manifests, page


def test_the_tables_are_those_of_the_manifests() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == page(), "run `python -m scripts.models_page --write`"


def test_there_are_thirty_variants_and_none_twice() -> None:
    listed = [checkpoint.id for manifest in manifests() for checkpoint in manifest.checkpoints]
    assert len(listed) >= 30
    assert len(set(listed)) == len(listed)


def test_every_manifest_offers_and_checks_something() -> None:
    for manifest in manifests():
        assert manifest.offers, manifest.name
        assert manifest.checks, manifest.name
