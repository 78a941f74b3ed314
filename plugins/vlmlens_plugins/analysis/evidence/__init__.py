"""Evidence: on which part of the image an answer rests, or whether it rests on the text."""

from vlmlens_plugins.analysis.evidence.analysis import Evidence
from vlmlens_plugins.analysis.evidence.options import EvidenceOptions

__all__ = ["Evidence", "EvidenceOptions"]
