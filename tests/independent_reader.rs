//! What `grist` writes, read by another implementation: candle's reader of GGUF finds the same tensors
//! in a file and decodes them to the same values as we do.

mod common;

use std::collections::BTreeSet;
use std::fs;

use candle_core::Device;
use candle_core::quantized::gguf_file::Content;
use gristmill_gguf::{File, Source};
use gristmill_quantize::types::decode;

/// Every type that candle decodes.
const TYPES: &str = "F16,BF16,Q4_0,Q4_1,Q5_0,Q5_1,Q8_0,Q2_K,Q3_K_S,Q4_K_S,Q5_K_S,Q6_K";

#[test]
fn candle_decodes_every_tensor_to_the_same_values() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path();
    let output = common::grist([
        "quantize",
        common::text(&common::fixture()),
        "--types",
        TYPES,
        "--pure",
        "--effort",
        "reference",
        "-o",
        common::text(out),
    ]);
    assert!(output.status.success(), "{}", common::stderr(&output));
    let mut seen = BTreeSet::new();
    for ty in TYPES.split(',') {
        let path = out.join(format!("novelist-6m-{ty}.gguf"));
        let ours = File::open(&path).unwrap();
        let mut file = fs::File::open(&path).unwrap();
        let theirs = Content::read(&mut file).unwrap();
        assert_eq!(theirs.tensor_infos.len(), ours.tensors().len());
        for (i, tensor) in ours.tensors().iter().enumerate() {
            let read = theirs.tensor(&mut file, &tensor.name.to_string(), &Device::Cpu);
            let values = read.and_then(|t| t.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1());
            let values: Vec<f32> = values.unwrap();
            let mut expected = vec![0.0; tensor.elements() as usize];
            decode(tensor.ty, ours.tensor_bytes(i), &mut expected).unwrap();
            let same = values
                .iter()
                .zip(&expected)
                .all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(
                same && values.len() == expected.len(),
                "{ty}: {}",
                tensor.name
            );
            seen.insert(tensor.ty.to_string());
        }
    }
    assert_eq!(seen.len(), 13, "twelve types and the norms' F32: {seen:?}");
}
