"""Hidden states in the cache: equal to those made on the spot, shared, whole or not at all, whoever builds them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from as_on_gpu import bound

from msekit.backbones.backbone import Backbone
from msekit.backbones.hidden_states import StatesWanted, read_states
from msekit.backbones.load import load_backbone
from msekit.data.batches.batch import Collator
from msekit.data.cache.cache import prepare
from msekit.data.cache.states import PART
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError, StoppedError
from msekit.model.stored_states import StatesTable, states_table
from msekit.model.text_states import FreshStates
from msekit.reporter import Reporter

QUIET = Reporter(quiet=True)
WANTED = StatesWanted((0, 2, 1), (65, 66))
APART = {"fp32": 1e-5, "bf16": bound(2e-3, 2e-2)}
"""Of the largest value; bf16's own rounding is 4e-3. A GPU's attention rounds with the batch."""


def drawn(count: int = 600, seed: int = 0) -> tuple[list[list[int]], list[int]]:
    """Texts in tokens, some of them equal, one of them empty, and the tokens of context in each."""
    generator = np.random.default_rng(seed)
    texts = [generator.integers(3, 250, length).tolist() for length in generator.integers(0, 40, count)]
    texts[3], texts[-1] = [], texts[0]
    contexts = generator.integers(0, 3, count).tolist()
    return texts, [min(context, len(text)) for context, text in zip(contexts, texts, strict=True)]


def folders(root: Path) -> list[Path]:
    """What lies among the states, without lock files."""
    return sorted(path for path in (root / "states").iterdir() if path.suffix != ".lock")


def stamps(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("part-*")}


def everything(table: StatesTable | FreshStates, count: int = 600) -> torch.Tensor:
    return table(range(count))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_cached_ones_are_those_made_on_the_spot(dtype: str, tmp_path: Path) -> None:
    backbone = load_backbone("tiny-llama", dtype=dtype, device="cpu")
    texts, contexts = drawn()
    cached = states_table(backbone, texts, contexts, WANTED, QUIET, tmp_path)
    fresh = FreshStates(backbone, texts, np.array(contexts), WANTED)
    some = [7, 3, 599, 0, 300, 7]
    for states in (cached(some), fresh(some)):
        assert states.shape == (len(some), 3, 2, backbone.text_dim)
        assert states.dtype == torch.float32
    assert cached.width == fresh.width == backbone.text_dim
    exact = read_states(backbone, texts, contexts, WANTED)
    largest = exact.abs().max()
    assert (everything(fresh) - exact).abs().max() <= APART[dtype] * largest
    assert (everything(cached) - exact).abs().max() <= APART[dtype] * largest
    (folder,) = folders(tmp_path)
    stored = sum(file.stat().st_size for file in folder.glob("part-*"))
    numbers = len({(tuple(text), context) for text, context in zip(texts, contexts, strict=True)}) * 3 * 2
    each = backbone.text_dim * 4 if dtype == "fp32" else backbone.text_dim * 2 + 4
    assert stored == pytest.approx(numbers * each, rel=0.05), "equal texts are stored once"


def test_values_beyond_the_range_of_float16_keep_their_digits(tmp_path: Path) -> None:
    backbone = load_backbone("tiny-llama", dtype="bf16", device="cpu")
    backbone.model.get_input_embeddings().weight.data.mul_(1e7)
    texts, contexts = drawn(20)
    states = everything(states_table(backbone, texts, contexts, WANTED, QUIET, tmp_path), 20)
    exact = read_states(backbone, texts, contexts, WANTED)
    assert exact.abs().max() > 1e6
    assert (states - exact).abs().max() <= 1e-3 * exact.abs().max()


def test_the_same_texts_share_their_states_and_others_do_not(tiny: Backbone, tmp_path: Path) -> None:
    texts, contexts = drawn()
    table = states_table(tiny, texts, contexts, WANTED, QUIET, tmp_path)
    before = stamps(folders(tmp_path)[0])
    turned = states_table(tiny, texts[::-1], contexts[::-1], WANTED, QUIET, tmp_path)
    assert torch.equal(everything(turned).flip(0), everything(table))
    assert [stamps(folder) for folder in folders(tmp_path)] == [before]
    otherwise = "fp32" if tiny.model.dtype == torch.bfloat16 else "bf16"
    other_held = load_backbone("tiny-llama", dtype=otherwise, device="cpu")
    others = [
        (tiny, texts[:9], contexts[:9], WANTED),
        (tiny, texts, None, WANTED),
        (tiny, texts, contexts, StatesWanted((0, 2, 1), (65,))),
        (tiny, texts, contexts, StatesWanted((2, 1), (65, 66))),
        (other_held, texts, contexts, WANTED),
    ]
    for number, (backbone, other, context, wanted) in enumerate(others, start=2):
        states_table(backbone, other, context, wanted, QUIET, tmp_path)
        assert len(folders(tmp_path)) == number


@pytest.mark.parametrize("victim", ["part-00001-*", "info.json"])
def test_a_damaged_file_is_made_again_and_no_other(victim: str, tiny: Backbone, tmp_path: Path) -> None:
    texts, contexts = drawn()
    states = everything(states_table(tiny, texts, contexts, WANTED, QUIET, tmp_path))
    (folder,) = folders(tmp_path)
    before = stamps(folder)
    (file,) = folder.glob(victim)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    after = states_table(tiny, texts, contexts, WANTED, QUIET, tmp_path)
    assert torch.equal(everything(after), states)
    assert folders(tmp_path) == [folder]
    assert {name for name, time in stamps(folder).items() if before[name] != time} == set(
        [file.name] if victim.startswith("part") else []
    )


def test_a_build_stops_between_parts_and_goes_on_where_it_was(tiny: Backbone, tmp_path: Path) -> None:
    texts, contexts = drawn()
    asked = 0

    def heed() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        states_table(tiny, texts, contexts, WANTED, QUIET, tmp_path, heed)
    (kept,) = (tmp_path / "states").glob(".*.build/part-*")
    written = kept.stat().st_mtime_ns
    states_table(tiny, texts, contexts, WANTED, QUIET, tmp_path)
    (folder,) = folders(tmp_path)
    assert (folder / kept.name).stat().st_mtime_ns == written


def test_a_cache_that_cannot_be_written_is_said(tiny: Backbone, tmp_path: Path) -> None:
    (tmp_path / "states").write_text("a file")
    with pytest.raises(MsekitError, match="cannot be written"):
        states_table(tiny, *drawn(5), WANTED, QUIET, tmp_path)


def test_builds_that_were_stopped_long_ago_go(tiny: Backbone, tmp_path: Path) -> None:
    for name, days in (("old", 8), ("new", 6)):
        leftover = tmp_path / "states" / f".{name}.build"
        leftover.mkdir(parents=True)
        os.utime(leftover, (time.time() - days * 86400,) * 2)
    states_table(tiny, *drawn(5), WANTED, QUIET, tmp_path)
    assert [folder.name for folder in folders(tmp_path) if folder.name.startswith(".")] == [".new.build"]


def test_a_batch_carries_them(tiny: Backbone, tmp_path: Path) -> None:
    split = prepare(DATASETS["synthetic-erc"], root=tmp_path).split("valid")
    texts = tiny.encode_all(split.texts)
    labels = split.labels.astype(np.int64)
    table = states_table(tiny, texts, None, WANTED, QUIET, tmp_path)
    batch = Collator(split, texts, labels, states=table)([4, 2])
    assert batch.text_states is not None
    assert torch.equal(batch.text_states, table([4, 2]))
    assert batch.to(torch.device("cpu")).text_states is not None
    assert Collator(split, texts, labels)([4, 2]).text_states is None


BUILD = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/../helpers"]
import torch
from test_stored_states import WANTED, drawn, everything
from msekit.backbones.load import load_backbone
from msekit.distributed.accelerator import leave_group
from msekit.model.stored_states import states_table
from msekit.reporter import Reporter

class Counted(Reporter):
    @contextmanager
    def bar(self, text, total, start=0):
        def advance(steps, figures=""):
            sys.stderr.write(f"{steps} ")
            sys.stderr.flush()
            if sys.argv[3] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
        yield advance

if sys.argv[3] == "sharded":
    from msekit.distributed.accelerator import accelerator_for
    from msekit.settings.config import BackboneConfig
    from msekit.training.build import load_frozen
    accelerator = accelerator_for(torch.device("cpu"))
    backbone = load_frozen("tiny-llama", BackboneConfig(dtype="fp32"), False)
    assert all(hasattr(weight, "ds_id") for weight in backbone.model.parameters())
else:
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    backbone = load_backbone("tiny-llama", device="cpu")
texts, contexts = drawn()
table = states_table(backbone, texts, contexts, WANTED, Counted(quiet=True), Path(sys.argv[1]))
sys.stdout.write(f"{everything(table).double().sum():.6f}")
if "RANK" in os.environ:
    leave_group()
"""


