"""Each rival against its equations, stated once more in NumPy, one sample or dialogue at a time, without padding."""

from __future__ import annotations

import numpy as np
import plain_layers as p
import pytest
import torch
from rival_samples import CLASSES, DIALOGUES, INTENSITY, SPEAKERS, STATES, WIDTHS, batch, plain

from msekit.baselines import emocaps, ga2mif, lfmim, misa, mm_dfn, mmgcn, mult, pmr
from msekit.baselines.trainer import make_network

NAMES = ("text", "audio", "vision")


def model_of(name, sizes=CLASSES):
    torch.manual_seed(0)
    network = make_network(name, sizes).double().eval()
    for parameter in network.parameters():  # none is left at zero or one, where an error would not show
        torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim == 1 else None
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    return network, weights


def words_or_states(w, sizes, sample, prefix):
    """What a system reads token by token."""
    if sizes.text_width is None:
        return w[f"{prefix}.table.weight"][sample["words"]]
    x = sample["tokens"]
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)


def sentence(w, sizes, sample):
    """What a system reads of the whole text."""
    if sizes.text_width is None:
        (table,) = (x for name, x in w.items() if name.endswith("sentence.words.table.weight"))
        return table[sample["words"]].mean(axis=0)
    x = sample["sentence"]
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def projected(w, sizes, sample):
    text = words_or_states(w, sizes, sample, "projected.words")
    given = {"text": text, "audio": sample["audio"], "vision": sample["vision"]}
    return {name: p.lin(w, f"projected.maps.{name}", x) for name, x in given.items()}


def mult_of(w, sizes, sample):
    z, lasts = projected(w, sizes, sample), []
    for target in NAMES:
        if not len(z[target]):
            lasts.append(np.zeros(2 * mult.WIDTH))
            continue
        crossed = [
            p.encoder(w, f"crossed.{target}_{source}", z[target], z[source], mult.HEADS, mult.LAYERS)
            for source in NAMES
            if source != target
        ]
        joined = np.concatenate(crossed, axis=1)
        lasts.append(p.encoder(w, f"memory.{target}", joined, None, mult.HEADS, mult.LAYERS)[-1])
    h = np.concatenate(lasts)
    return p.lin(w, "output", h + p.lin(w, "second", p.relu(p.lin(w, "first", h))))


def eft_of(w, sizes, sample):
    z = projected(w, sizes, sample)
    x = np.concatenate([p.opened(z[n]) + w[f"kinds.{n}"] for n in NAMES])
    x = p.encoder(w, "encoder", x, None, 4, 4, scaled=False)
    return p.chain(w, "output", x.mean(axis=0), (0, 3))


def lft_of(w, sizes, sample):
    z = projected(w, sizes, sample)
    means = [p.encoder(w, f"encoders.{n}", z[n], None, 4, 4).mean(axis=0) if len(z[n]) else np.zeros(64) for n in NAMES]
    return p.chain(w, "output", np.concatenate(means), (0, 3))


def pmr_of(w, sizes, sample):
    def unit(name, target, source):
        own, cross = (p.attend(w, f"{name}.{k}", target, s, pmr.HEADS) for k, s in (("own", target), ("cross", source)))
        gate = p.sigmoid(p.lin(w, f"{name}.gate_own", own) + p.lin(w, f"{name}.gate_cross", cross))
        x = p.norm(w, f"{name}.norms.0", target + gate * cross + (1 - gate) * own)
        return p.norm(w, f"{name}.norms.1", x + p.chain(w, f"{name}.feed", x, (0, 3)))

    z = {n: p.opened(x) for n, x in projected(w, sizes, sample).items()}
    hub = np.concatenate(list(z.values()))
    for i in range(pmr.LAYERS):
        z = {n: unit(f"layers.{i}.down.{n}", x, hub) for n, x in z.items()}
        there = [n for n in NAMES if len(z[n])]
        ups = [unit(f"layers.{i}.up.{n}", hub, z[n]) for n in there]
        scores = [
            p.lin(w, f"layers.{i}.outer", np.tanh(p.lin(w, f"layers.{i}.inner", up.mean(axis=0))))[0] for up in ups
        ]
        hub = sum(share * up for share, up in zip(p.softmax(np.array(scores)), ups, strict=True))
        hub = p.norm(w, f"layers.{i}.norm", hub + p.chain(w, f"layers.{i}.feed", hub, (0, 3)))
    every = np.concatenate([hub, *z.values()])
    pooled = p.encoder(w, "joined", every, None, pmr.HEADS, 1, scaled=False).mean(axis=0)
    return p.lin(w, "output", pooled + p.chain(w, "residual", pooled, (0, 3)))


