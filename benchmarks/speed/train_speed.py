"""Training speed beside the published procedure: same backbone, data, prompt, batch size and threads, alternating.

    python -m benchmarks.speed.train_speed --data ../shared/data [--datasets meld6 ravdess] [--also int8] [--seeds 5]

Both sides run recipe `paper` (same equations, features and first weights), so that in fp32 their losses are equal:
the script says by how much they differ. On a CPU the procedure is in fp32, and msekit in what a run takes by itself.
The kit's batches are those of an epoch at even steps of their length, so that a few of them are like the whole. Prints
Markdown for speed/RESULTS.md; takes about three minutes a data set on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch

from benchmarks.speed.agreement import distance, kit_outcome, procedure_outcome
from benchmarks.speed.measure import Side, Work, alternate, body_and_head, machine, matrix_peak, table, useful_flop
from benchmarks.speed.procedure import Procedure
from msekit.data.batches.batch import global_batches
from msekit.data.catalogue import resolve_dataset
from msekit.distributed.accelerator import accelerator_for
from msekit.model.make_adapter import make_adapter
from msekit.model.mse_model import MSEModel
from msekit.model.prompt import PromptLayout
from msekit.process import flush_denormals
from msekit.reporter import Reporter
from msekit.settings.config import RunConfig
from msekit.settings.resolve import resolve
from msekit.training.build import Parts, build
from msekit.training.loop import Run
from msekit.training.parallel_seeds import Together, collate, parts_for

LAYOUTS = ("paper", "prompt-first")
Prepared = tuple[RunConfig, Parts]


def prepare(backbone: str, dataset: str, batch_size: int, overrides: list[str]) -> Prepared:
    """A run by recipe `paper`, in the paper's layout."""
    fields = {"backbone": backbone, "dataset": dataset, "recipe": "paper", "output": "none", "save_minutes": 1e6}
    flush_denormals()  # as `train` does
    task = resolve_dataset(dataset).task
    sizes = [f"optim.batch_size={batch_size}", f"evaluation.batch_size={batch_size}"]
    config = resolve(fields, task=task, overrides=[*sizes, *overrides])
    return config, build(config, Reporter(quiet=True))


def prepare_all(options: argparse.Namespace, name: str, overrides: list[str]) -> list[Prepared]:
    """A data set's run on the backbone as it is, and held in the other ways that are asked for."""
    path = options.data / name / f"{name}.yaml"
    dataset = str(path) if path.is_file() else name
    ways = ([], *([f"model.quantization={kind}"] for kind in options.also))
    return [prepare(options.backbone, dataset, options.batch_size, [*overrides, *way]) for way in ways]


def for_procedure(options: argparse.Namespace, prepared: Prepared, overrides: list[str]) -> Prepared:
    """A run's parts as the published procedure has them: in fp32 on a CPU."""
    config, parts = prepared
    if parts.backbone.device.type == "cuda" or parts.backbone.model.dtype == torch.float32:
        return prepared
    return prepare(options.backbone, config.dataset, options.batch_size, [*overrides, "model.dtype=fp32"])


def in_layout(config: RunConfig, parts: Parts, layout: str) -> Prepared:
    """The same parts with a fresh adapter and another layout, on the same backbone."""
    model, old = parts.backbone, parts.model
    config = config.model_copy(update={"layout": layout})
    widths = (parts.cache.info.audio.width, parts.cache.info.vision.width)
    adapter = make_adapter(config.adapter, model.text_dim, *widths, seed=config.seed)
    order = PromptLayout(model.encode, model.bos, parts.spec.task_prompt, layout)  # type: ignore[arg-type]
    return config, dataclasses.replace(parts, model=MSEModel(model, adapter, order, old.labels).to(model.device))


def kit_sides(side: Callable[[RunConfig, Parts, int], Side], prepared: Iterable[Prepared], steps: int) -> list[Side]:
    """The kit in both layouts, on every one of the backbones."""
    sides = []
    for config, parts in prepared:
        suffix = "" if config.model.quantization == "none" else f", {config.model.quantization}"
        for layout in LAYOUTS:
            sides.append(side(*in_layout(config, parts, layout), steps))
            sides[-1].name += suffix
    return sides


def even_batches(runs: list[Run], count: int) -> list[list[list[int]]]:
    """Every run's batches at the same steps of an epoch: at even steps of the first run's lengths."""
    first, size = runs[0], runs[0].config.optim.batch_size
    orders = [global_batches(*run.lengths, size, run.config.seed, 0) for run in runs]
    steps = [step for step, batch in enumerate(orders[0]) if len(batch) == size]
    steps.sort(key=lambda step: tuple(lengths[orders[0][step]].sum() for lengths in first.lengths))
    chosen = [steps[int((n + 0.5) / count * len(steps))] for n in range(count)]
    return [[run.subset[order[step]].tolist() for step in chosen] for run, order in zip(runs, orders, strict=True)]


