"""Several processes: launching them, talking between them, DeepSpeed ZeRO."""
