"""The fifteen aspect ratios of text-conditional generators (facts section 4), as templates of height over width."""

# Cut to three decimals, as the release does: the rotary positions of a grid depend on them.
TEMPLATES = (3.0, 2.5, 2.0, 1.777, 1.5, 1.333, 1.16, 1.0, 0.862, 0.75, 0.666, 0.562, 0.5, 0.4, 0.333)


def nearest_template(ratio: float) -> float:
    """The template nearest to a height over width."""
    return min(TEMPLATES, key=lambda template: abs(template - ratio))
