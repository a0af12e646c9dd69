"""The speed table: our encoders and decoders against ggml's encoders, one core each, type by type in turns.

usage: python3 docs/tables/speed.py CODECS LIBGGML_BASE.so [TYPE...]

CODECS is the bench program (`cargo bench -p gristmill-quantize --bench codecs --no-run` prints its path); GRIST_CPU
chooses its instruction set. Encoding is in million weights a second of CPU time, the best of two turns, in brackets how
many times ggml's with the same importance; `best` is compared with ggml's encoder with importance, which searches
longest. Decoding is in GB of f32 a second, in brackets as a share of memcpy's. Takes about four minutes.
"""

import pathlib
import re
import subprocess
import sys

BENCHES = pathlib.Path(__file__).parents[2] / "quantize" / "benches"
TURNS = 2


def run(command, name):
    """The line above the table, and the figures of one type."""
    text = subprocess.run(command + [name], check=True, stdout=subprocess.PIPE, text=True).stdout
    line = next(line for line in text.splitlines() if line.upper().startswith(f"| {name.upper()} |"))
    return text.splitlines()[0], [float(field or "nan") for field in line.replace(" ", "").split("|")[2:-1]]


def most(turns):
    return [max(figures) for figures in zip(*turns)]


def main():
    codecs, library, *types = sys.argv[1:]
    ggml = [sys.executable, str(BENCHES / "ggml.py"), library]
    if not types:
        types = subprocess.run(ggml + ["--list"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    print("| type | ggml, importance | reference | best | ggml, none | reference | best | decode GB/s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in types:
        ours, theirs, copies = [], [], []
        for _ in range(TURNS):
            head, figures = run([codecs, "--bench"], name)
            ours.append(figures)
            copies.append(float(re.search(r"memcpy writes ([0-9.]+)", head)[1]))
            theirs.append(run(ggml, name)[1])
        reference, best, plain, plain_best, decode = most(ours)
        weighted, unweighted = most(theirs)

        def against(speed, peer):
            return f"{speed:.1f} ({speed / peer:.2g})" if speed == speed else ""

        print(f"| {name} | {weighted} | {against(reference, weighted)} | {against(best, weighted)} "
              f"| {unweighted if unweighted == unweighted else ''} | {against(plain, unweighted)} "
              f"| {against(plain_best, weighted)} | {against(decode, max(copies))} |", flush=True)
    print()
    print(head)


main()
