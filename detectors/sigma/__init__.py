"""Sigma rules over the event stream: loading, matching, correlating, testing."""

from __future__ import annotations

from detectors.sigma.detector import SigmaDetector
from detectors.sigma.load import load_rules
from detectors.sigma.rule import Rule, RuleError, RuleSet
from detectors.sigma.testing import TestResult, run_tests

__all__ = ["Rule", "RuleError", "RuleSet", "SigmaDetector", "TestResult", "load_rules", "run_tests"]
