"""ARNIQA's 24 distortions in 7 groups: KADID's less denoising and colour quantisation, and a second change of contrast."""

CONTRAST_B = 26  # the type that the bank lacks
# blur, colour, compression, noise, brightness, spatial, sharpness and contrast; types of the bank by number
GROUPS = ((1, 2, 3), (4, 5, 7, 8), (9, 10), (11, 12, 13, 14), (16, 17, 18), (19, 20, 21, 22, 23), (24, 25, CONTRAST_B))
TYPES = tuple(sorted(kind for group in GROUPS for kind in group))
LONGEST = len(GROUPS)


def groups_of(types: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The groups with these types alone; () is all."""
    kept = (tuple(kind for kind in group if not types or kind in types) for group in GROUPS)
    return tuple(group for group in kept if group)