def lfmim_of(w, sizes, sample):
    def block(name, x):
        if not len(x):
            return x
        own = p.norm(w, f"{name}.norms.0", x)
        x = x + p.norm(w, f"{name}.norms.1", p.attend(w, f"{name}.attention", own, own, lfmim.HEADS))
        return x + p.norm(w, f"{name}.norms.3", p.chain(w, f"{name}.feed", p.norm(w, f"{name}.norms.2", x), (0, 3)))

    def opened(x):
        x = p.norm(w, "opening_norms.0", np.sqrt(lfmim.WIDTH) * x) + p.sinusoids(*x.shape)
        return p.norm(w, "opening_norms.1", x)

    def pool(name, x):
        if not len(x):
            return np.zeros(lfmim.WIDTH)
        x = p.norm(w, f"norms.{name}", x)
        return p.softmax(x @ w[f"pools.{name}.score.weight"][0]) @ x

    z = projected(w, sizes, sample)
    towers = {n: opened(np.concatenate([w[f"starts.{n}"], z[n]])) if len(z[n]) else z[n][:0] for n in NAMES}
    own, parts = opened(w["own"]), dict(towers)
    for i in range(lfmim.LAYERS):
        if i:
            parts = {n: w[f"weights.{n}"][0] * parts[n] + w[f"weights.{n}"][1] * towers[n] for n in NAMES}
        joined = block(f"multimodal.{i}", np.concatenate([own, *parts.values()]))
        for n in NAMES:
            for number in (2 * i, 2 * i + 1) if n == "vision" else (i,):
                towers[n] = block(f"towers.{n}.{number}", towers[n])
        ends = np.cumsum([len(own), *(len(parts[n]) for n in NAMES)])
        own, *rest = np.split(joined, ends[:-1])
        parts = dict(zip(NAMES, rest, strict=True))
    pooled = [pool(n, towers[n]) for n in NAMES] + [pool("all", joined)]
    return p.chain(w, "output", np.concatenate(pooled), (0, 3, 6, 9))


def misa_of(w, sizes, sample):
    def two_lstms(name, x):
        if not len(x):
            return np.zeros(w[f"maps.{name}.0.weight"].shape[1])
        low, high = f"encoders.{name}.lower.rnn", f"encoders.{name}.upper.rnn"
        states = p.both_ways(w, low, x, 1)
        above = p.norm(w, f"encoders.{name}.norm", states)
        ends = [p.lstm(w, low, x)[-1], p.lstm(w, low, x, "l0_reverse")[0]]
        ends += [p.lstm(w, high, above)[-1], p.lstm(w, high, above, "l0_reverse")[0]]
        return np.concatenate(ends)

    vectors = {"text": sentence(w, sizes, sample)} | {n: two_lstms(n, sample[n]) for n in WIDTHS}
    came = {n: p.norm(w, f"maps.{n}.2", p.relu(p.lin(w, f"maps.{n}.0", x))) for n, x in vectors.items()}
    own = [p.sigmoid(p.lin(w, f"private.{n}", x)) for n, x in came.items()]
    shared = [p.sigmoid(p.lin(w, "shared", x)) for x in came.values()]
    there = [n == "text" or len(sample[n]) > 0 for n in NAMES] * 2
    x = np.stack([*own, *shared])
    qkv = x @ w["fusion.self_attn.in_proj_weight"].T + w["fusion.self_attn.in_proj_bias"]
    q, k, v = np.split(qkv, 3, axis=1)
    heard = p.lin(w, "fusion.self_attn.out_proj", p.heads_of(q, k[there], v[there], misa.HEADS))
    x = p.norm(w, "fusion.norm1", x + heard)
    x = p.norm(w, "fusion.norm2", x + p.lin(w, "fusion.linear2", p.relu(p.lin(w, "fusion.linear1", x))))
    x[~np.array(there)] = 0
    return p.lin(w, "output.3", p.relu(p.lin(w, "output.0", x.reshape(-1))))


