"""Einsum of two factors becomes a product that computes the same, or stays."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.graph.channels import Channels
from compressor.graph.einsum import Expanded
from compressor.graph.model import Model
from compressor.graph.refusals import set_aside
from compressor.graph.simplify import simplify
from compressor.runtime.shapes import observe_shapes
from tests.models import Array, floats, graph, load, outputs, run

SIZES = dict(zip("abcdefh", (2, 3, 4, 5, 6, 7, 8), strict=True))

BY_A_CONSTANT = [
    "abc,cd->abd",
    "abc,dc->abd",
    "abc,cd->adb",
    "abc,cde->abde",
    "abc,dce->adbe",
    "abcd,cde->abe",
    "abcd,dce->abe",
    "acbd,cde->abe",
    "abc,cd",
    "abc,c->ab",
    "ab,cd->abcd",
    "abcd,cdef->abef",
    "abc,bcd->da",
    "a b c, c d -> a b d",
]

OF_TWO_MATRICES = [
    "abcd,abed->abce",
    "abce,abed->abcd",
    "abcd,aebd->abce",
    "ab,bc->ac",
    "abcd,abed->aecb",
]

STAYS = {
    "of three": ("abc,cd,de->abe", "float[2,3,4] x, float[4,5] z, float[5,6] u => float[n,m,k] y"),
    "of one": ("abc->acb", "float[2,3,4] x => float[n,m,k] y"),
    "a diagonal": ("abb,bc->ac", "float[2,3,3] x, float[3,5] z => float[n,m] y"),
    "a letter that is only summed": ("abc,cd->ad", "float[2,3,4] x, float[4,5] z => float[n,m] y"),
    "an outer product": ("ab,cd->abcd", "float[2,3] x, float[4,5] z => float[n,m,k,l] y"),
    "entry by entry": ("ab,ab->ab", "float[2,3] x, float[2,3] z => float[n,m] y"),
    "rows of two axes": ("abc,bd->acd", "float[2,3,4] x, float[3,5] z => float[n,m,k] y"),
    "dots": ("...b,bc->...c", "float[2,3] x, float[3,5] z => float[n,m] y"),
    "lengths that nobody knows": ("ab,bc->ac", "float[2,p] x, float[q,5] z => float[n,m] y"),
    "an axis that is stretched": ("ab,bc->ac", "float[2,1] x, float[3,5] z => float[n,m] y"),
}


def _swapped(equation: str) -> str:
    first, second = equation.partition("->")[0].split(",")
    return f"{second},{first}->{equation.partition('->')[2] or 'abd'}"


def _sizes(term: str) -> tuple[int, ...]:
    return tuple(SIZES[letter] for letter in term)


def _rank(equation: str) -> int:
    left, arrow, right = equation.replace(" ", "").partition("->")
    letters = left.replace(",", "")
    return len(right) if arrow else sum(letters.count(letter) == 1 for letter in letters)


def _open(rank: int) -> str:
    return ",".join("nmklij"[:rank])


def _check(proto: onnx.ModelProto, model: Model, feeds: dict[str, Array], folder: Path) -> list[Expanded]:
    """Simplify, and compare with what ONNX Runtime's Einsum makes."""
    wanted = run(proto, feeds)
    found = [entry for entry in simplify(model) if isinstance(entry, Expanded)]
    made = outputs(model, feeds, folder)
    assert list(made) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_allclose(made[name], array, rtol=1e-5, atol=1e-5)
    return found


@pytest.mark.parametrize("equation", [*BY_A_CONSTANT, *map(_swapped, BY_A_CONSTANT)])
@pytest.mark.parametrize("opened", [False, True], ids=["known lengths", "open batch"])
def test_a_factor_times_a_constant_is_a_product(equation: str, opened: bool, tmp_path: Path) -> None:
    last = equation in BY_A_CONSTANT
    first, second = equation.replace(" ", "").partition("->")[0].split(",")[:: 1 if last else -1]
    shape = ["s" if opened and i == 0 else str(SIZES[letter]) for i, letter in enumerate(first)]
    body = f'[layer] y = Einsum<equation="{equation}">({"x, w" if last else "w, x"})'
    rng = np.random.default_rng(0)
    proto = graph(
        f"float[{','.join(shape)}] x => float[{_open(_rank(equation))}] y", body, w=floats(rng, *_sizes(second))
    )
    model = load(proto, tmp_path)
    found = _check(proto, model, {"x": floats(rng, *_sizes(first))}, tmp_path)
    assert [entry.layer for entry in found] == ["layer"]
    (weight,) = model.weights()
    assert (weight.name, weight.layer, weight.value.name) == ("layer", "MatMul", "w")
    assert weight.matrix().size == np.prod(_sizes(second))


