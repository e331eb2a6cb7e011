"""The parts of a model that learn at rates of their own."""


def part_of(name: str) -> str:
    """Part of the model that a parameter belongs to, by its name: head, gates, alignment, ..."""
    if name.startswith("head."):
        return "head"
    words = name.split(".")
    if "gate" in words[:-1]:
        return "gates"
    return "alignment" if words[-1] == "alignment" else "backbone"
