"""Several plug-ins on one backbone: each as alone, little memory, threads, and the LLM as it was."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

import msekit
from msekit.backbones.backbone import Backbone
from msekit.backbones.checkpoints.locate import checkpoint_folder
from msekit.backbones.load import load_backbone
from msekit.errors import MsekitError
from msekit.inference.restore import quantization_of

pytestmark = pytest.mark.slow  # the runs are trained first, in seconds

PROMPT = "The capital of France is"


def live_tensor_bytes() -> int:
    """Of every tensor in this process but oneDNN's copies of the LLM's weights, each storage once."""
    gc.collect()
    storages, compiling = {}, (FakeTensor, FunctionalTensor)  # what torch.compile leaves about
    for thing in gc.get_objects():
        if not issubclass(type(thing), torch.Tensor) or type(thing) in compiling:
            continue
        if not torch._is_functional_tensor(thing) and not thing.is_mkldnn:
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


@pytest.fixture(scope="module", params=["none", "nf4"])
def held(request: pytest.FixtureRequest, tiny) -> Backbone:
    """The tiny backbone, in full precision and in 4 bit."""
    if request.param == "none":
        return tiny
    try:
        return load_backbone("tiny-llama", request.param, device="cpu")
    except MsekitError as error:
        pytest.skip(str(error))


def bare(prompt: str, quantised: bool) -> tuple[torch.Tensor, str]:
    """Logits and greedy continuation of an LLM that never met a plug-in: plain transformers, or a 4-bit one of its own.

    (In 4 bit, plain transformers switches to another kernel on a CPU and answers a little differently.)
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = checkpoint_folder("tiny-llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if quantised:
        model = load_backbone("tiny-llama", "nf4", device="cpu").model
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        answer = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20)
        return model(ids).logits, tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True)


def test_two_plug_ins_on_one_backbone(erc_run: Path, msa_run: Path, erc_rows, msa_rows, held: Backbone):
    alone = {
        name: msekit.load_run(run, held).predict([row.text for row in rows[:20]], [row.audio for row in rows[:20]])
        for name, run, rows in (("emotion", erc_run, erc_rows), ("sentiment", msa_run, msa_rows))
    }
    host = msekit.PlugInHost(held)
    host.add("emotion", erc_run)
    before = live_tensor_bytes()
    second = host.add("sentiment", msa_run)
    grown = live_tensor_bytes() - before
    file_bytes = (msa_run / "adapter.safetensors").stat().st_size
    assert 0 < second.tensor_bytes() <= 1.05 * file_bytes
    assert 0 < grown <= 1.05 * file_bytes
    assert bool(second.notices) == (quantization_of(held) == "nf4")
    assert host.names == ["emotion", "sentiment"]
    for name, rows in (("sentiment", msa_rows), ("emotion", erc_rows), ("sentiment", msa_rows)):
        answers = host.predict(name, [row.text for row in rows[:20]], [row.audio for row in rows[:20]])
        assert [one.scores for one in answers] == [one.scores for one in alone[name]]


def test_ordinary_text_meets_no_plug_in(erc_run: Path, erc_rows, held: Backbone, tiny):
    logits, text = bare(PROMPT, quantised=held is not tiny)
    host = msekit.PlugInHost(held)
    ids = held.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    for _ in range(2):
        with torch.no_grad():
            assert torch.equal(held.model(ids).logits, logits), "every bit"
        assert host.generate(PROMPT, max_new_tokens=20) == text
        host.add("emotion", erc_run)
        host.predict("emotion", erc_rows[0].text, erc_rows[0].audio)
        assert host.generate(PROMPT, max_new_tokens=20) == text
        host.remove("emotion")


def test_threads_share_the_backbone(erc_run: Path, msa_run: Path, erc_rows, msa_rows, tiny):
    """Eight threads predict, generate, add and remove at once; every answer is the one given alone."""
    host = msekit.PlugInHost(tiny)
    host.add("emotion", erc_run)
    host.add("sentiment", msa_run)
    rows = {"emotion": erc_rows, "sentiment": msa_rows}
    jobs = [(name, i) for i in range(12) for name in rows]
    expected = {(n, i): host.predict(n, rows[n][i].text, rows[n][i].audio, rows[n][i].vision).scores for n, i in jobs}
    text = host.generate(PROMPT, max_new_tokens=8)
    barrier = threading.Barrier(8)

    def worker(number: int) -> None:
        barrier.wait(timeout=30)
        for step, (name, i) in enumerate(jobs[number::4] if number < 4 else jobs[::-1][number - 4 :: 4]):
            row = rows[name][i]
            assert host.predict(name, row.text, row.audio, row.vision).scores == expected[name, i]
            if step % 5 == 0:
                assert host.generate(PROMPT, max_new_tokens=8) == text
                host.add(f"own-{number}", erc_run)
                host.remove(f"own-{number}")

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(worker, number) for number in range(8)]:
            done.result(timeout=120)
    assert host.names == ["emotion", "sentiment"]


def test_names(erc_run: Path, tiny):
    host = msekit.PlugInHost(tiny)
    with pytest.raises(MsekitError, match="Add one first"):
        host.predict("emotion", "Well.")
    host.add("emotion", erc_run)
    with pytest.raises(MsekitError, match="there already"):
        host.add("emotion", erc_run)
    with pytest.raises(MsekitError, match="Did you mean emotion"):
        host.predict("emotoin", "Well.")
    host.remove("emotion")
    with pytest.raises(MsekitError, match="no plug-in named"):
        host.remove("emotion")


def test_an_empty_prompt_still_has_its_opening_token_or_is_refused(tiny):
    host = msekit.PlugInHost(tiny)
    if tiny.tokenizer("")["input_ids"]:
        assert isinstance(host.generate("", max_new_tokens=2), str)
    else:
        with pytest.raises(MsekitError, match="empty"):
            host.generate("")
