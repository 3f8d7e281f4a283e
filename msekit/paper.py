"""The paper's Tables 1–5 and its published settings as data, under this project's names.

Numbers stand as printed (accuracies and F1 in percent, MAE and correlation as they are, parameters in millions);
`evaluation.units.fraction` turns them into what this kit keeps. A cell that the paper leaves empty is absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PAPER_BACKBONES = ("qwen-1.8b", "llama2-7b", "chatglm3-6b")
PAPER_DATASETS = ("mosei", "sims-v2", "meld", "cherma")
_MODEL_NAMES = {"qwen-1.8b": "Qwen-1.8B", "llama2-7b": "LLaMA2-7B", "chatglm3-6b": "ChatGLM3-6B"}

Columns = tuple[tuple[str, str], ...]
"""(data set, metric) of every column."""


@dataclass(frozen=True)
class PaperRow:
    """One row of a table: a model, or an ablation."""

    model: str
    cells: dict[tuple[str, str], float]
    """(data set, metric) → the number as printed."""
    starred: bool = False
    """The paper marks its name with `*`; the caption says where such numbers come from."""
    parameters: float | None = None
    """Trainable parameters in millions (Table 5)."""


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper with its footnotes."""

    number: int
    caption: str
    footnotes: tuple[str, ...]
    columns: Columns
    rows: tuple[PaperRow, ...]

    def row(self, model: str) -> PaperRow:
        """The row of a model by its printed name, without `*`."""
        return next(row for row in self.rows if row.model == model)


def _rows(columns: Columns, lines: Sequence[tuple[str, str]]) -> tuple[PaperRow, ...]:
    """Rows from (name, cells separated by blanks); `.` is an empty cell, a name's final `*` is the paper's mark."""
    rows = []
    for name, printed in lines:
        cells = printed.split()
        assert len(cells) == len(columns), name
        values = {column: float(cell) for column, cell in zip(columns, cells, strict=True) if cell != "."}
        rows.append(PaperRow(name.rstrip("*"), values, starred=name.endswith("*")))
    return tuple(rows)


TABLE1: dict[tuple[str, str], float] = {
    (backbone, dataset): millions
    for backbone, line in {
        "qwen-1.8b": (1.35, 1.40, 1.35, 1.56),
        "llama2-7b": (2.63, 2.68, 2.63, 2.84),
        "chatglm3-6b": (2.63, 2.68, 2.63, 2.84),
    }.items()
    for dataset, millions in zip(PAPER_DATASETS, line, strict=True)
}
"""Table 1: (backbone, data set) → trainable parameters in millions."""

_MSA: Columns = tuple(("mosei", metric) for metric in ("acc2", "f1", "acc7", "mae", "corr")) + tuple(
    ("sims-v2", metric) for metric in ("acc2", "f1", "acc2_weak", "mae", "corr")
)
_ERC: Columns = (("meld", "acc"), ("meld", "wf1"), ("cherma", "acc"), ("cherma", "wf1"))
_ABLATION: Columns = (("meld", "acc"), ("meld", "wf1"), ("sims-v2", "acc2"), ("sims-v2", "f1"))
_RIVALS: Columns = (("mosei", "acc2"), ("mosei", "f1"), ("meld", "acc"), ("meld", "wf1"))

TABLE2 = PaperTable(
    number=2,
    caption="Results of the MSA task on MOSEI and SIMS-V2",
    footnotes=(
        "*: on MOSEI, from the repository of the MMSA benchmark; other models as their papers report.",
        "Baselines on SIMS-V2 are cited from Liu et al. 2022.",
        "MSE rows are means over the seeds 1111, 2222, 3333, 4444, 5555.",
    ),
    columns=_MSA,
    rows=_rows(
        _MSA,
        (
            ("TFN*", "78.50 78.96 51.60 0.573 0.714 76.51 76.31 66.27 0.323 0.667"),
            ("LMF*", "80.54 80.94 51.59 0.576 0.717 77.05 77.02 69.34 0.343 0.638"),
            ("MulT*", "81.15 81.56 52.84 0.559 0.733 79.50 79.59 69.61 0.317 0.703"),
            ("MAG-BERT*", "82.51 82.77 50.41 0.583 0.741 79.79 79.78 71.87 0.334 0.691"),
            ("MISA", "83.60 83.80 52.20 0.555 0.756 80.53 80.63 70.50 0.314 0.725"),
            ("Self-MM*", "82.81 82.53 53.46 0.530 0.765 79.01 78.89 71.87 0.335 0.640"),
            ("MMIM", "82.24 82.66 54.24 0.526 0.772 80.95 80.97 72.28 0.316 0.707"),
            ("AV-MC", ". . . . . 82.50 82.55 74.54 0.297 0.732"),
            ("CHFN", "83.70 83.90 54.30 0.525 0.778 . . . . ."),
            ("UniMSE", "85.86 85.79 54.39 0.523 0.773 . . . . ."),
            ("UniSA-GPT2", "71.02 . 41.36 0.838 . . . . . ."),
            ("UniSA-T5", "84.22 . 52.50 0.546 . . . . . ."),
            ("UniSA-BART", "84.93 . 50.03 0.587 . . . . . ."),
            ("MSE-Qwen-1.8B", "84.12 83.45 52.02 0.558 0.725 80.44 80.24 73.09 0.311 0.678"),
            ("MSE-LLaMA2-7B", "86.74 86.51 55.57 0.501 0.787 75.53 75.44 68.61 0.382 0.553"),
            ("MSE-ChatGLM3-6B", "86.91 86.77 54.56 0.515 0.783 83.77 83.76 75.24 0.296 0.720"),
        ),
    ),
)

