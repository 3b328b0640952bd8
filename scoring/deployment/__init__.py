"""`deployment.yaml` becomes a frozen `Deployment`: the only place where text becomes values.

Imports are light, so that Airflow can parse hundreds of deployments.
"""

from __future__ import annotations

from scoring.deployment.load import FILE_NAME, load, names, parse
from scoring.deployment.spec import (
    Checks,
    Deployment,
    Drift,
    Input,
    InputColumn,
    Labels,
    Online,
    Output,
    Owner,
    Period,
    Resources,
    Retrain,
    RetrainCause,
    model_name,
)
from scoring.deployment.steps import (
    AnyStep,
    Combine,
    Ensemble,
    EnsembleStep,
    ModelStep,
    PipelineStep,
    Rule,
    RuleStep,
    Step,
    output_of,
    walk,
)

__all__ = [
    "FILE_NAME",
    "AnyStep",
    "Checks",
    "Combine",
    "Deployment",
    "Drift",
    "Ensemble",
    "EnsembleStep",
    "Input",
    "InputColumn",
    "Labels",
    "ModelStep",
    "Online",
    "Output",
    "Owner",
    "Period",
    "PipelineStep",
    "Resources",
    "Retrain",
    "RetrainCause",
    "Rule",
    "RuleStep",
    "Step",
    "load",
    "model_name",
    "names",
    "output_of",
    "parse",
    "walk",
]
