//! Every encoded and decoded byte against ggml's, on every instruction set of this machine.

#[path = "../../fixtures/golden.rs"]
mod golden;

use gristmill_gguf::TensorType;
use gristmill_quantize::types::{self, Effort, ImportanceUse};
use gristmill_quantize::{Isa, half};
use safetensors::SafeTensors;

/// The row where the reference's casts are undefined, and the types it concerns.
const UNDEFINED_ROW: usize = 21;
const UNDEFINED_PLAIN: [TensorType; 8] = [
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
    TensorType::Q8_1,
    TensorType::MXFP4,
    TensorType::Q2_0,
];

struct Table {
    bytes: Vec<u8>,
}

impl Table {
    fn read(folder: &std::path::Path, name: &str) -> Self {
        let path = folder.join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { bytes }
    }

    /// Data of a tensor and the length of its rows.
    fn rows<T>(&self, name: &str, read: impl Fn(&[u8]) -> T) -> Option<(Vec<T>, usize)> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = tensors.tensor(name).ok()?;
        let data = tensor
            .data()
            .chunks_exact(size_of::<T>())
            .map(read)
            .collect();
        Some((data, *tensor.shape().last().unwrap()))
    }

    fn f32(&self, name: &str) -> Option<(Vec<f32>, usize)> {
        self.rows(name, |b| f32::from_le_bytes(b.try_into().unwrap()))
    }

    fn u8(&self, name: &str) -> Option<(Vec<u8>, usize)> {
        self.rows(name, |b| b[0])
    }
}

/// Index of the first value whose bits differ; NaNs are all alike.
fn first_difference(a: &[f32], b: &[f32]) -> Option<usize> {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .position(|(x, y)| x.to_bits() != y.to_bits() && !(x.is_nan() && y.is_nan()))
}

#[test]
fn decoding_is_bit_exact() {
    let Some(folder) = golden::golden("blocks") else {
        return;
    };
    let mut cases = 0;
    for ty in types::supported().filter(|&ty| ty != TensorType::F32) {
        let table = Table::read(&folder, ty.name());
        for name in ["plain", "weighted", "decode_only"] {
            let Some((bytes, _)) = table.u8(name) else {
                continue;
            };
            let (expected, _) = table.f32(&format!("{name}_dequant")).unwrap();
            for isa in Isa::available() {
                let mut values = vec![0.0; expected.len()];
                types::decode_on(isa, ty, &bytes, &mut values).unwrap();
                if let Some(i) = first_difference(&values, &expected) {
                    panic!(
                        "{ty} {name} {isa}: value {i} is {}, not {}",
                        values[i], expected[i]
                    );
                }
                cases += 1;
            }
        }
    }
    println!("decoded {cases} tables");
    assert!(cases > 0);
}

#[test]
fn encoding_at_effort_reference_is_byte_exact() {
    let Some(folder) = golden::golden("blocks") else {
        return;
    };
    let input = Table::read(&folder, "input");
    let (values, row_len) = input.f32("input").unwrap();
    let (importance, _) = input.f32("importance").unwrap();
    let mut cases = 0;
    let mut failures = Vec::new();
    for ty in types::supported().filter(|&ty| ty != TensorType::F32) {
        let table = Table::read(&folder, ty.name());
        let plain = table.u8("plain");
        let weighted = table.u8("weighted");
        assert!(
            plain.is_some() || weighted.is_some(),
            "{ty} has no golden rows"
        );
        assert_eq!(
            weighted.is_none(),
            types::importance_use(ty).unwrap() == ImportanceUse::Ignored
        );
        for isa in Isa::available() {
            for (kind, expected) in [("plain", &plain), ("weighted", &weighted)] {
                let Some((expected, row_bytes)) = expected else {
                    continue;
                };
                for (row, expected) in expected.chunks_exact(*row_bytes).enumerate() {
                    let at = row * row_len..(row + 1) * row_len;
                    let weights = (kind == "weighted").then(|| &importance[at.clone()]);
                    let mut bytes = vec![0xA5; *row_bytes];
                    types::encode_on(
                        isa,
                        ty,
                        Effort::Reference,
                        &values[at],
                        row_len,
                        weights,
                        &mut bytes,
                    )
                    .unwrap();
                    cases += 1;
                    if kind == "plain" && row == UNDEFINED_ROW && UNDEFINED_PLAIN.contains(&ty) {
                        let mut decoded = vec![1.0; row_len];
                        types::decode_on(isa, ty, &bytes, &mut decoded).unwrap();
                        assert!(
                            decoded.iter().all(|&v| v == 0.0),
                            "{ty} {isa} {kind} row {row}"
                        );
                    } else if let Some(at) = bytes.iter().zip(expected).position(|(a, b)| a != b) {
                        failures.push(format!("{ty} {isa} {kind} row {row} byte {at}"));
                    }
                }
            }
        }
    }
    println!("encoded {cases} rows");
    assert!(
        failures.is_empty(),
        "{} of {cases}: {}",
        failures.len(),
        failures.join("\n")
    );
    assert!(cases > 0);
}

#[test]
fn half_conversions_are_bit_exact() {
    let Some(folder) = golden::golden("blocks") else {
        return;
    };
    let table = Table::read(&folder, "conversions");
    let u16s = |name| {
        table
            .rows(name, |b| u16::from_le_bytes([b[0], b[1]]))
            .unwrap()
            .0
    };
    let u32s = |name| {
        table
            .rows(name, |b| u32::from_le_bytes(b.try_into().unwrap()))
            .unwrap()
            .0
    };
    let (values, f16, bf16) = (u32s("f32_bits"), u16s("f16_bits"), u16s("bf16_bits"));
    for (i, &bits) in values.iter().enumerate() {
        let value = f32::from_bits(bits);
        assert_eq!(half::f32_to_f16(value), f16[i], "{bits:#x}");
        assert_eq!(half::f32_to_bf16(value), bf16[i], "{bits:#x}");
    }
    for (half, &bits) in u32s("all_f16_as_f32_bits").iter().enumerate() {
        assert_eq!(half::f16_to_f32(half as u16).to_bits(), bits, "{half:#x}");
    }
}

#[test]
fn the_validator_refuses_the_rows_that_ggml_refuses() {
    let Some(folder) = golden::golden("blocks") else {
        return;
    };
    let index = std::fs::read(folder.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let mut cases = 0;
    for ty in types::supported().filter(|&ty| ty != TensorType::F32) {
        let table = Table::read(&folder, ty.name());
        for kind in ["plain", "weighted"] {
            let Some((bytes, row_bytes)) = table.u8(kind) else {
                continue;
            };
            let listed = &index["types"][ty.name()][format!("{kind}_invalid_rows")];
            let listed = listed.as_array().expect("a list of row names");
            for (row, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
                let refused = types::validate(ty, bytes).is_err();
                assert_eq!(
                    refused,
                    listed.contains(&index["rows"][row]),
                    "{ty} {kind} row {row}"
                );
                cases += 1;
            }
        }
    }
    println!("validated {cases} rows");
}
