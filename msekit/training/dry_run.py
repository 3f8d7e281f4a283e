"""`train --dry-run`: the resolved run, and one sample exactly as the model will see it."""

from __future__ import annotations

from rich.table import Table
from rich.tree import Tree

from msekit.model.answers import Asked
from msekit.reporter import Reporter, seen
from msekit.settings.config import RunConfig
from msekit.settings.resolve import dump
from msekit.training.build import Parts, build
from msekit.training.decisions import as_decided
from msekit.training.fit import fitted


def show_run(config: RunConfig) -> None:
    """Show the settings, every token of a training sample with mask and position, and the label trie.

    Raises:
        MsekitError: Whatever would stop the run at its start.
    """
    reporter, config = Reporter(), fitted(config)
    parts = build(config, reporter, splits=("train",))
    reporter.show("resolved run", dump(as_decided(config, parts)))
    reporter.show(sequence_table(parts))
    for one in parts.model.answers.asked:
        reporter.show(label_tree(one, parts.backbone.tokenizer))
    passes = parts.backbone.passes
    reporter.show(f"shorter ways through the LLM: {', '.join(passes.uses) or 'none'}")
    reporter.show(*(f"  not {way}: {reason}" for way, reason in passes.refused.items()))
    trainable = sum(parameter.numel() for parameter in parts.model.adapter.parameters())
    reporter.show(f"evaluation in batches of {parts.evaluation_batch}", f"{trainable:,} trainable parameters")
    reporter.note("nothing was trained, no run folder written")


def sequence_table(parts: Parts) -> Table:
    """The training sample with the longest context (the first where none has any), beside the longest: padding shows.

    A row per column of the batch's sequences, S of them, of which the first are padding of the shown sample.
    """
    collator = parts.collators["train"]
    token_counts, _ = collator.lengths()
    shown, longest = int(collator.context_lengths.argmax()), int(token_counts.argmax())
    batch = collator([shown, longest]).to(parts.backbone.device)
    decode, several = parts.backbone.tokenizer.convert_ids_to_tokens, parts.model.answers.several
    if several:  # the questions stand in the trees
        embeddings, mask, _ = parts.model.content(batch)
        sequence = parts.model.layout.with_answers(embeddings, mask, embeddings[:, :0], mask[:, 0] * 0)
    else:
        sequence = parts.model.laid_out(batch).sequence
    answer = [] if several else decode(parts.labels.tokens[int(batch.label[0])])
    padding = int(token_counts[longest]) - len(collator.text_ids[shown])
    columns = sequence.embeddings.shape[1]
    rows = [("padding", "")] * padding + sequence_parts(parts, shown) + [("label", token) for token in answer[:-1]]
    rows += [("", "")] * (columns - len(rows))
    first_target = columns - sequence.answers
    title = seen(f"training sample {collator.split.ids[shown]}")
    table = Table("column", "part", "token", "mask", "position", "loss target", title=title)
    if padding:
        table.add_row(f"0 – {padding - 1}", f"padding × {padding}", "", "0", "0", "")
    for column, (part, token) in enumerate(rows[padding:], start=padding):
        offset = column - first_target
        target = answer[offset] if 0 <= offset < len(answer) else ""
        figures = (str(int(values[0, column])) for values in (sequence.mask, sequence.positions))
        table.add_row(str(column), part, seen(token), *figures, seen(target))
    return table


def sequence_parts(parts: Parts, sample: int) -> list[tuple[str, str]]:
    """(part, token) of everything that a training sample's sequence holds before its answer, in order."""
    collator, layout = parts.collators["train"], parts.model.layout
    decode = parts.backbone.tokenizer.convert_ids_to_tokens
    text, context = collator.text_ids[sample], int(collator.context_lengths[sample])
    before, after = ("bos, opening tag", "closing tag, prompt")
    if layout.order == "prompt-first":
        before, after = ("bos, prompt, opening tag", "closing tag, cue")
    return [
        *((before, token) for token in decode(layout.opening)),
        *(("pseudo token", f"#{number}") for number in range(1, parts.model.adapter.pseudo_tokens + 1)),
        *(("context", token) for token in decode(text[:context])),
        *(("text", token) for token in decode(text[context:])),
        *((after, token) for token in decode(layout.closing)),
    ]


def label_tree(one: Asked, tokenizer: object) -> Tree:
    """A question's label trie, each leaf with the label's name; of several the words before it."""
    labels, decode = one.space, tokenizer.convert_ids_to_tokens  # type: ignore[attr-defined]
    size = f"label trie: {len(labels)} labels, {len(labels.trie.inner)} inner nodes"
    root = Tree(seen(f"{one.name}, {size}, behind {' '.join(decode(list(one.cue)))}") if one.name else size)
    branches = {0: root}
    leaves = {int(path.nonzero()[0][-1]) + 1: name for path, name in zip(labels.trie.paths, labels.names, strict=True)}
    for edge, (token, parent) in enumerate(zip(labels.trie.token, labels.trie.parent, strict=True)):
        name = f" → {leaves[edge + 1]}" if edge + 1 in leaves else ""
        branches[edge + 1] = branches[int(parent)].add(seen(f"{decode(int(token))}{name}"))
    return root
