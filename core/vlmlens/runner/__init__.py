"""Executing a plan: load, extract, analyse, report; in one process or several.

May use everything except the command line, `testing` and `api`. `execution` runs the stages,
`stages` holds what they share, `run_folder` opens or creates the folder, `workers` starts and
watches processes, `merge` merges their shards, `run_report` writes the page, and `bare_store`
analyses a store that has no run.
"""
