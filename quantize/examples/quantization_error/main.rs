//! Prints how much less error effort `best` leaves than effort `reference`, per type and kind of
//! rows: `cargo run --release -p gristmill-quantize --example quantization_error [TYPE… | --bounds]`.
//!
//! `--bounds` compares with what no encoder can beat, where that can be found, on every 64th row.
//!
//! The error is `Σ importance·(x - decoded)²` in f64: of what is written, and before it was stretched, that
//! is with the factor for each block that leaves the least error. Changes are of the sum over rows, and of
//! the row that fares worst before the stretch. Random rows are Gaussian or Student-t (four
//! degrees of freedom) with lognormal importance; model rows are all linear layers of
//! `fixtures/novelist-6m` with the importance in `GRIST_IMATRIX` (a GGUF file of llama-imatrix).

mod bounds;

use std::error::Error;
use std::path::Path;

use gristmill_gguf::{File, Source, TensorType};
use gristmill_quantize::types::{self, Effort};
use safetensors::SafeTensors;

/// Rows with their importance.
struct Rows {
    values: Vec<f32>,
    row_len: usize,
    importance: Vec<f32>,
}

/// A kind of rows: some matrices.
struct Kind {
    name: &'static str,
    matrices: Vec<Rows>,
}

/// SplitMix64: enough for test data, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Box-Muller.
    fn gaussian(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn student(&mut self, degrees: u32) -> f64 {
        let chi2: f64 = (0..degrees).map(|_| self.gaussian().powi(2)).sum();
        self.gaussian() / (chi2 / f64::from(degrees)).sqrt()
    }
}

fn random_rows(name: &'static str, seed: u64, value: impl Fn(&mut Random) -> f64) -> Kind {
    const ROWS: usize = 64;
    const LEN: usize = 2048;
    let mut random = Random(seed);
    let values = (0..ROWS * LEN)
        .map(|_| (0.02 * value(&mut random)) as f32)
        .collect();
    let importance = (0..LEN).map(|_| random.gaussian().exp() as f32).collect();
    Kind {
        name,
        matrices: vec![Rows {
            values,
            row_len: LEN,
            importance,
        }],
    }
}

/// The GGUF name of a linear layer of the llama family.
fn gguf_name(name: &str) -> Option<String> {
    let rest = name
        .strip_prefix("model.layers.")?
        .strip_suffix(".weight")?;
    let (layer, part) = rest.split_once('.')?;
    let part = match part {
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.weight"))
}

fn model_rows(imatrix: &Path) -> Result<Kind, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/novelist-6m");
    let bytes = std::fs::read(folder.join("model.safetensors"))?;
    let checkpoint = SafeTensors::deserialize(&bytes)?;
    let imatrix = File::open(imatrix)?;
    let mut matrices = Vec::new();
    for name in checkpoint.names() {
        let Some(gguf) = gguf_name(name) else {
            continue;
        };
        let entry = format!("{gguf}.in_sum2");
        let found = imatrix.tensors().iter().position(|info| info.name == entry);
        let entry = found.ok_or_else(|| format!("no {entry} in the importance matrix"))?;
        let tensor = checkpoint.tensor(name)?;
        let row_len = *tensor.shape().last().ok_or("a scalar weight")?;
        let ty: TensorType = format!("{:?}", tensor.dtype()).parse()?;
        let mut values = vec![0.0; tensor.shape().iter().product()];
        types::decode(ty, tensor.data(), &mut values)?;
        let mut importance = vec![0.0; row_len];
        types::decode(
            TensorType::F32,
            &imatrix.rows(entry, 0..1)?,
            &mut importance,
        )?;
        matrices.push(Rows {
            values,
            row_len,
            importance,
        });
    }
    Ok(Kind {
        name: "novelist-6m",
        matrices,
    })
}

/// Errors of one effort.
#[derive(Default)]
struct Outcome {
    /// Of each matrix, relative to `Σ importance·x²`.
    error: f64,
    /// The same with the best factor for each block.
    fitted: f64,
    /// Rows' errors as written, and with the best factors, all matrices.
    rows: Vec<[f64; 2]>,
}

/// `Σ v·x²`, `Σ v·x·y` and `Σ v·y²` of a block.
fn sums(x: &[f32], y: &[f32], v: &[f32], weighted: bool) -> [f64; 3] {
    let mut sums = [0.0; 3];
    for ((&x, &y), &v) in x.iter().zip(y).zip(v) {
        let (x, y) = (f64::from(x), f64::from(y));
        let v = if weighted { f64::from(v) } else { 1.0 };
        sums[0] += v * x * x;
        sums[1] += v * x * y;
        sums[2] += v * y * y;
    }
    sums
}

/// Whether effort `best` stretches blocks of this type.
fn is_stretched(ty: TensorType) -> bool {
    !matches!(ty, TensorType::MXFP4 | TensorType::NVFP4 | TensorType::Q1_0)
}