def self_mm_of(w, sizes, sample):
    vectors = [sentence(w, sizes, sample)]
    for n in WIDTHS:
        x = sample[n]
        vectors.append(p.lin(w, f"vectors.{n}", p.lstm(w, f"encoders.{n}.rnn", x)[-1]) if len(x) else np.zeros(32))
    x = np.concatenate(vectors)
    for part in ("first", "second"):
        x = p.relu(p.lin(w, f"heads.multimodal.{part}", x))
    return p.lin(w, "heads.multimodal.output", x)


def mmim_of(w, sizes, sample):
    vectors = [p.norm(w, "text.1", p.lin(w, "text.0", sentence(w, sizes, sample)))]
    for n in WIDTHS:
        x, name = sample[n], f"encoders.{n}.rnn"
        if not len(x):
            vectors.append(np.zeros(16))
            continue
        ends = np.concatenate([p.lstm(w, name, x)[-1], p.lstm(w, name, x, "l0_reverse")[0]])
        vectors.append(p.lin(w, f"vectors.{n}", ends))
    z = np.tanh(p.lin(w, "fuse.2", np.tanh(p.lin(w, "fuse.0", np.concatenate(vectors)))))
    return p.lin(w, "output", z)


def av_mixup_of(w, sizes, sample):
    features = []
    for n in NAMES:
        if n == "text":
            x = p.lin(w, "text", sentence(w, sizes, sample))
        else:
            there = len(sample[n]) > 0
            x, norm = p.mean(sample[n], sizes.widths[n]), f"norms.{n}.norm"
            x = (x - w[f"{norm}.running_mean"]) / np.sqrt(w[f"{norm}.running_var"] + 1e-5)
            x = (x * w[f"{norm}.weight"] + w[f"{norm}.bias"]) * there
            for place in (1, 3, 5):
                x = p.relu(p.lin(w, f"towers.{n}.{place}", x))
        feature = p.relu(p.lin(w, f"features.{n}.3", p.relu(p.lin(w, f"features.{n}.1", x))))
        features.append(feature * (n == "text" or len(sample[n]) > 0))
    x = np.concatenate(features)
    for place in (1, 2, 3):
        x = p.lin(w, f"fusion.{place}", x)
    return -3 + 6 * p.sigmoid(x) if sizes.span else x


ONE_BY_ONE = {
    "mult": (mult_of, CLASSES),
    "eft": (eft_of, CLASSES),
    "lft": (lft_of, CLASSES),
    "pmr": (pmr_of, CLASSES),
    "lfmim": (lfmim_of, CLASSES),
    "misa": (misa_of, CLASSES),
    "self-mm": (self_mm_of, INTENSITY),
    "mmim": (mmim_of, INTENSITY),
    "av-mixup": (av_mixup_of, INTENSITY),
}


@pytest.mark.parametrize("states", [False, True], ids=["words", "states"])
@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_a_system_is_what_its_equations_say(name, states):
    stated, sizes = ONE_BY_ONE[name]
    if states:
        sizes = STATES if sizes is CLASSES else INTENSITY.__class__(**{**vars(INTENSITY), "text_width": 7})
    network, w = model_of(name, sizes)
    given = batch()
    with torch.no_grad():
        outputs = network(given).numpy()
    for place in range(len(outputs)):
        np.testing.assert_allclose(outputs[place], stated(w, sizes, plain(given, place)), rtol=1e-5, atol=1e-7)


def angle_graph_of(nodes, there):
    """Node by node: within a modality all utterances, between modalities the same one."""
    size, total = len(nodes[0]), sum(len(x) for x in nodes)
    every, present = np.concatenate(nodes), np.concatenate(there)
    weights = np.zeros((total, total))
    for i in range(total):
        for j in range(total):
            joined = i // size == j // size or i % size == j % size
            if joined and present[i] and present[j]:
                cosine = every[i] @ every[j] / (np.linalg.norm(every[i]) * np.linalg.norm(every[j]))
                weights[i, j] = 1 - np.arccos(0.99999 * cosine) / np.pi
    degree = weights.sum(axis=1)
    root = np.array([1 / np.sqrt(d) if d else 0 for d in degree])
    return root[:, None] * weights * root[None]


