"""The record of a finished run: its numbers with everything that made them, ready for JSON."""

import platform

import torch

from dnm import __version__
from dnm.store import RESULT_FORMAT


def record(run, history: list[dict], test_accuracy: float, last: float, predictions: list[int], **more) -> dict:
    """The JSON record of a finished run; accuracies are fractions, times seconds."""
    import transformers

    return {
        "format": RESULT_FORMAT, "hash": run.config.hash, "config": run.config.to_dict(), "label": run.config.label,
        "data": {"name": run.data.name, "fingerprint": run.data.fingerprint, "counts": run.data.counts,
                 "labels": list(run.data.label_names), "source": run.data.source, "ceiling": run.data.ceiling()},
        "encoder_weights": run.weights,
        "environment": {"device": device_name(run.device), "precision": run.precision, "torch": torch.__version__,
                        "transformers": transformers.__version__, "dnm": __version__,
                        "threads": torch.get_num_threads(), **({"fleet": run.fleet} if run.fleet > 1 else {})},
        "title": run.config.title, "k": run.k, "test_accuracy": test_accuracy, "last_test_accuracy": last, **more,
        "history": history, "test_predictions": predictions,
        "seconds": round(run.seconds, 3),
    }


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
