"""What the tests ask of Ray Serve, imported with its own warnings let through: they are Ray's business."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ray.serve._private import constants
    from ray.serve.schema import ServeDeploySchema

    from serve.app import build

__all__ = ["ServeDeploySchema", "build", "constants"]