def graph_layers(w, x, graph, layers, alpha, lam, memory):
    first = h = p.relu(p.lin(w, "graph.opening", x))
    state = carry = np.zeros_like(h)
    for number in range(1, layers + 1):
        theta, weight = np.log(lam / number + 1), w[f"graph.layers.{number - 1}.weight"]
        below = h
        if memory:
            gates = h @ w["graph.cell.weight_ih"].T + w["graph.cell.bias_ih"]
            gates = gates + state @ w["graph.cell.weight_hh"].T + w["graph.cell.bias_hh"]
            i, f, g, o = np.split(gates, 4, axis=1)
            carry = p.sigmoid(f) * carry + p.sigmoid(i) * np.tanh(g)
            below = state = p.sigmoid(o) * np.tanh(carry)
        around = graph @ below
        mixed = (1 - alpha) * around + alpha * first
        h_new = p.relu(theta * np.concatenate([around, first], axis=1) @ weight + (1 - theta) * mixed)
        h = h_new + h if memory else h_new
    return np.concatenate([x, h], axis=1)


def dialogue_vectors(w, sizes, samples, cell):
    texts = np.stack([sentence(w, sizes, s) for s in samples])
    there = [np.ones(len(samples)) > 0, *(np.array([len(s[n]) > 0 for s in samples]) for n in WIDTHS)]
    vectors = [p.both_ways(w, "utterances.context.encoder.rnn", p.lin(w, "utterances.maps.text", texts), 2, cell)]
    for n, has in zip(WIDTHS, there[1:], strict=True):
        means = np.stack([p.mean(s[n], WIDTHS[n]) for s in samples])
        vectors.append(p.lin(w, f"utterances.maps.{n}", means) * has[:, None])
    return vectors, there


def classified(w, found, there, size):
    found = found * np.concatenate(there)[:, None]
    joined = np.concatenate([found[i * size : (i + 1) * size] for i in range(3)], axis=1)
    return p.lin(w, "output", p.relu(joined))


def mmgcn_of(w, sizes, samples, speakers):
    vectors, there = dialogue_vectors(w, sizes, samples, p.lstm)
    vectors[0] = vectors[0] + w["speakers.weight"][speakers]
    graph = angle_graph_of(vectors, there)
    found = graph_layers(w, np.concatenate(vectors), graph, mmgcn.LAYERS, mmgcn.ALPHA, mmgcn.LAMBDA, memory=False)
    return classified(w, found, there, len(samples))


def mm_dfn_of(w, sizes, samples, speakers):
    vectors, there = dialogue_vectors(w, sizes, samples, p.gru)
    for number, (x, has) in enumerate(zip(vectors, there, strict=True)):
        said = np.zeros_like(x)
        for speaker in set(speakers):
            own = [i for i, one in enumerate(speakers) if one == speaker]
            said[own] = p.both_ways(w, "parties.encoder.rnn", x[own], 2, p.gru)
        vectors[number] = (x + said) * has[:, None]
    graph = angle_graph_of(vectors, there)
    found = graph_layers(w, np.concatenate(vectors), graph, mm_dfn.LAYERS, mm_dfn.ALPHA, mm_dfn.LAMBDA, memory=True)
    return classified(w, found, there, len(samples))


