"""The documentation site: what mkdocs does beside building `docs/`, and the gallery's pictures."""
