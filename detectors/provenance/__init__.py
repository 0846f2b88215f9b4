"""Where the arguments of a call came from."""

from detectors.provenance.detector import Provenance
from detectors.provenance.effects import READING

__all__ = ["READING", "Provenance"]
