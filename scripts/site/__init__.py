"""The documentation site: what mkdocs does beside building `docs/`, and the pictures of its gallery."""