TABLE3 = PaperTable(
    number=3,
    caption="Results of the ERC task on MELD and CHERMA",
    footnotes=(
        "*: on MELD, cited from Hu et al. 2022a; other models as their papers report.",
        "Baselines on CHERMA are cited from Sun et al. 2023b.",
        "MSE rows are means over the seeds 1111, 2222, 3333, 4444, 5555.",
    ),
    columns=_ERC,
    rows=_rows(
        _ERC,
        (
            ("TFN*", "60.77 57.74 . 68.37"),
            ("LMF*", "61.15 58.30 . 68.23"),
            ("EFT", ". . . 68.72"),
            ("LFT", ". . . 69.05"),
            ("MulT", ". . . 69.24"),
            ("PMR", ". . . 69.53"),
            ("LFMIM", ". . . 70.54"),
            ("MMGCN*", "60.42 58.31 . ."),
            ("MM-DFN*", "62.49 59.46 . ."),
            ("EmoCaps", ". 64.00 . ."),
            ("GA2MIF", "61.65 58.94 . ."),
            ("UniMSE", "65.09 65.51 . ."),
            ("UniSA-GPT2", "48.12 31.26 . ."),
            ("UniSA-T5", "64.52 62.17 . ."),
            ("UniSA-BART", "62.34 62.22 . ."),
            ("MSE-Qwen-1.8B", "62.18 59.87 70.38 70.21"),
            ("MSE-LLaMA2-7B", "65.14 63.66 71.58 71.41"),
            ("MSE-ChatGLM3-6B", "66.23 65.13 72.90 72.73"),
        ),
    ),
)

TABLE4 = PaperTable(
    number=4,
    caption="Ablations of MSE-ChatGLM3-6B on MELD and SIMS-V2",
    footnotes=(
        "w/o T: no TGM; the projected vision and audio vectors are added and go to the MSF.",
        "w/o A, V: random vectors stand in for vision and audio, and the model is trained anyway.",
        "Means over the seeds 1111, 2222, 3333, 4444, 5555.",
    ),
    columns=_ABLATION,
    rows=_rows(
        _ABLATION,
        (
            ("w/o A", "66.24 65.09 83.46 83.42"),
            ("w/o V", "66.13 65.00 78.84 78.68"),
            ("w/o T", "46.44 36.53 72.78 72.21"),
            ("w/o A, V", "57.11 53.92 76.54 75.98"),
            ("w/o TGM", "65.07 63.85 82.98 82.97"),
            ("w/o MSF", "62.72 61.75 81.37 81.32"),
            ("MSE-Adapter", "66.23 65.13 83.77 83.76"),
        ),
    ),
)

_RIVAL_ROWS = _rows(
    _RIVALS,
    (
        ("MAG-ChatGLM3-6B", "85.10 84.73 60.38 59.81"),
        ("CHFN-ChatGLM3-6B", "85.58 85.26 63.03 62.08"),
        ("MSE-ChatGLM3-6B", "86.91 86.77 66.23 65.13"),
    ),
)
TABLE5 = PaperTable(
    number=5,
    caption="Rival adapters on ChatGLM3-6B, MOSEI and MELD",
    footnotes=(
        "Hyperparameters of MAG and CHFN: their own papers' on MOSEI, set with reference to it elsewhere.",
        "The trainable parameters are those on MOSEI.",
    ),
    columns=_RIVALS,
    rows=tuple(
        PaperRow(row.model, row.cells, parameters=millions)
        for row, millions in zip(_RIVAL_ROWS, (34.47, 50.79, 2.63), strict=True)
    ),
)


