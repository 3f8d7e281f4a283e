"""The group of all commands: an option that a command lacks leads to the setting of that name."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class Commands(TyperGroup):
    """What `msekit` can do."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that is named; `--lr` is no option of any, and `--set optim.lr=…` is what is meant."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            _name_the_setting(error)
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
