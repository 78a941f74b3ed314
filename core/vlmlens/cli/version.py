"""`vlmlens version`."""

from __future__ import annotations

import platform

from vlmlens._version import __version__
from vlmlens.cli._options import output_flags, shares
from vlmlens.cli._output import Output
from vlmlens.manifest import API_VERSION


@shares(output=output_flags)
def version(output: Output) -> None:
    """Print the versions of vlmlens, its plugin API, and Python.

    Examples:
        vlmlens version
        vlmlens version --json
    """
    document = {
        "vlmlens": __version__,
        "plugin_api": API_VERSION,
        "python": platform.python_version(),
    }
    line = f"vlmlens {__version__} (plugin API {API_VERSION}, Python {document['python']})"
    output.data(document, line)
