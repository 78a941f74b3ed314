"""Tuning each component in turn, and measuring again: which one closes the gap?

`options.py` has the options, `snapshot.py` what is measured in one state of the model, `direct.py`
what can be read off without the language model, `trained.py` the trainings, `closing.py` the
numbers, `tuned.py` which trainings there are; `report.py`, `tables.py`, `words.py` say them.
"""
