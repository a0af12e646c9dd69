//! Speed of every type on one core: `cargo bench -p gristmill-quantize --bench codecs [-- TYPE…]`;
//! `GRIST_CPU` chooses the instruction set. `benches/ggml.py` prints the same for ggml.
//!
//! Encoding is in million weights a second, at effort `reference` and `best`, with importance and
//! without; decoding in GB of f32 a second, to be compared with `memcpy` in the first line. Times are
//! CPU times where the system tells them, the best of three runs.

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::Instant;

use gristmill_gguf::TensorType;
use gristmill_quantize::Isa;
use gristmill_quantize::types::{self, Effort, ImportanceUse};

const ROW: usize = 4096;
const ROWS: usize = 64;
/// A run takes at least so long.
const SECONDS: f64 = 0.1;

/// Time that this thread has spent on a CPU; since the first call where the system does not tell.
fn cpu_seconds() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let wall = START.elapsed().as_secs_f64();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = stat
        .split(' ')
        .next()
        .and_then(|field| field.parse::<f64>().ok());
    nanoseconds.map_or(wall, |nanoseconds| nanoseconds * 1e-9)
}

/// Runs of `work` a second, the best of three tries.
fn rate(mut work: impl FnMut()) -> f64 {
    (0..3).fold(0.0, |best: f64, _| {
        let start = cpu_seconds();
        let mut runs = 0.0;
        loop {
            work();
            runs += 1.0;
            let elapsed = cpu_seconds() - start;
            if elapsed > SECONDS {
                return best.max(runs / elapsed);
            }
        }
    })
}

/// Sums of uniforms from a linear congruential generator: roughly Gaussian.
fn gaussian(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..len)
        .map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0)
        .collect()
}

fn main() {
    let asked: Vec<TensorType> = std::env::args()
        .skip(1)
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let values: Vec<f32> = gaussian(1, ROW * ROWS).iter().map(|x| 0.02 * x).collect();
    let importance: Vec<f32> = gaussian(2, ROW).iter().map(|x| x.exp()).collect();
    let mut copy = vec![0.0f32; values.len()];
    let gigabytes = values.len() as f64 * 4e-9;
    let memcpy = gigabytes * rate(|| copy.copy_from_slice(black_box(&values)));
    let isa = Isa::detect().map_or_else(|error| error.to_string(), |isa| isa.to_string());
    println!("instruction set {isa}; memcpy writes {memcpy:.1} GB/s");
    println!();
    println!(
        "| type | reference, importance | best, importance | reference | best | decode GB/s |"
    );
    println!("|---|---|---|---|---|---|");
    for ty in types::supported().filter(|ty| asked.is_empty() || asked.contains(ty)) {
        let layout = ty.layout();
        let mut bytes = vec![0; values.len() / layout.values * layout.bytes];
        let required = types::importance_use(ty) == Ok(ImportanceUse::Required);
        print!("| {ty} |");
        for importance in [Some(importance.as_slice()), None] {
            for effort in [Effort::Reference, Effort::Best] {
                if required && importance.is_none() {
                    print!(" |");
                    continue;
                }
                let speed = rate(|| {
                    types::encode(ty, effort, black_box(&values), ROW, importance, &mut bytes)
                        .expect("sizes fit");
                });
                print!(" {:.1} |", speed * values.len() as f64 * 1e-6);
            }
        }
        let decode = rate(|| {
            types::decode(ty, black_box(&bytes), &mut copy).expect("sizes fit");
        });
        println!(" {:.1} |", gigabytes * decode);
    }
}
