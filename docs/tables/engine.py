"""The engine's speed beside llama-bench, file by file in turns.

usage: python3 docs/tables/engine.py GRIST LLAMA_BENCH THREADS PROMPT GENERATED TURNS FILE.gguf...

Each program measures each file TURNS times, in turns; the medians are given, in tokens a second, and their ratio.
GRIST_CPU chooses the instruction set of grist.
"""

import json
import statistics
import subprocess
import sys


def run(command):
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def main():
    grist, bench, threads, prompt, generated, turns, *files = sys.argv[1:]
    sizes = ["-p", prompt, "-n", generated, "-r", "1"]
    print("| type | prompt | llama.cpp | ratio | generation | llama.cpp | ratio | anonymous MiB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for file in files:
        rates, memory = [], 0
        for _ in range(int(turns)):
            (ours,) = run([grist, "bench", file, "-j", threads, "--json", *sizes])["models"]
            theirs = run([bench, "-m", file, "-t", threads, "-o", "json", *sizes])
            memory = max(memory, ours["anonymous_bytes"])
            rates.append((
                ours["prompt_tokens_per_second"],
                next(test["avg_ts"] for test in theirs if test["n_prompt"]),
                ours["generation_tokens_per_second"],
                next(test["avg_ts"] for test in theirs if test["n_gen"]),
            ))
        prompt_ours, prompt_peer, generation_ours, generation_peer = (statistics.median(rate) for rate in zip(*rates))
        print(f"| {ours['type']} | {prompt_ours:.0f} | {prompt_peer:.0f} | {prompt_ours / prompt_peer:.2f} "
              f"| {generation_ours:.1f} | {generation_peer:.1f} | {generation_ours / generation_peer:.2f} "
              f"| {memory / 2**20:.0f} |", flush=True)


main()
