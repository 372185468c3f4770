"""Which layers a selector means."""

import pytest

from compressor.errors import RecipeError
from compressor.graph.select import Selectors, matcher, unmatched

LAYERS = [(("block1.conv", "w1"), "Conv"), (("block2.conv", "w2"), "Conv"), (("head[0]", "w3"), "Gemm")]


def _chosen(targets: tuple[str, ...] = (), ignore: tuple[str, ...] = ()) -> list[str]:
    return [names[0] for names, layer in LAYERS if Selectors(targets, ignore).match(names, layer)]


@pytest.mark.parametrize(
    ("targets", "chosen"),
    [
        ((), ["block1.conv", "block2.conv", "head[0]"]),
        (("block1.conv",), ["block1.conv"]),
        (("w2",), ["block2.conv"]),
        (("Conv",), ["block1.conv", "block2.conv"]),
        (("conv",), []),
        (("block1",), []),
        (("block1xconv",), []),
        (("block?.conv",), ["block1.conv", "block2.conv"]),
        (("*",), ["block1.conv", "block2.conv", "head[0]"]),
        (("*.conv", "Gemm"), ["block1.conv", "block2.conv", "head[0]"]),
        (("head[0]",), ["head[0]"]),
        ((r"re:block\d\.conv",), ["block1.conv", "block2.conv"]),
        (("re:block1",), []),
        (("re:.*1.*",), ["block1.conv"]),
    ],
)
def test_a_selector_is_a_name_a_glob_a_whole_regular_expression_or_an_operator(
    targets: tuple[str, ...], chosen: list[str]
) -> None:
    assert _chosen(targets) == chosen


@pytest.mark.parametrize("ignore", [("block1.conv",), ("w1",), ("re:.*1.conv",), ("block1*",)])
def test_ignore_beats_targets(ignore: tuple[str, ...]) -> None:
    assert _chosen(("Conv", "block1.conv"), ignore) == ["block2.conv"]


def test_a_glob_takes_square_brackets_of_names_as_they_are() -> None:
    assert _chosen(("head[0]*",)) == ["head[0]"]


@pytest.mark.parametrize(
    ("selector", "near"),
    [("block1.convv", "block1.conv"), ("gemm", "Gemm"), ("re:.*head_0.*", "head[0]"), ("hea", "head[0]")],
)
def test_a_selector_that_matches_nothing_comes_with_the_nearest_name(selector: str, near: str) -> None:
    assert unmatched([selector, "Conv"], LAYERS).keys() == {selector}
    assert unmatched([selector], LAYERS)[selector][0] == near


def test_a_wrong_regular_expression_is_named() -> None:
    with pytest.raises(RecipeError, match=r'^"re:\(" is not a regular expression: .+$'):
        matcher("re:(")
