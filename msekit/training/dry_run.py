"""`train --dry-run`: the resolved run, and one sample exactly as the model will see it."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from msekit.model.labels import LabelSpace
from msekit.reporter import Reporter
from msekit.settings.config import RunConfig
from msekit.settings.resolve import dump
from msekit.training.build import Parts, build


def show_run(config: RunConfig) -> None:
    """Print the settings, every token of a training sample with mask and position, and the label trie.

    Raises:
        MsekitError: Whatever would stop the run at its start.
    """
    reporter = Reporter()
    parts = build(config, reporter, splits=("train",))
    console = reporter.console
    console.print("[bold]resolved run[/bold]")
    console.print(escape(dump(config)), soft_wrap=True)
    console.print(sequence_table(parts))
    console.print(label_tree(parts.labels, parts.backbone.tokenizer))
    chosen = parts.backbone.passes
    console.print(f"shorter ways through the LLM: {', '.join(chosen.uses) or 'none'}", highlight=False)
    for way, reason in chosen.refused.items():
        console.print(escape(f"  not {way}: {reason}"), highlight=False)
    console.print(f"evaluation in batches of {parts.evaluation_batch}", highlight=False)
    trainable = sum(parameter.numel() for parameter in parts.model.adapter.parameters())
    console.print(f"{trainable:,} trainable parameters; nothing was trained, no run folder written", highlight=False)


def sequence_table(parts: Parts) -> Table:
    """The first training sample (the one with the longest context, if any) beside a longer one: so padding shows."""
    collator = parts.collators["train"]
    tokens, _ = collator.lengths()
    first, longest = int(collator.context_lengths.argmax()), int(tokens.argmax())
    batch = collator([first, longest]).to(parts.backbone.device)
    sequence = parts.model.laid_out(batch)
    decode = parts.backbone.tokenizer.convert_ids_to_tokens
    layout, labels = parts.model.layout, parts.labels
    pseudo = parts.model.adapter.pseudo_tokens
    text, context = collator.text_ids[first], int(collator.context_lengths[first])
    padding = int(tokens[longest]) - len(text)
    answer = labels.tokens[int(batch.label[0])]
    rows = [("padding", "")] * padding
    first = layout.order == "prompt-first"
    rows += [("bos, prompt, opening tag" if first else "bos, opening tag", token) for token in decode(layout.opening)]
    rows += [("pseudo token", f"#{number}") for number in range(1, pseudo + 1)]
    rows += [("context", token) for token in decode(text[:context])]
    rows += [("text", token) for token in decode(text[context:])]
    rows += [("closing tag, cue" if first else "closing tag, prompt", token) for token in decode(layout.closing)]
    rows += [("label", token) for token in decode(answer[:-1])]
    rows += [("", "")] * (sequence.embeddings.shape[1] - len(rows))
    first_target = sequence.embeddings.shape[1] - sequence.answers
    title = escape(f"training sample {collator.split.ids[first]}")
    table = Table("column", "part", "token", "mask", "position", "loss target", title=title)
    if padding:
        table.add_row(f"0 – {padding - 1}", f"padding × {padding}", "", "0", "0", "")
    for column, (part, token) in enumerate(rows[padding:], start=padding):
        offset = column - first_target
        target = str(decode(answer[offset])) if 0 <= offset < len(answer) else ""
        figures = (str(int(values[0, column])) for values in (sequence.mask, sequence.positions))
        table.add_row(str(column), part, escape(str(token)), *figures, escape(target))
    return table


def label_tree(labels: LabelSpace, tokenizer: object) -> Tree:
    """The label trie, each leaf with the label's name."""
    decode = tokenizer.convert_ids_to_tokens  # type: ignore[attr-defined]
    root = Tree(f"label trie: {len(labels)} labels, {len(labels.trie.inner)} inner nodes")
    branches = {0: root}
    leaves = {int(path.nonzero()[0][-1]) + 1: name for path, name in zip(labels.trie.paths, labels.names, strict=True)}
    for edge, (token, parent) in enumerate(zip(labels.trie.token, labels.trie.parent, strict=True)):
        name = f" → {leaves[edge + 1]}" if edge + 1 in leaves else ""
        branches[edge + 1] = branches[int(parent)].add(escape(f"{decode(int(token))}{name}"))
    return root
