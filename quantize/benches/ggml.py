"""Speed of ggml's encoders on one core, as `codecs.rs` prints it for ours.

usage: python3 quantize/benches/ggml.py LIBGGML_BASE.so [TYPE... | --list]
"""

import ctypes
import random
import sys
import time

ROW, ROWS = 4096, 16
TYPES = {
    "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24),
    "Q8_0": (8, 32, 34), "Q2_K": (10, 256, 84), "Q3_K": (11, 256, 110), "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210), "IQ2_XXS": (16, 256, 66),
    "IQ2_XS": (17, 256, 74), "IQ3_XXS": (18, 256, 98), "IQ1_S": (19, 256, 50),
    "IQ4_NL": (20, 32, 18), "IQ3_S": (21, 256, 110), "IQ2_S": (22, 256, 82),
    "IQ4_XS": (23, 256, 136), "IQ1_M": (29, 256, 56), "TQ1_0": (34, 256, 54),
    "TQ2_0": (35, 256, 66), "MXFP4": (39, 32, 17), "NVFP4": (40, 64, 36),
    "Q1_0": (41, 128, 18), "Q2_0": (42, 64, 18),
}
REQUIRED = {"IQ2_XXS", "IQ2_XS", "IQ1_S"}


def main():
    if sys.argv[2:] == ["--list"]:
        print(*TYPES)
        return
    ggml = ctypes.CDLL(sys.argv[1])
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]
    random.seed(1)
    values = (ctypes.c_float * (ROW * ROWS))(*(random.gauss(0, 0.02) for _ in range(ROW * ROWS)))
    importance = (ctypes.c_float * ROW)(*(random.lognormvariate(0, 1) for _ in range(ROW)))
    asked = {name.upper() for name in sys.argv[2:]} or set(TYPES)
    print("| type | importance | none |")
    print("|---|---|---|")
    for name, (ty, block, size) in TYPES.items():
        if name not in asked:
            continue
        out = ctypes.create_string_buffer(ROW * ROWS // block * size)
        speeds = []
        for weights in (importance, None):
            if weights is None and name in REQUIRED:
                speeds.append("")
                continue
            ggml.ggml_quantize_init(ty)
            best = 0.0
            for _ in range(3):
                start = time.thread_time()
                runs = 0
                while time.thread_time() - start < 0.1:
                    ggml.ggml_quantize_chunk(ty, values, out, 0, ROWS, ROW, weights)
                    runs += 1
                best = max(best, runs * ROW * ROWS / (time.thread_time() - start) / 1e6)
            speeds.append(f"{best:.2f}")
        print(f"| {name} | {speeds[0]} | {speeds[1]} |", flush=True)


main()
