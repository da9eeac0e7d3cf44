"""Training: modules, callbacks, loggers, the trainer, and exact resume."""
