

def test_it_begins_and_ends_with_words_of_its_own() -> None:
    """Tools that write model cards into the working directory have done so to this file."""
    assert README.startswith("# vlmlens\n")
    assert README.endswith("\nApache-2.0.\n")
    assert not list(ROOT.glob("adapter_*"))
