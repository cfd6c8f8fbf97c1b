"""The parity certificate: how far the twin can be trusted to be the model.

``checks.certify`` computes one in full, ``checks.quick`` a short one, and ``verdict_for`` looks
into the user's cache first.  Importing this package imports neither torch nor onnxruntime.
"""

from inspector.verify.cache import kept_at, kept_verdict, verdict_for
from inspector.verify.certificate import Certificate, Check, Verdict, worst_of

__all__ = [
    "Certificate",
    "Check",
    "Verdict",
    "kept_at",
    "kept_verdict",
    "verdict_for",
    "worst_of",
]