def ga2mif_of(w, sizes, samples, speakers):
    def attention_over_neighbours(name, x, has):
        left, right = p.lin(w, f"{name}.left", x), p.lin(w, f"{name}.right", x)
        result = np.tile(w[f"{name}.bias"], (len(x), 1)).copy()
        for i in range(len(x)):
            near = [j for j in range(len(x)) if abs(i - j) <= ga2mif.WINDOW and has[i] and has[j]]
            for head in range(ga2mif.GRAPH_HEADS if near else 0):
                at = slice(head * 200, (head + 1) * 200)
                raw = np.stack([right[i, at] + left[j, at] for j in near])
                shares = p.softmax(np.where(raw > 0, raw, 0.2 * raw) @ w[f"{name}.score"][head])
                result[i] += shares @ left[near][:, at] / ga2mif.GRAPH_HEADS
        return result

    texts = np.stack([sentence(w, sizes, s) for s in samples])
    text = p.both_ways(w, "context.encoder.rnn", p.lin(w, "maps.text", texts), 2)
    vectors = {"text": p.lin(w, "after_context", text)}
    there = {"text": np.ones(len(samples)) > 0}
    for n in WIDTHS:
        vectors[n] = np.tanh(p.lin(w, f"maps.{n}", np.stack([p.mean(s[n], WIDTHS[n]) for s in samples])))
        there[n] = np.array([len(s[n]) > 0 for s in samples])
    for n in NAMES:
        x = vectors[n] + 1.6 * w["speakers.weight"][speakers]
        for i in range(ga2mif.GRAPH_LAYERS):
            heard = attention_over_neighbours(f"graphs.{n}.layers.{i}", x, there[n])
            x = p.norm(w, f"graphs.{n}.norms.{i}", x + heard)
        vectors[n] = x
    for i in range(ga2mif.CROSS_LAYERS):
        found = {}
        for n in NAMES:
            heard = 0
            for other in NAMES:
                if other != n:
                    part = p.attend(
                        w, f"crossed.{i}.pairs.{n}_{other}", vectors[other], vectors[n][there[n]], ga2mif.CROSS_HEADS
                    )
                    heard = heard + part * there[other][:, None]
            x = p.norm(w, f"crossed.{i}.norms.{n}.0", vectors[n] + heard)
            found[n] = p.norm(w, f"crossed.{i}.norms.{n}.1", x + p.chain(w, f"crossed.{i}.feeds.{n}", x, (0, 3)))
        vectors = found
    joined = np.concatenate([vectors[n] * there[n][:, None] for n in NAMES], axis=1)
    return p.lin(w, "output", p.lin(w, "joined", joined))


def emocaps_of(w, sizes, samples, speakers):
    texts = np.stack([sentence(w, sizes, s) for s in samples])
    parts = [texts]
    for n in NAMES:
        has = np.array([n == "text" or len(s[n]) > 0 for s in samples])
        x = texts if n == "text" else np.stack([p.mean(s[n], WIDTHS[n]) for s in samples])
        x = p.opened(p.lin(w, f"emoformers.{n}.opening", x))
        for i in range(emocaps.LAYERS):
            name = f"emoformers.{n}.encoder.blocks.{i}"
            own = p.norm(w, f"{name}.norms.0", x)
            x = x + p.attend(w, f"{name}.attention", own, own[has], emocaps.HEADS)
            x = x + p.lin(w, f"{name}.second", p.relu(p.lin(w, f"{name}.first", p.norm(w, f"{name}.norms.1", x))))
        x = p.norm(w, f"emoformers.{n}.encoder.norm", x)
        parts.append(p.chain(w, f"emoformers.{n}.mapping", x, (0, 3, 6, 9, 12), p.gelu) * has[:, None])
    states = p.both_ways(w, "context.encoder.rnn", np.concatenate(parts, axis=1), 2)
    return p.chain(w, "output", states, (0, 3))


@pytest.mark.parametrize("states", [False, True], ids=["words", "states"])
@pytest.mark.parametrize(
    ("name", "stated"),
    [("mmgcn", mmgcn_of), ("mm-dfn", mm_dfn_of), ("ga2mif", ga2mif_of), ("emocaps", emocaps_of)],
)
def test_a_system_over_dialogues_is_what_its_equations_say(name, stated, states):
    sizes = STATES if states else CLASSES
    network, w = model_of(name, sizes)
    given = batch()
    with torch.no_grad():
        outputs = network(given).numpy()
    for dialogue in (0, 1):
        places = [place for place, its in enumerate(DIALOGUES) if its == dialogue]
        expected = stated(w, sizes, [plain(given, place) for place in places], [SPEAKERS[place] for place in places])
        np.testing.assert_allclose(outputs[places], expected, rtol=1e-5, atol=1e-7)