fn measure(ty: TensorType, effort: Effort, kind: &Kind, weighted: bool) -> Outcome {
    let mut outcome = Outcome::default();
    for rows in kind
        .matrices
        .iter()
        .filter(|rows| ty.row_bytes(rows.row_len as u64).is_some())
    {
        let layout = ty.layout();
        let mut bytes = vec![0; rows.values.len() / layout.values * layout.bytes];
        let importance = weighted.then_some(rows.importance.as_slice());
        types::encode(
            ty,
            effort,
            &rows.values,
            rows.row_len,
            importance,
            &mut bytes,
        )
        .expect("sizes fit");
        let mut decoded = vec![0.0; rows.values.len()];
        types::decode(ty, &bytes, &mut decoded).expect("sizes fit");
        let (mut error, mut fitted, mut norm) = (0.0, 0.0, 0.0);
        for (x, y) in rows
            .values
            .chunks(rows.row_len)
            .zip(decoded.chunks(rows.row_len))
        {
            let mut row = [0.0; 2];
            let block = layout.values;
            let blocks = x.chunks(block).zip(y.chunks(block));
            for ((x, y), v) in blocks.zip(rows.importance.chunks(block)) {
                let [xx, xy, yy] = sums(x, y, v, weighted);
                norm += xx;
                row[0] += xx - 2.0 * xy + yy;
                // Only what is stretched is fitted: a factor does not fit the scales of the others.
                row[1] += match is_stretched(ty) && xy > 0.0 {
                    true => xx - xy * (xy / yy),
                    false => xx - 2.0 * xy + yy,
                };
            }
            outcome.rows.push(row);
            error += row[0];
            fitted += row[1];
        }
        outcome.error += error / norm;
        outcome.fitted += fitted / norm;
    }
    outcome
}

/// Prints how far the encoders are from the bounds.
fn print_bounds(kinds: &[Kind]) {
    const STEP: usize = 64;
    println!("| type | rows | best | bound |");
    println!("|---|---|---|---|");
    for bound in &bounds::BOUNDS {
        for kind in kinds {
            let mut errors = [0.0; 3];
            for rows in &kind.matrices {
                let every = rows.values.chunks(rows.row_len).step_by(STEP);
                let sample = Rows {
                    values: every.flatten().copied().collect(),
                    row_len: rows.row_len,
                    importance: rows.importance.clone(),
                };
                let kind = Kind {
                    name: kind.name,
                    matrices: vec![sample],
                };
                let sample = &kind.matrices[0];
                let wide = |all: &[f32]| all.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                let weights = wide(&sample.importance);
                let (mut least, mut norm) = (0.0, 0.0);
                for row in sample.values.chunks(sample.row_len) {
                    let blocks = wide(row);
                    let blocks = blocks
                        .chunks(bound.values)
                        .zip(weights.chunks(bound.values));
                    for (x, v) in blocks {
                        least += (bound.least)(x, v);
                        norm += x.iter().zip(v).map(|(x, v)| v * x * x).sum::<f64>();
                    }
                }
                errors[0] += measure(bound.ty, Effort::Reference, &kind, true).error;
                errors[1] += measure(bound.ty, Effort::Best, &kind, true).fitted;
                errors[2] += least / norm;
            }
            let change = |error: f64| 100.0 * (error / errors[0] - 1.0);
            let (best, least) = (change(errors[1]), change(errors[2]));
            println!(
                "| {} | {} | {best:+.1} % | {least:+.1} % |",
                bound.ty, kind.name
            );
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut kinds = vec![
        random_rows("Gaussian", 101, Random::gaussian),
        random_rows("Student-t", 102, |random| random.student(4)),
    ];
    if let Some(imatrix) = std::env::var_os("GRIST_IMATRIX") {
        kinds.push(model_rows(Path::new(&imatrix))?);
    }
    if std::env::args().any(|argument| argument == "--bounds") {
        print_bounds(&kinds);
        return Ok(());
    }
    let asked: Result<Vec<TensorType>, _> = std::env::args().skip(1).map(|a| a.parse()).collect();
    let asked = asked?;
    println!("| type | rows | importance | written | before the stretch | worst row |");
    println!("|---|---|---|---|---|---|");
    let quantized = types::supported().filter(|ty| ty.is_quantized());
    for ty in quantized.filter(|ty| asked.is_empty() || asked.contains(ty)) {
        for kind in &kinds {
            for weighted in [true, false] {
                let needs = types::importance_use(ty)? == types::ImportanceUse::Required;
                if needs && !weighted {
                    continue;
                }
                let reference = measure(ty, Effort::Reference, kind, weighted);
                let best = measure(ty, Effort::Best, kind, weighted);
                if reference.rows.is_empty() {
                    continue;
                }
                let change = |best: f64, reference: f64| 100.0 * (best / reference - 1.0);
                let worst = (best.rows.iter().zip(&reference.rows))
                    .map(|(best, reference)| change(best[1], reference[0]))
                    .fold(f64::NEG_INFINITY, f64::max);
                println!(
                    "| {ty} | {} | {} | {:+.1} % | {:+.1} % | {worst:+.1} % |",
                    kind.name,
                    if weighted { "yes" } else { "no" },
                    change(best.error, reference.error),
                    change(best.fitted, reference.error),
                );
            }
        }
    }
    Ok(())
}
