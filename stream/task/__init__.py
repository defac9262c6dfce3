"""The task: what to predict, from what, with which model."""

from headrace.stream.task.task import STAGES, Task, load, parse, validate

__all__ = ["STAGES", "Task", "load", "parse", "validate"]
