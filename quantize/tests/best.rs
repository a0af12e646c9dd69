//! Effort `best`: never worse than the reference, never shrunk, the same on every instruction set.

use gristmill_gguf::TensorType;
use gristmill_quantize::Isa;
use gristmill_quantize::types::{self, Effort, ImportanceUse};

const ROW: usize = 1024;

/// SplitMix64 with a Gaussian by the sum of uniforms: enough for test rows, the same everywhere.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
    }

    fn gaussian(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

/// Rows of many kinds: smooth, heavy-tailed, constant, sparse, with runs of zeros, tiny, huge.
fn rows() -> Vec<f32> {
    let mut random = Random(7);
    let mut rows = Vec::new();
    for kind in 0..10 {
        for i in 0..ROW {
            let x = random.gaussian();
            rows.push(match kind {
                0 => 0.02 * x,
                1 => 0.02 * x / (0.1 + random.uniform()),
                2 => 0.75,
                3 => {
                    if random.uniform() < 0.02 {
                        x
                    } else {
                        0.0
                    }
                }
                4 => {
                    if i % 256 < 64 {
                        0.0
                    } else {
                        x
                    }
                }
                5 => 1e-20 * x,
                6 => 1e4 * x,
                7 => 0.5 * x.signum(),
                8 => 0.0,
                _ => 1.0 + 0.1 * x,
            });
        }
    }
    rows
}

fn importances() -> Vec<Vec<f32>> {
    let mut random = Random(11);
    let spread = (0..ROW).map(|_| random.gaussian().exp()).collect();
    let gaps = (0..ROW)
        .map(|i| {
            if i % 7 == 0 || i / 32 == 3 {
                0.0
            } else {
                random.uniform()
            }
        })
        .collect();
    vec![spread, gaps, vec![0.0; ROW]]
}

fn encode(isa: Isa, ty: TensorType, effort: Effort, row: &[f32], v: Option<&[f32]>) -> Vec<u8> {
    let mut bytes = vec![0; ty.row_bytes(ROW as u64).unwrap() as usize];
    types::encode_on(isa, ty, effort, row, ROW, v, &mut bytes).unwrap();
    bytes
}

/// Sums of a block: `w·x²`, `w·x·y`, `w·y²`.
type Sums = [f64; 3];

fn sums(ty: TensorType, bytes: &[u8], row: &[f32], v: Option<&[f32]>) -> Vec<Sums> {
    let mut decoded = vec![0.0; ROW];
    types::decode(ty, bytes, &mut decoded).unwrap();
    let term = |i: usize| {
        let (x, y) = (f64::from(row[i]), f64::from(decoded[i]));
        let w = v.map_or(1.0, |v| f64::from(v[i]));
        [w * x * x, w * x * y, w * y * y]
    };
    let block = ty.layout().values;
    let add = |a: Sums, b: Sums| [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
    (0..ROW / block)
        .map(|b| (b * block..(b + 1) * block).map(term).fold([0.0; 3], add))
        .collect()
}

/// The squared error, with the best factor for each block where the type's scales can hold it: for
/// those the encoder stretches what it has found.
fn error(stretched: bool, sums: &[Sums]) -> f64 {
    let of = |&[xx, xy, yy]: &Sums| {
        if !stretched {
            xx - 2.0 * xy + yy
        } else if xy > 0.0 {
            xx - xy * (xy / yy)
        } else {
            xx + yy
        }
    };
    sums.iter().map(of).sum()
}

#[test]
fn best_is_never_worse_than_the_reference_and_the_same_on_every_set() {
    let rows = rows();
    let importances = importances();
    let mut kinds: Vec<Option<&[f32]>> = importances.iter().map(|v| Some(v.as_slice())).collect();
    kinds.push(None);
    let mut cases = 0;
    for ty in types::supported().filter(|ty| ty.is_quantized()) {
        let required = types::importance_use(ty).unwrap() == ImportanceUse::Required;
        for (number, row) in rows.chunks_exact(ROW).enumerate() {
            for (kind, &v) in kinds
                .iter()
                .enumerate()
                .filter(|(_, v)| !required || v.is_some())
            {
                let reference = encode(Isa::Portable, ty, Effort::Reference, row, v);
                let best = encode(Isa::Portable, ty, Effort::Best, row, v);
                let stretched =
                    !matches!(ty, TensorType::MXFP4 | TensorType::NVFP4 | TensorType::Q1_0);
                let found = sums(ty, &best, row, v);
                let before = error(stretched, &sums(ty, &reference, row, v));
                let after = error(stretched, &found);
                let norm: f64 = found.iter().map(|sums| sums[0]).sum();
                assert!(
                    after <= before * (1.0 + 1e-3) + 1e-9 * norm,
                    "{ty} row {number} importance {kind}: {after} after {before}"
                );
                // The scales of large values are normal f16, which are exact to a part in 2048.
                let shrunk: f64 = found.iter().map(|sums| sums[0] - sums[1]).sum();
                if stretched && number == 6 && norm > 0.0 {
                    assert!(
                        shrunk.abs() < 2e-3 * norm,
                        "{ty} importance {kind}: {shrunk}"
                    );
                }
                types::validate(ty, &best).unwrap();
                for isa in Isa::available() {
                    let same = encode(isa, ty, Effort::Best, row, v) == best;
                    assert!(same, "{ty} row {number} importance {kind} on {isa}");
                }
                cases += 1;
            }
        }
    }
    println!("compared {cases} rows");
}
