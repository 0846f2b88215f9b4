"""Where the arguments of a call came from."""

from detectors.provenance.detector import Provenance

__all__ = ["Provenance"]
