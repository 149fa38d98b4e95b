"""What goes into a network, and how what it makes is judged: a folder a task."""

from upsweep.tasks.task import Compared, Task

__all__ = ["Compared", "Task"]
