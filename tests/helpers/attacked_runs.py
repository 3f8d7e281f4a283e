"""Every file of a run and of a backbone as a reader (`mutants.py`), from a finished run on tiny-llama."""

from __future__ import annotations

import copy
import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mutants import Reader, json_mutant, lines_mutant, mutated, restructured, yaml_mutant

from msekit.backbones.load import load_backbone
from msekit.inference.jsonl import predict_file
from msekit.inference.prediction import Prediction
from msekit.inference.restore import read_plug_in, restored_adapter
from msekit.reporter import Reporter
from msekit.reports.aggregate import aggregate
from msekit.reports.html import html_report
from msekit.reports.render import render_json, render_markdown, render_table
from msekit.reports.summary import show_summary
from msekit.runs.config import read_config
from msekit.runs.description import read_description, read_spec_of
from msekit.runs.files import ADAPTER, CONFIG, DESCRIPTION, METRICS, PREDICTIONS, REPORT, ROBUSTNESS, STATE
from msekit.runs.predictions import read_predictions
from msekit.runs.report import collect
from msekit.training.checkpoint import RunKey, load_state

FRAMES = np.linspace(-1, 1, 80, dtype=np.float32).reshape(5, 16)
LINES = [
    {"id": "a", "text": "hello", "audio": FRAMES.tolist()},
    {"text": "b"},
    {"id": 3, "text": "c", "vision": [[0.1] * 8] * 2},
]
QUIET = Reporter(quiet=True)


def changed(whole: Path, name: str, content: bytes, at: Path) -> Path:
    """A copy of a folder in which one file is another."""
    shutil.rmtree(at, ignore_errors=True)
    shutil.copytree(whole, at)
    (at / name).write_bytes(content)
    return at


