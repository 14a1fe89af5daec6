"""Import of published axes: untrusted files, the sign by evidence, floors from ceilings."""
