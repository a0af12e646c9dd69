"""The table of KL divergence of the fixture model: effort `reference` (llama.cpp's bytes) against effort `best`
for every preset, and recipes of the same size.

usage: python3 docs/tables/kl.py GRIST IMATRIX [-o docs/kl.md] [--text heldout|calibration] [--chunks N]
           [--presets A,B] [--targets A,B]

IMATRIX is an importance matrix of fixtures/novelist-6m over its calibration text. Measured files are remembered in
FOLDER/kl.json (--folder, default: a new one), so that an interrupted run goes on.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

FIXTURE = pathlib.Path(__file__).parents[2] / "fixtures" / "novelist-6m"
NEEDS_IMPORTANCE = "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M Q2_K_S IQ3_XXS IQ3_XS".split()
PRESETS = (
    "Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 IQ4_NL IQ4_XS Q3_K_L Q3_K_M Q3_K_S IQ3_M IQ3_S "
    "IQ3_XS IQ3_XXS Q2_K Q2_K_S IQ2_M IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S Q2_0 TQ2_0 TQ1_0 Q1_0"
).split()
TARGETS = "Q4_K_M IQ4_XS Q3_K_M IQ3_XXS Q2_K".split()


class Measurements:
    """Divergences by preset, importance and effort, kept in a file."""

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.file = folder / "kl.json"
        self.known = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.base = folder / "base.gguf"
        if not self.base.exists():
            self.grist("convert", FIXTURE, "--type", "f32", "-o", self.base)

    def grist(self, *arguments):
        command = [self.options.grist, *map(str, arguments), "-q"]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def measure(self, wanted):
        """`wanted` maps names to arguments of `grist quantize` for one file each."""
        files = {}
        for name, arguments in wanted.items():
            if name not in self.known:
                files[name] = self.folder / f"{name}.gguf"
                self.grist("quantize", self.base, *arguments, "-o", files[name], "--force")
        if files:
            report = json.loads(self.grist(
                "compare", self.base, *files.values(), "-f", FIXTURE / f"{self.options.text}.txt",
                "--chunks", self.options.chunks, "--exact", "--no-speed", "--json"))
            found = {variant["file"]: variant for variant in report["variants"]}
            for name, file in files.items():
                variant = found[file.name]
                self.known[name] = [variant["kl_mean"], variant["size_bytes"], variant["bits_per_weight"]]
                file.unlink()
            self.file.write_text(json.dumps(self.known, indent=1))
        return [self.known[name] for name in wanted]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("grist")
    parser.add_argument("imatrix")
    parser.add_argument("-o", "--output")
    parser.add_argument("--text", default="heldout")
    parser.add_argument("--chunks", type=int, default=104)
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--folder")
    options = parser.parse_args()
    folder = pathlib.Path(options.folder or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    runs = Measurements(options, folder)
    lines = [
        "# KL divergence of the fixture model",
        "",
        f"Made by `python3 docs/tables/kl.py GRIST IMATRIX --text {options.text} --chunks {options.chunks}`: mean KL divergence in",
        f"nats from the F32 model of `fixtures/novelist-6m` over {options.chunks} chunks of 512 tokens of its {options.text} text, in exact",
        "arithmetic (`grist compare --exact`). `reference` is llama.cpp's file, byte for byte.",
        "",
        "| preset | imatrix | bits per weight | reference | best | change |",
        "|---|---|---|---|---|---|",
    ]
    changes = []
    for preset in filter(None, options.presets.split(",")):
        wanted = {}
        for label, importance in [("imatrix", ["--imatrix", options.imatrix]), ("plain", [])]:
            if importance or preset not in NEEDS_IMPORTANCE:
                for effort in ["reference", "best"]:
                    wanted[f"{preset}-{label}-{effort}"] = ["--types", preset, "--effort", effort, *importance]
        # All at once, since the base is measured each time.
        found = dict(zip(wanted, runs.measure(wanted)))
        for label, yes in [("imatrix", "yes"), ("plain", "no")]:
            if f"{preset}-{label}-best" not in found:
                continue
            reference, _, bits = found[f"{preset}-{label}-reference"]
            best, _, _ = found[f"{preset}-{label}-best"]
            change = best / reference - 1
            changes.append((change, preset, label))
            lines.append(f"| {preset} | {yes} | {bits:.3f} | {reference:.6f} | {best:.6f} | {100 * change:+.1f} % |")
    if changes:
        worst = max(changes)
        lines += ["", f"Median {100 * statistics.median(c for c, *_ in changes):+.1f} %, worst {100 * worst[0]:+.1f} % ({worst[1]}, {worst[2]})."]
    if options.targets:
        lines += [
            "",
            "Recipes of the presets' sizes (`--target-size`, sensitivities from the calibration text), with the same matrix:",
            "",
            "| size of | bytes asked | bytes | reference | best | recipe | recipe to reference |",
            "|---|---|---|---|---|---|---|",
        ]
        importance = ["--imatrix", options.imatrix]
        for preset in options.targets.split(","):
            kinds = {f"{preset}-imatrix-{effort}": ["--types", preset, "--effort", effort, *importance] for effort in ["reference", "best"]}
            (reference, size, _), (best, _, _) = runs.measure(kinds)
            target = ["--target-size", size, "--calibration", FIXTURE / "calibration.txt", *importance]
            ((recipe, found, _),) = runs.measure({f"{preset}-imatrix-recipe": target})
            lines.append(f"| {preset} | {size} | {found} | {reference:.6f} | {best:.6f} | {recipe:.6f} | {100 * (recipe / reference - 1):+.1f} % |")
    text = "\n".join(lines) + "\n"
    if options.output:
        pathlib.Path(options.output).write_text(text)
    print(text, end="")


main()
