#!/usr/bin/env python3
"""Writes "word TAB 1" for each word on standard input."""
import sys

lines = 0
for line in sys.stdin.buffer:
    lines += 1
    for word in line.split():
        sys.stdout.buffer.write(word + b"\t1\n")
print(f"reporter:counter:WordCount,lines,{lines}", file=sys.stderr)
