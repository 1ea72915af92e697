"""What all training jobs tell their trainer alike. Knows no task and no model, and imports no Ray."""

from pathlib import Path
from typing import Any


def trainer_arguments(config: Any, output: Path, *, gpu: bool) -> dict[str, Any]:
    """By the fields that the configurations share; saving by steps, so that a kill loses little."""
    return {
        "output_dir": str(output),
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": config.batch,
        "learning_rate": config.lr,
        "lr_scheduler_type": config.schedule,
        "weight_decay": config.weight_decay,
        "save_strategy": "steps",
        "save_total_limit": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "seed": config.seed,
        "data_seed": config.seed,
        "use_cpu": not gpu,
        "disable_tqdm": True,
        "dataloader_pin_memory": gpu,
        "ddp_find_unused_parameters": False,
    }
