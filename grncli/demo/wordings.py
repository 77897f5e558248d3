"""What the drawings of ``grn shapes`` show, in five wordings each."""

PICTURE_WORDINGS = (
    "{a_colour} {shape}",
    "{a_shape} in {colour}",
    "a picture of {a_colour} {shape}",
    "the {shape} in this drawing is {colour}",
    "one {colour} {shape} and nothing else",
)
CLIP_WORDINGS = (
    "{a_colour} {shape} moves {direction}",
    "{a_colour} {shape} that moves {direction}",
    "{a_shape} in {colour} on its way {direction}",
    "a clip of {a_colour} {shape} moving {direction}",
    "the {colour} {shape} travels {direction}",
)
GROUP = "four-figures"
GROUP_WORDINGS = (
    "four small figures",
    "four figures, one in each corner",
    "a picture of four figures",
    "this drawing has four small figures in it",
    "four figures and nothing else",
)


def captions_of(name: str) -> list[str]:
    """Captions of a class, such as ``red-star`` of pictures, ``red-star-left`` of clips, or ``four-figures``."""
    if name == GROUP:
        return list(GROUP_WORDINGS)
    colour, shape, *rest = name.split("-")
    words = {"colour": colour, "shape": shape, "a_colour": _with_article(colour), "a_shape": _with_article(shape)}
    if not rest:
        return [wording.format(**words) for wording in PICTURE_WORDINGS]
    return [wording.format(**words, direction=rest[0]) for wording in CLIP_WORDINGS]


def _with_article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
