"""fednode: federated QLoRA fine-tuning without a coordinator. This package is the shared kernel."""

__version__ = "0.1.0"
