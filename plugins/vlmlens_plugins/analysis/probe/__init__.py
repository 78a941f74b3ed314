"""The probe: can a label be read from a layer, beyond what shuffled labels and guessing give?"""

from vlmlens_plugins.analysis.probe.analysis import Probe
from vlmlens_plugins.analysis.probe.options import ProbeOptions

__all__ = ["Probe", "ProbeOptions"]
