"""Evaluation speed beside the published procedure: every label scored in one pass against `generate` token by token.

    python -m benchmarks.speed.eval_speed --data ../shared/data --datasets meld6 mosi_utt [--rounds 4] [--also int8]

Same backbone, data, prompt, batch size and threads, alternating. Prints Markdown for speed/RESULTS.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.speed.measure import Side, Work, alternate, machine, matrix_peak, table
from benchmarks.speed.procedure import Procedure
from benchmarks.speed.train_speed import for_procedure, kit_sides, prepare_all, work_of
from msekit.data.batches.batch import evaluation_batches
from msekit.settings.config import RunConfig
from msekit.training.build import Parts


def kit_side(config: RunConfig, parts: Parts, steps: int) -> Side:
    """Scoring batches at even steps of their length."""
    collator, size = parts.collators["test"], parts.evaluation_batch
    batches = [b for b in evaluation_batches(*collator.lengths(), size, 0, 1) if len(b) == size]
    batches = [batches[int((n + 0.5) / steps * len(batches))] for n in range(steps)]
    work = work_of(parts, batches, training=False)

    def block() -> Work:
        for indices in batches:
            parts.model.score(collator(indices).to(parts.backbone.device)).cpu()
        return work

    return Side(f"kit, {config.layout} layout", block)


def procedure_side(config: RunConfig, parts: Parts, steps: int, new_tokens: int) -> Side:
    """Writing answers for samples in the split's order."""
    procedure = Procedure(parts, config.optim.lr, new_tokens)
    size = parts.evaluation_batch
    batches = [list(range(n * size, (n + 1) * size)) for n in range(steps)]
    work = work_of(parts, batches, training=False)

    def block() -> Work:
        for indices in batches:
            procedure.answer("test", indices)
        return work

    return Side("procedure", block)


def main() -> None:
    """Print a Markdown table per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--datasets", nargs="+", default=["meld6", "mosi_utt"])
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=4, help="longest answer of the procedure")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="batches of each side in a round")
    parser.add_argument("--also", nargs="*", default=[], help="other ways to hold the LLM: int8, nf4")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name in options.datasets:
        prepared = prepare_all(options, name, [])
        config, parts = for_procedure(options, prepared[0], [])
        sides = [procedure_side(config, parts, options.steps, options.new_tokens)]
        sides += kit_sides(kit_side, prepared, options.steps)
        alternate(sides, options.rounds, device)
        dtype = prepared[0][1].backbone.model.dtype
        print(table(f"evaluation, {parts.spec.name}, {dtype}", sides, matrix_peak(device, dtype)))
        print(
            f"\n{options.backbone}, batch {options.batch_size}, {len(parts.labels)} labels; the procedure writes up to "
            f"{options.new_tokens} tokens; {machine(device)}; {options.rounds} rounds of {options.steps} batches.\n",
            flush=True,
        )


if __name__ == "__main__":
    main()
