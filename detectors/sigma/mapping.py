"""pySigma processing pipelines: foreign field names mapped to ours before a rule is parsed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from sigma.correlations import SigmaCorrelationRule
from sigma.exceptions import SigmaError
from sigma.processing.pipeline import ProcessingPipeline
from sigma.rule import SigmaRule

from detectors.sigma.documents import Fault
from detectors.sigma.parse import POLICY
from detectors.sigma.refusal import RefusedError

UNUSABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError, SigmaError)


class Mapping:
    """The pipelines of a site, applied to each rule in the order of their priorities.

    ``version`` is what goes into the version of every rule: the texts of the files.
    """

    def __init__(self, texts: Sequence[str], pipelines: Sequence[ProcessingPipeline]) -> None:
        self.version = tuple(texts)
        self._pipelines = sorted(pipelines, key=lambda one: one.priority)

    def apply(self, rule: SigmaRule | SigmaCorrelationRule) -> None:
        """Change the rule in place. Raises an error of pySigma where a pipeline refuses it."""
        for pipeline in self._pipelines:
            pipeline.apply(rule)


def read_pipelines(paths: Sequence[Path], faults: list[Fault]) -> Mapping:
    """The pipelines in the YAML files; what is wrong in them is added to ``faults``."""
    texts = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
            mapped([text])
            texts.append(text)
        except UNUSABLE as error:
            faults.append((str(path), f"not a usable pipeline: {' '.join(str(error).split())[:300]}"))
    return mapped(texts)


def mapped(texts: Sequence[str]) -> Mapping:
    """The mapping of these pipelines. Raises one of ``UNUSABLE``."""
    return Mapping(texts, [_pipeline(text) for text in texts])


def _pipeline(text: str) -> ProcessingPipeline:
    content = yaml.safe_load(text)
    if not isinstance(content, dict):
        raise RefusedError("a pipeline is a mapping with a list of transformations")
    if queries := {"postprocessing", "finalizers"} & content.keys():
        raise RefusedError(f"{min(queries)} changes the text of queries, and here is none: leave it out")
    return ProcessingPipeline.from_dict(content, policy=POLICY)
