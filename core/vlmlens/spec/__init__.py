"""The run file: what determines a run, as data, and configuration files of VLM-Lens read as one.

May use sites, samples, manifest and errors. A new field belongs into `model.RunSpec`: flags, YAML,
`--set` and the schema follow from it. The JSON schema itself lies in `compose`, since it lists the
options of installed plugins.
"""
