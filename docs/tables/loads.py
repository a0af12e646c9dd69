"""Whether llama.cpp reads every preset at effort `best`, and finds the same perplexity.

usage: python3 docs/tables/loads.py GRIST LLAMA_PERPLEXITY IMATRIX [--chunks N] [--presets A,B]

Each preset of fixtures/novelist-6m is made with the importance matrix IMATRIX and measured by both programs on the first
chunks of the held-out text. Exits 1 if one does not load or if perplexities differ by more than 0.5 %.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

FIXTURE = pathlib.Path(__file__).parents[2] / "fixtures" / "novelist-6m"
TEXT = FIXTURE / "heldout.txt"
PRESETS = (
    "Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 IQ4_NL IQ4_XS Q3_K_L Q3_K_M Q3_K_S IQ3_M IQ3_S IQ3_XS "
    "IQ3_XXS Q2_K Q2_K_S IQ2_M IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S Q2_0 TQ2_0 TQ1_0 Q1_0 MXFP4_MOE F16 BF16"
).split()
MOST = 0.005


def theirs(command):
    """Perplexity by llama-perplexity, whose last line is sometimes lost."""
    for _ in range(3):
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        found = re.search(r"Final estimate: PPL = ([0-9.]+)", run.stdout)
        if found:
            return float(found[1])
    return float("nan")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("grist")
    parser.add_argument("peer")
    parser.add_argument("imatrix")
    parser.add_argument("--chunks", default="6")
    parser.add_argument("--presets", default=",".join(PRESETS))
    options = parser.parse_args()
    presets = options.presets.split(",")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        run = [options.grist, "quantize", FIXTURE, "--imatrix", options.imatrix, "-q"]
        print("| preset | grist | llama.cpp | difference |")
        print("|---|---|---|---|")
        for preset in presets:
            file = pathlib.Path(folder) / f"{preset}.gguf"
            subprocess.run([*run, "--types", preset, "-o", file], check=True, stdout=subprocess.DEVNULL)
            measure = [options.grist, "perplexity", file, "-f", TEXT, "-c", "512", "--chunks", options.chunks, "--json", "-q"]
            ours = json.loads(subprocess.run(measure, check=True, stdout=subprocess.PIPE).stdout)["perplexity"]
            peer = theirs([options.peer, "-m", file, "-f", TEXT, "-c", "512", "--chunks", options.chunks])
            difference = peer / ours - 1
            # Not a number is no agreement.
            worst = max(worst, abs(difference)) if difference == difference else float("inf")
            print(f"| {preset} | {ours:.4f} | {peer:.4f} | {100 * difference:+.2f} % |", flush=True)
            file.unlink()
    print(f"\nLargest difference {100 * worst:.2f} % of {len(presets)} presets.")
    sys.exit(worst > MOST)


main()
