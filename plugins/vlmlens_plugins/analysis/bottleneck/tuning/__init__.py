"""Tuning each component in turn, and measuring again: which one closes the gap?

`options.py` has the options, `split.py` who is trained on and who is tested, `snapshot.py` what is
measured in one state of the model, `direct.py` what can be read off without the language model,
`trained.py` the trainings, `closing.py` the numbers, and `report.py`, `tables.py` say them.
"""