def model_name(backbone: str) -> str:
    """A backbone's name as the paper prints it; the same name for a backbone that the paper does not use."""
    return _MODEL_NAMES.get(backbone, backbone)


def table_cells(table: PaperTable, model: str) -> dict[tuple[str, str], float]:
    """The printed numbers of a row; empty for a row that the table does not have."""
    return next((row.cells for row in table.rows if row.model == model), {})


def paper_row(backbone: str, dataset: str, adapter: str = "mse") -> dict[str, float]:
    """The paper's test results of one (backbone, data set) pair, as printed: accuracies and F1 in percent.

    Args:
        backbone: Catalogue name, `qwen-1.8b` for instance.
        dataset: Catalogue name, `sims-v2` for instance.
        adapter: `mse` (Tables 2 and 3), or `mag` and `chfn` (Table 5).

    Returns:
        Metric name → value; empty when the paper does not report the pair.
    """
    if backbone not in _MODEL_NAMES:
        return {}
    model = f"{adapter.upper()}-{_MODEL_NAMES[backbone]}"
    tables = (TABLE2, TABLE3) if adapter == "mse" else (TABLE5,)
    rows = [row for table in tables for row in table.rows if row.model == model]
    return {metric: value for row in rows for (name, metric), value in row.cells.items() if name == dataset}


def printed_parameters(backbone: str, dataset: str, adapter: str = "mse") -> float | None:
    """Trainable parameters in millions, as Table 1 prints them, or Table 5 for a rival; None where neither does."""
    if adapter == "mse":
        return TABLE1.get((backbone, dataset))
    if (backbone, dataset) != ("chatglm3-6b", "mosei") or adapter not in ("mag", "chfn"):
        return None
    return TABLE5.row(f"{adapter.upper()}-{_MODEL_NAMES[backbone]}").parameters


@dataclass(frozen=True)
class PublishedSettings:
    """The authors' settings for a pair. All pairs: AdamW, warm-up over 10 % of the steps, then cosine."""

    lr: float
    """Highest learning rate."""
    batch_size: int
    """Samples per optimiser step."""
    pseudo_tokens: int
    audio_hidden: int
    """Hidden size of the audio LSTM."""
    vision_hidden: int
    """Hidden size of the vision LSTM."""
    epochs: int
    """Epochs of the learning-rate schedule."""
    patience: int
    """Epochs without improvement of the validation metric after which training stops."""
    text_limit: int
    """Longest text in tokens."""


PUBLISHED: dict[tuple[str, str], PublishedSettings] = {
    ("qwen-1.8b", "mosei"): PublishedSettings(5e-3, 16, 4, 64, 32, 30, 10, 50),
    ("qwen-1.8b", "sims-v2"): PublishedSettings(5e-4, 16, 4, 64, 64, 30, 10, 50),
    # Table 1's size; the run behind Table 3 used 2 pseudo tokens and 32/16.
    ("qwen-1.8b", "meld"): PublishedSettings(5e-4, 16, 4, 64, 32, 50, 8, 65),
    ("qwen-1.8b", "cherma"): PublishedSettings(5e-3, 16, 4, 32, 16, 30, 8, 78),
    ("llama2-7b", "mosei"): PublishedSettings(5e-5, 8, 4, 64, 32, 30, 10, 50),
    ("llama2-7b", "sims-v2"): PublishedSettings(5e-5, 8, 4, 64, 64, 40, 10, 50),
    ("llama2-7b", "meld"): PublishedSettings(5e-4, 6, 4, 64, 32, 30, 8, 65),
    ("llama2-7b", "cherma"): PublishedSettings(5e-5, 6, 4, 32, 16, 30, 8, 78),
    ("chatglm3-6b", "mosei"): PublishedSettings(5e-5, 8, 4, 64, 32, 30, 10, 50),
    ("chatglm3-6b", "sims-v2"): PublishedSettings(5e-5, 8, 4, 64, 64, 80, 10, 50),
    ("chatglm3-6b", "meld"): PublishedSettings(5e-5, 8, 4, 64, 32, 90, 8, 65),
    ("chatglm3-6b", "cherma"): PublishedSettings(5e-5, 8, 4, 32, 16, 30, 8, 78),
}
"""(backbone, data set) → the defaults of that pair."""
