"""Import of published axes: read untrusted files, decide the sign by evidence, turn ceilings into floors."""
