"""What makes two runs the same run: every setting is on one list, and only those that decide numbers count."""

from __future__ import annotations

from pydantic import BaseModel

from msekit.runs.identity import DECIDE, LATER, LEAVE, settings_of
from msekit.runs.report import flatten
from msekit.settings.config import OF_AN_OPINION, RunConfig
from msekit.settings.resolve import resolve


def names_of(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of a section's settings."""
    names = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += names_of(kind, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def run(**changes) -> RunConfig:
    given = {"backbone": "tiny-llama", "dataset": "synthetic-erc", "output": "runs/a"}
    return resolve(given | changes, task="erc")


def test_every_setting_is_on_one_of_the_lists():
    for name in names_of(RunConfig):
        section = name.split(".")[0]
        assert (name in DECIDE) != (name in LEAVE or section in LEAVE), name


def test_what_decides_counts_and_what_does_not_is_left_out():
    with_opinion = run(adapter={"name": "mse-states"})
    papers = run(adapter={"name": "mse"}, recipe="kit")
    assert list(flatten(settings_of(with_opinion))) == list(DECIDE)
    assert list(flatten(settings_of(papers))) == [n for n in DECIDE if n not in OF_AN_OPINION and n not in LATER]
    assert settings_of(run(adapter={"name": "mse-states", "dropout": 0.1})) != settings_of(with_opinion)
    assert settings_of(run(adapter={"name": "mse"}, recipe="kit", loss={"smoothing": 0.1})) != settings_of(papers)
    assert settings_of(run(seed=2)) != settings_of(run())
    assert settings_of(run(optim={"lr": 0.5})) != settings_of(run())
    fitting = {"model": {"dtype": "fp32", "checkpointing": "on"}, "evaluation": {"batch_size": 3}, "output": "runs/b"}
    assert settings_of(run(**fitting)) == settings_of(run())
