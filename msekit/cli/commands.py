"""The group of all commands: an option that a command lacks leads to the setting of that name."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

_THEIRS = {
    "Input should be a valid integer": "it is to be a whole number",
    "Input should be a valid number": "it is to be a number",
    "Input should be a valid boolean": "it is to be true or false",
    "Value error, ": "",
}
"""How the words of pydantic, which reads typer's options, begin → ours; the last for messages that are typer's own."""


class Commands(TyperGroup):
    """What `msekit` can do."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that is named; `--lr` is no option of any, and `--set optim.lr=…` is what is meant."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            _name_the_setting(error)
            _say_it_in_our_words(error)
            raise


def _name_the_setting(error: Any) -> None:
    """Let the refusal of an unknown option (whose class typer keeps to itself) say which setting it is."""
    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if option is None or context is None or not any("--set" in item.opts for item in context.command.params):
        return
    from msekit.settings.names import settings_named

    if names := settings_named(option):
        error.message = f"No such option: {option}. It is a setting: {' or '.join(f'--set {name}=…' for name in names)}"
        error.possibilities = None


def _say_it_in_our_words(error: Any) -> None:
    """Let the refusal of an option's value say what it is to be."""
    message = getattr(error, "message", None)
    if not isinstance(message, str):
        return
    for theirs, ours in _THEIRS.items():
        if message.startswith(theirs):
            error.message = ours or message.removeprefix(theirs)
