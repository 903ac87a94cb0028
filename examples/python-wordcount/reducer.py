#!/usr/bin/env python3
"""Adds up the counts of each word: lines "word TAB n", sorted by word, on standard input.

Its output has the form of its input, so it serves as combiner, too.
"""
import sys
from itertools import groupby


def pairs():
    for line in sys.stdin.buffer:
        word, _, n = line.rstrip(b"\n").partition(b"\t")
        yield word, int(n)


for word, counts in groupby(pairs(), key=lambda pair: pair[0]):
    total = sum(n for _, n in counts)
    sys.stdout.buffer.write(word + b"\t" + str(total).encode() + b"\n")