def work_of(parts: Parts, batches: list[list[int]], training: bool) -> Work:
    """What batches hold: samples, real tokens, and the products they need (a prefix read once needs none)."""
    body, head = body_and_head(parts.backbone.model)
    seen = computed = positions = 0
    split = "train" if training else "test"
    for indices in batches:
        tokens = sum(len(parts.collators[split].text_ids[i]) for i in indices)
        if training:
            targets = sum(len(parts.labels.tokens[int(parts.collators[split].labels[i])]) for i in indices)
            answers = targets - len(indices)  # the last token of a label is never read
        else:
            targets = len(parts.labels.trie.inner) * len(indices)
            answers = targets - len(indices)
        pseudo = int(parts.model.adapter.projector.expand.out_features)  # type: ignore[union-attr, arg-type]
        fixed = len(parts.model.layout.opening) + pseudo + len(parts.model.layout.closing)
        seen += tokens + answers + fixed * len(indices)
        read = 0 if parts.model.prefix is None else parts.model.prefix.get_seq_length()
        computed += tokens + answers + (fixed - read) * len(indices)
        positions += targets
    return Work(sum(map(len, batches)), seen, useful_flop(body, computed, head, positions, training))


def kit_side(config: RunConfig, parts: Parts, steps: int) -> Side:
    """Training steps of the kit."""
    run = Run(config, parts, accelerator_for(parts.backbone.device), Reporter(quiet=True))
    run.adapter.train()
    [batches] = even_batches([run], steps)
    work = work_of(parts, batches, training=True)

    def block() -> Work:
        for indices in batches:
            run.step(run.collate(indices), len(indices))
        return work

    return Side(f"kit, {config.layout} layout", block)


def seeds_side(config: RunConfig, parts: Parts, steps: int, count: int) -> Side:
    """Training steps of several seeds in one pass each."""
    accelerator, quiet = accelerator_for(parts.backbone.device), Reporter(quiet=True)
    configs = [config.model_copy(update={"seed": seed}) for seed in range(count)]
    runs = [Run(run_config, parts_for(run_config, parts), accelerator, quiet) for run_config in configs]
    for run in runs:
        run.adapter.train()
    together = Together(runs, accelerator, quiet)
    batches = even_batches(runs, steps)
    every = [work_of(parts, mine, training=True) for mine in batches]
    totals = [sum(getattr(work, field.name) for work in every) for field in dataclasses.fields(Work)]

    def block() -> Work:
        for step_batches in zip(*batches, strict=True):
            together.step(runs, collate(runs, step_batches), [len(batch) for batch in step_batches])
        return Work(*totals)

    return Side(f"kit, {config.layout} layout, {count} seeds at once", block)


def procedure_side(config: RunConfig, parts: Parts, steps: int) -> Side:
    """Training steps of the procedure, on samples in random order."""
    procedure = Procedure(parts, config.optim.lr)
    order = torch.randperm(len(parts.collators["train"].split), generator=torch.Generator().manual_seed(0)).tolist()
    size = config.optim.batch_size
    batches = [order[n * size : (n + 1) * size] for n in range(steps)]
    work = work_of(parts, batches, training=True)

    def block() -> Work:
        for indices in batches:
            procedure.step(indices)
        return work

    return Side("procedure", block)


def main() -> None:
    """Print a Markdown table per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--datasets", nargs="+", default=["meld6", "ravdess"])
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="of each side in a round")
    parser.add_argument("--seeds", type=int, default=0, help="so many at once besides; samples of all of them count")
    parser.add_argument("--also", nargs="*", default=[], help="other ways to hold the LLM: int8, nf4")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="any setting of the run")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name in options.datasets:
        prepared = prepare_all(options, name, options.overrides)
        config, parts = for_procedure(options, prepared[0], options.overrides)
        first = list(range(options.batch_size))
        loss, gradient = map(distance, kit_outcome(parts, first), procedure_outcome(parts, first))
        sides = [procedure_side(config, parts, options.steps)]
        sides += kit_sides(kit_side, prepared, options.steps)
        if options.seeds:
            sides += kit_sides(partial(seeds_side, count=options.seeds), prepared, options.steps)
        dtype = prepared[0][1].backbone.model.dtype
        peak = matrix_peak(device, dtype)
        alternate(sides, options.rounds, device)
        peak = max(peak, matrix_peak(device, dtype))
        print(table(f"training, {parts.spec.name}, {dtype}", sides, peak))
        prompt = len(parts.backbone.encode(parts.spec.task_prompt))
        print(
            f"\n{options.backbone}, batch {options.batch_size}, prompt of {prompt} tokens, the procedure reads "
            f"{Procedure(parts).tokens_read()} columns a sample; {machine(device)}; matrix peak {peak / 1e9:,.0f} "
            f"GFLOP/s; {options.rounds} rounds of {options.steps} steps. Kit against procedure before training: loss "
            f"{loss:.1e} apart, norm of the gradient {gradient:.1e}, relative.\n",
            flush=True,
        )


if __name__ == "__main__":
    main()
