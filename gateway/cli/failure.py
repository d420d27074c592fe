"""How a command says that it cannot do what was asked."""


class CommandFailed(Exception):
    """The message is for the person who asked; it becomes one line and exit code 1."""
