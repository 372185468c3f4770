"""Inputs in words."""

import pytest

from compressor.graph.torchscript.inputs import GivenInput, GivenNumber, draw, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x:float32[1,3,224,224]", GivenInput("x", "float32", (1, 3, 224, 224), (None,) * 4)),
        ("x: int64[ batch=2, 16 ]", GivenInput("x", "int64", (2, 16), ("batch", None))),
        ("layer.x:bool[]", GivenInput("layer.x", "bool", (), ())),
        ("rate=16000", GivenNumber("rate", 16000)),
        ("scale=-0.5", GivenNumber("scale", -0.5)),
        ("flag=true", GivenNumber("flag", True)),
    ],
)
def test_what_is_understood(text: str, expected: GivenInput | GivenNumber) -> None:
    found = parse(text)
    assert found == expected
    assert not isinstance(found, GivenNumber) or type(found.value) is type(getattr(expected, "value", None))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x", "x:|name:"),
        ("x:float32", "name:float32"),
        ("x:float32[1,a]", "whole numbers"),
        ("x:float32[-1]", "whole numbers"),
        ("x:float[1]", "float is no type"),
        ("rate=fast", "fast is no number"),
        ("", "name:float32"),
    ],
)
def test_what_is_not_says_how_to_write_it(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(text)


def test_drawn_inputs_are_the_same_each_time_and_of_the_type() -> None:
    assert draw("float32", (2, 3)).dtype == "float32"
    assert (draw("float32", (2, 3)) == draw("float32", (2, 3))).all()
    assert set(draw("int64", (100,)).tolist()) == {0, 1}