def header_mutant(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header says otherwise what its bytes are."""
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    names = sorted(header.keys() - {"__metadata__"})
    one, other = rng.sample(names, 2)
    kind = rng.randrange(8)
    if kind == 0:
        header[one], header[other] = header[other], header[one]
    elif kind == 1:
        header[one]["data_offsets"] = header[other]["data_offsets"]
    elif kind == 2:
        header[one]["data_offsets"] = [0, 1 << 60]
    elif kind == 3:
        header[one]["shape"] = [1 << 31, 1 << 31]
    elif kind == 4:
        header[one]["dtype"] = rng.choice(["F16", "I32", "BOOL", "F64", "F8_E4M3", "C64", "X"])
    elif kind == 5:
        header[one]["shape"] = header[one]["shape"][::-1]
    elif kind == 6:
        header["zzz." + one] = header.pop(one)
    else:
        header["__metadata__"] = restructured(header.get("__metadata__", {}), rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def of_a_run(folder: Path, run: Path) -> list[Reader]:
    backbone, at = load_backbone("tiny-llama", device="cpu"), folder / "run"
    whole = {name: (run / name).read_bytes() for name in (ADAPTER, DESCRIPTION, CONFIG, REPORT, PREDICTIONS, METRICS)}
    state = (run / STATE).read_bytes()
    expected = read_plug_in(run, backbone).predict("hello there", FRAMES)
    configured, predicted = read_config(run), read_predictions(run, read_spec_of(run))
    adapter = restored_adapter(run, read_description(run))
    size = struct.unpack("<Q", state[:8])[0]
    written = json.loads(state[8 : 8 + size])["__metadata__"]["run_key"]
    key = RunKey(written, frozenset({written}))
    resumed = load_state(run, copy.deepcopy(adapter), key)
    (folder / ROBUSTNESS).write_text(
        json.dumps({"metrics": {"all there": {"wf1": 0.5}, "without audio": {"wf1": 0.4}}})
    )

    def predict(name: str) -> Callable[[bytes], Prediction]:
        return lambda content: read_plug_in(changed(run, name, content, at), backbone).predict("hello there", FRAMES)

    def other(prediction: Prediction) -> bool:
        return (prediction.scores, prediction.prediction) != (expected.scores, expected.prediction)

    def report(name: str, pages: bool = False) -> Callable[[bytes], None]:
        def use(content: bytes) -> None:
            reports = collect([changed(run, name, content, at)])
            groups = aggregate(reports)
            render_json(groups), render_markdown(groups), render_table(groups, QUIET)
            show_summary(at, [reports[0].values], QUIET)
            if pages:
                html_report([at])

        return use

    def resume(content: bytes) -> Any:
        return load_state(changed(run, STATE, content, at), copy.deepcopy(adapter), key)

    def resumes_otherwise(result: Any) -> bool:
        progress, groups = result
        return progress != resumed[0] or any(
            groups[group].keys() != tensors.keys()
            or any(not torch.equal(groups[group][n], t) for n, t in tensors.items())
            for group, tensors in resumed[1].items()
        )

    def answers(content: bytes) -> Any:
        return read_predictions(changed(run, PREDICTIONS, content, at), read_spec_of(run))

    def answers_otherwise(result: Any) -> bool:
        return result.ids != predicted.ids or not (
            np.array_equal(result.truth, predicted.truth)
            and np.array_equal(result.prediction, predicted.prediction)
            and np.array_equal(result.distribution, predicted.distribution)
        )

    def of_line(content: bytes) -> None:
        (folder / "lines.jsonl").write_bytes(content)
        lines = predict_file(
            read_plug_in(run, backbone),
            folder / "lines.jsonl",
            lambda one: _json(one.record()),
            complain=lambda *_: None,
        )
        assert lines.predicted + len(lines.failed) == sum(bool(line.strip()) for line in content.split(b"\n"))

    def robust(content: bytes) -> None:
        html_report([changed(run, ROBUSTNESS, content, at)])

    given = "".join(json.dumps(line) + "\n" for line in LINES).encode()
    spread = (folder / ROBUSTNESS).read_bytes()

    def settings(content: bytes) -> Any:
        return read_config(changed(run, CONFIG, content, at))

    def set_otherwise(config: Any) -> bool:
        return config != configured

    tensors, described, configuration = whole[ADAPTER], whole[DESCRIPTION], whole[CONFIG]
    return [
        Reader("adapter.safetensors", tensors, mutated, predict(ADAPTER), other, True),
        Reader("adapter header", tensors, header_mutant, predict(ADAPTER), other, True),
        Reader("adapter.json", described, json_mutant, predict(DESCRIPTION), other, True),
        Reader("state.safetensors", state, mutated, resume, resumes_otherwise, True),
        Reader("state header", state, header_mutant, resume, resumes_otherwise, True),
        Reader("config.yaml", configuration, yaml_mutant, settings, set_otherwise, True),
        Reader("config.yaml in a report", configuration, yaml_mutant, report(CONFIG)),
        Reader("report.json", whole[REPORT], json_mutant, report(REPORT)),
        Reader("metrics.jsonl", whole[METRICS], lines_mutant, report(METRICS, pages=True)),
        Reader("robustness.json", spread, json_mutant, robust),
        Reader("predictions", whole[PREDICTIONS], lines_mutant, answers, answers_otherwise, True),
        Reader("lines to predict", given, lines_mutant, of_line),
    ]


def of_a_backbone(folder: Path, run: Path) -> list[Reader]:
    whole = Path(str(load_backbone("tiny-llama", device="cpu").model.config._name_or_path))
    at = folder / "backbone"
    expected = read_plug_in(run, load_backbone(str(whole), device="cpu")).predict("hello there", FRAMES)

    class Told:
        """A prediction, and whether the plug-in noticed another backbone."""

        def __init__(self, name: str, content: bytes) -> None:
            backbone = load_backbone(str(changed(whole, name, content, at)), device="cpu")
            plug_in = read_plug_in(run, backbone)
            self.told, self.scores = bool(plug_in.notices), plug_in.predict("hello there", FRAMES).scores

    def reader(name: str) -> Reader:
        data = (whole / name).read_bytes()
        make = json_mutant if name.endswith(".json") else mutated
        return Reader(
            f"backbone {name}",
            data,
            make,
            lambda content: Told(name, content),
            lambda found: found.scores != expected.scores,
            True,
        )

    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
    return [reader(name) for name in names if (whole / name).is_file()]


def _json(record: dict[str, Any]) -> str:
    """A line of the output, which programs read."""
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode().decode()
    except UnicodeEncodeError as error:
        raise AssertionError("an answer cannot be written") from error