@pytest.mark.parametrize("equation", OF_TWO_MATRICES)
def test_a_matrix_times_a_matrix_is_a_product(equation: str, tmp_path: Path) -> None:
    first, second = equation.partition("->")[0].split(",")
    lengths = [f"float[{','.join(str(n) for n in _sizes(term))}]" for term in (first, second)]
    signature = f"{lengths[0]} x, {lengths[1]} z => float[{_open(_rank(equation))}] y"
    proto = graph(signature, f'y = Einsum<equation="{equation}">(x, z)')
    model, rng = load(proto, tmp_path), np.random.default_rng(0)
    feeds = {"x": floats(rng, *_sizes(first)), "z": floats(rng, *_sizes(second))}
    _check(proto, model, feeds, tmp_path)
    assert model.node_counts()["MatMul"] == 1
    assert not model.node_counts()["Einsum"]


@pytest.mark.parametrize("case", STAYS)
def test_what_is_no_product_stays(case: str, tmp_path: Path) -> None:
    equation, signature = STAYS[case]
    names = [word for word in ("x", "z", "u") if f"] {word}" in signature]
    proto = graph(signature, f'y = Einsum<equation="{equation}">({", ".join(names)})')
    model = load(proto, tmp_path)
    assert not [entry for entry in simplify(model) if isinstance(entry, Expanded)]
    assert model.node_counts()["Einsum"] == 1


def test_a_constant_that_is_stretched_stays(tmp_path: Path) -> None:
    proto = graph(
        "float[2,3] x => float[2,5] y",
        'y = Einsum<equation="ab,bc->ac">(x, w)',
        w=floats(np.random.default_rng(0), 1, 5),
    )
    model = load(proto, tmp_path)
    assert not [entry for entry in simplify(model) if isinstance(entry, Expanded)]


def test_a_weight_that_is_read_twice_is_not_changed_for_the_other(tmp_path: Path, rng: np.random.Generator) -> None:
    body = 'p = Einsum<equation="ab,cb->ac">(x, w) q = MatMul(x, w) y = Sub(p, q)'
    proto = graph("float[2,5] x => float[2,5] y", body, w=floats(rng, 5, 5))
    _check(proto, load(proto, tmp_path), {"x": floats(rng, 2, 5)}, tmp_path)


def test_attention_by_einsum_is_pruned_and_quantized_like_any_other(tmp_path: Path, rng: np.random.Generator) -> None:
    """As Keras exports it: three axes in, heads and their entries out, and back."""
    body = """q = Einsum<equation="abc,cde->abde">(x, wq)
        k = Einsum<equation="abc,cde->abde">(x, wk)
        v = Einsum<equation="abc,cde->abde">(x, wv)
        s = Einsum<equation="aecd,abcd->acbe">(k, q)
        p = Softmax<axis=-1>(s)
        o = Einsum<equation="acbe,aecd->abcd">(p, v)
        y = Einsum<equation="abcd,cde->abe">(o, wo)"""
    arrays = {name: floats(rng, 16, 4, 8) / 4 for name in ("wq", "wk", "wv")} | {"wo": floats(rng, 4, 8, 16)}
    proto = graph("float[n,6,16] x => float[n,6,16] y", body, **arrays)
    model, feeds = load(proto, tmp_path), {"x": floats(rng, 3, 6, 16)}
    assert len(_check(proto, model, feeds, tmp_path)) == 6
    assert [weight.layer for weight in model.weights()] == ["MatMul"] * 4
    channels = Channels.of(model, observe_shapes(model, feeds, tmp_path))
    assert {group.kind for group in channels.groups} >= {"heads"}


def test_names_that_are_taken_are_left_to_those_that_have_them(tmp_path: Path, rng: np.random.Generator) -> None:
    body = """layer_product = Relu(x)  layer_input = Neg(x)  s = Add(layer_product, layer_input)
        [layer] p = Einsum<equation="abc,cd->dba">(s, w)  y = Add(p, v)"""
    arrays = {"w": floats(rng, 4, 5), "v": floats(rng, 5, 3, 2)}
    proto = graph("float[2,3,4] x => float[5,3,2] y", body, **arrays)
    _check(proto, load(proto, tmp_path), {"x": floats(rng, 2, 3, 4)}, tmp_path)


@pytest.mark.parametrize(
    ("equation", "shape", "said"),
    [("abc,cd->abd", (4, 5), "put simplify before this pass"), ("abc,bcd->abd", (3, 4, 5), "not one product")],
)
def test_a_layer_that_other_passes_do_not_see_is_named(
    equation: str, shape: tuple[int, ...], said: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    body = f'[layer] y = Einsum<equation="{equation}">(x, w)'
    model = load(graph("float[2,3,4] x => float[2,3,5] y", body, w=floats(rng, *shape)), tmp_path)
    ((name, layer, reason),) = set_aside(model)
    assert (name, layer) == ("layer", "Einsum")
    assert said in reason
