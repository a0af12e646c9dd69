//! LoRA adapters merged into a model: the same as converting a model whose weights were added up.

use std::fs;
use std::path::Path;

use gristmill_convert::{Checkpoint, Conversion, Options, Output};
use gristmill_gguf::{Source as _, TensorType};
use serde_json::{Value as Json, json};

use super::tiny::{HIDDEN, Tiny};

const RANK: usize = 3;
/// Adapted weights with their outputs: rows of the first are permuted, those of the second not.
const ADAPTED: [(&str, usize); 2] = [
    ("model.layers.0.self_attn.q_proj", HIDDEN),
    ("model.layers.1.mlp.up_proj", 48),
];

/// Writes an adapter and returns its factors, `[A, B]` for each weight.
fn adapter(folder: &Path, config: Json) -> Vec<[Vec<f32>; 2]> {
    let mut tiny = Tiny::new();
    tiny.tensors.clear();
    let mut names = Vec::new();
    for (module, outputs) in ADAPTED {
        for (half, shape) in [("A", [RANK, HIDDEN]), ("B", [outputs, RANK])] {
            let name = format!("base_model.model.{module}.lora_{half}.weight");
            tiny.put(&name, &shape);
            names.push(name);
        }
    }
    let listed: Vec<&str> = names.iter().map(String::as_str).collect();
    tiny.write_part(&folder.join("adapter_model.safetensors"), &listed);
    fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    let values = |name: &String| tiny.tensors[name].1.clone();
    names
        .chunks(2)
        .map(|pair| [values(&pair[0]), values(&pair[1])])
        .collect()
}

fn f32_of(conversion: &Conversion) -> Vec<(String, Vec<f32>)> {
    let tensors = conversion.tensors().iter().enumerate();
    tensors
        .map(|(at, info)| {
            assert_eq!(info.ty, TensorType::F32);
            let bytes = conversion.rows(at, 0..info.rows()).unwrap();
            let values = bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b));
            (info.name.to_string(), values.collect())
        })
        .collect()
}

#[test]
fn merged_is_base_plus_scaled_product() {
    let base = tempfile::tempdir().unwrap();
    Tiny::new().write(base.path());
    let f32 = Options {
        output: Output::F32,
        ..Options::default()
    };
    for (config, scale) in [
        (
            json!({"peft_type": "LORA", "r": RANK, "lora_alpha": 6}),
            2.0,
        ),
        (
            json!({"peft_type": "LORA", "r": RANK, "lora_alpha": 6, "use_rslora": true}),
            6.0 / (RANK as f32).sqrt(),
        ),
        (
            json!({
                "peft_type": "LORA", "r": RANK, "lora_alpha": 1,
                "alpha_pattern": {"layers.0.self_attn.q_proj": 6, "up_.*": 6}
            }),
            2.0,
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let factors = adapter(folder.path(), config);
        let merged = Conversion::merged(
            &Checkpoint::open(base.path()).unwrap(),
            &[Checkpoint::open(folder.path()).unwrap()],
            &f32,
        )
        .unwrap();

        let mut added = Tiny::new();
        for ((module, _), [a, b]) in ADAPTED.iter().zip(factors) {
            let (_, weight) = added.tensors.get_mut(&format!("{module}.weight")).unwrap();
            for (at, value) in weight.iter_mut().enumerate() {
                let (output, input) = (at / HIDDEN, at % HIDDEN);
                let product: f32 = (0..RANK)
                    .map(|rank| b[output * RANK + rank] * a[rank * HIDDEN + input])
                    .sum();
                *value += scale * product;
            }
        }
        let plain = tempfile::tempdir().unwrap();
        added.write(plain.path());
        let plain = Conversion::new(&Checkpoint::open(plain.path()).unwrap(), &f32).unwrap();
        let mut compared = 0;
        for ((name, ours), (other, expected)) in f32_of(&merged).iter().zip(f32_of(&plain)) {
            assert_eq!(*name, other);
            for (ours, expected) in ours.iter().zip(&expected) {
                assert!((ours - expected).abs() < 1e-6, "{name}: {ours} {expected}");
                compared += 1;
            }
        }
        assert!(compared > 10_000);
    }
}

#[test]
fn adapters_become_adapter_files() {
    let base = tempfile::tempdir().unwrap();
    Tiny::new().write(base.path());
    let folder = tempfile::tempdir().unwrap();
    adapter(
        folder.path(),
        json!({"peft_type": "LORA", "r": RANK, "lora_alpha": 6}),
    );
    let opened = Checkpoint::open(folder.path()).unwrap();
    let model = Checkpoint::open(base.path()).unwrap();
    let file = Conversion::adapter(&opened, &model, &Options::default()).unwrap();
    assert_eq!(file.metadata().str("general.type"), Some("adapter"));
    let names: Vec<String> = file.tensors().iter().map(|t| t.name.to_string()).collect();
    let expected = ["blk.0.attn_q.weight", "blk.1.ffn_up.weight"]
        .map(|name| [format!("{name}.lora_a"), format!("{name}.lora_b")]);
    assert_eq!(names, expected.concat());
    assert_eq!(file.tensors()[0].shape, [HIDDEN as u64, RANK as u64]);
    assert_eq!(file.tensors()[1].shape, [RANK as u64, HIDDEN as u64]);
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let base = tempfile::tempdir().unwrap();
    Tiny::new().write(base.path());
    for (config, word) in [
        (
            json!({"peft_type": "LORA", "r": RANK, "lora_alpha": 6, "use_dora": true}),
            "use_dora",
        ),
        (json!({"peft_type": "LORA", "r": RANK}), "lora_alpha"),
        (
            json!({"peft_type": "LORA", "r": RANK, "lora_alpha": 6, "alpha_pattern": {"(": 2}}),
            "alpha_pattern",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        adapter(folder.path(), config);
        let error = Conversion::merged(
            &Checkpoint::open(base.path()).unwrap(),
            &[Checkpoint::open(folder.path()).unwrap()],
            &Options::default(),
        )
        .unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert!(error.help().is_some());
    }
}
