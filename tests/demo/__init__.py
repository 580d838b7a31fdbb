"""`make demo`: the whole relay on one machine, checked from outside."""