def start(root: Path, how: str = "", **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(root), str(Path(__file__).parent), how]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=os.environ | environment)


@pytest.mark.multiprocess
class TestProcesses:
    def test_a_killed_build_goes_on_where_it_was(self, tiny: Backbone, tmp_path: Path) -> None:
        process = start(tmp_path, "killed")
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        (left,) = folders(tmp_path)
        assert left.name.startswith(".")
        before = stamps(left)
        assert len(before) == 1
        texts, contexts = drawn()
        time.sleep(0.01)
        table = states_table(tiny, texts, contexts, WANTED, QUIET, tmp_path)
        (folder,) = folders(tmp_path)
        assert before.items() < stamps(folder).items()
        fresh = everything(FreshStates(tiny, texts, contexts, WANTED))
        assert (everything(table) - fresh).abs().max() <= APART["fp32"] * fresh.abs().max()

    def test_two_builders_share_the_work_of_one(self, tmp_path: Path) -> None:
        processes = [start(tmp_path) for _ in range(2)]
        outputs = [process.communicate() for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
        assert len({out for out, _ in outputs}) == 1
        assert sorted(error.count(" ") for _, error in outputs) == [0, -(-600 // PART)]
        assert len(folders(tmp_path)) == 1

    @pytest.mark.parametrize("local_ranks", ["01", "00"])
    def test_processes_of_a_run_take_turns(self, local_ranks: str, tiny: Backbone, tmp_path: Path) -> None:
        """On one machine, and on two that share a file system."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks = zip("01", local_ranks, strict=True)
        processes = [start(tmp_path, RANK=rank, LOCAL_RANK=local, **where) for rank, local in ranks]
        try:
            outputs = [process.communicate(timeout=120) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0, 0], outputs
        alone = everything(states_table(tiny, *drawn(), WANTED, QUIET, tmp_path / "alone"))
        together = everything(states_table(tiny, *drawn(), WANTED, QUIET, tmp_path))
        assert torch.equal(alone, together)
        assert {float(out) for out, _ in outputs} == {round(float(alone.double().sum()), 6)}
        assert [len(error.split()) for _, error in outputs] == [2, 2], "three parts, two at a time"

    @pytest.mark.slow
    def test_processes_that_hold_half_the_weights_each(self, tiny: Backbone, tmp_path: Path) -> None:
        """ZeRO-3: a pass is a collective operation, and one process has a part less to make."""
        (tmp_path / "build.py").write_text(BUILD)
        settings = Path(__file__).parents[2] / "launch" / "zero3.yaml"
        launch = ["-m", "accelerate.commands.launch", "--config_file", str(settings), "--num_processes", "2"]
        command = [sys.executable, *launch, str(tmp_path / "build.py"), str(tmp_path), str(Path(__file__).parent)]
        done = subprocess.run([*command, "sharded"], capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        (folder,) = folders(tmp_path)
        before = stamps(folder)
        table = states_table(tiny, *drawn(), WANTED, QUIET, tmp_path)
        assert stamps(folder) == before
        fresh = everything(FreshStates(tiny, *drawn(), WANTED))
        assert (everything(table) - fresh).abs().max() <= APART["fp32"] * fresh.abs().max()
