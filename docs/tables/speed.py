"""The speed table: our encoders and decoders against ggml's encoders, one core each, in one run.

usage: python3 docs/tables/speed.py CODECS LIBGGML_BASE.so [TYPE...]

CODECS is the bench program (`cargo bench -p gristmill-quantize --bench codecs --no-run` prints its path); GRIST_CPU
chooses its instruction set. Figures are million weights a second of CPU time; in brackets how many times ggml's.
"""

import pathlib
import subprocess
import sys

BENCHES = pathlib.Path(__file__).parents[2] / "quantize" / "benches"


def rows(command):
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("| ")]
    head = text.splitlines()[0]
    return head, {fields[0].strip().upper(): [field.strip() for field in fields[1:]] for fields in lines[1:]}


def main():
    codecs, library, *types = sys.argv[1:]
    head, ours = rows([codecs, "--bench", *types])
    _, ggml = rows([sys.executable, BENCHES / "ggml.py", library, *types])
    print(head)
    print()
    print("| type | ggml, importance | reference | best | ggml, none | reference | best | decode GB/s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (weighted, plain) in ggml.items():
        mine = ours[name]

        def against(at, theirs):
            if not theirs or not mine[at]:
                return ""
            return f"{mine[at]} ({float(mine[at]) / float(theirs):.1f})"

        print(f"| {name} | {weighted} | {against(0, weighted)} | {against(1, weighted)} | {plain} "
              f"| {against(2, plain)} | {against(3, plain)} | {mine[4]} |")


main()
