//! Every golden checkpoint, converted to F32 and run: logits and embeddings against transformers.

mod common;

use std::fmt::Write as _;
use std::path::Path;

use gristmill_convert::{Checkpoint, Conversion, Options, Output};
use gristmill_engine::{KvType, LoadOptions, Model, SessionOptions};
use gristmill_gguf::{Layout, Plan, Source as _, TensorInfo, TensorType, WriteOptions, Writer};
use gristmill_quantize::Isa;
use gristmill_quantize::types::{self, Effort};
use safetensors::SafeTensors;

/// Largest difference, as a share of the largest logit.
const LIMIT: f32 = 1e-3;

type Failure = Box<dyn std::error::Error>;

/// Writes the F32 form of a checkpoint.
fn convert(case: &Path, output: &Path) -> Result<(), Failure> {
    // Python wrote infinities, which JSON does not know.
    let expected = std::fs::read_to_string(case.join("expected.json"))?;
    let expected = expected
        .replace("-Infinity", "null")
        .replace("Infinity", "null");
    let expected: serde_json::Value = serde_json::from_str(&expected)?;
    let checkpoint = Checkpoint::open(&case.join("checkpoint"))?;
    // An adapter is run merged into its base.
    let base = case.join("base");
    let (checkpoint, adapters) = match base.is_dir() {
        true => (Checkpoint::open(&base)?, vec![checkpoint]),
        false => (checkpoint, Vec::new()),
    };
    let options = Options {
        output: Output::F32,
        pre: expected["pre"].as_str().map(str::to_owned),
    };
    let source = Conversion::merged(&checkpoint, &adapters, &options)?;
    let infos: Vec<TensorInfo> = source
        .tensors()
        .iter()
        .zip(source.types())
        .map(|(info, &ty)| TensorInfo { ty, ..info.clone() })
        .collect();
    let options = WriteOptions::default();
    let plan = Plan::new(source.metadata(), &infos, &Layout::default())?;
    let writer = Writer::create(output, plan, &options)?;
    for (at, (stored, info)) in source.tensors().iter().zip(&infos).enumerate() {
        let bytes = source.rows(at, 0..stored.rows())?;
        if stored.ty == info.ty {
            writer.write_rows(at, 0, &bytes)?;
            continue;
        }
        let mut values = vec![0f32; stored.elements() as usize];
        types::decode(stored.ty, &bytes, &mut values)?;
        let mut encoded = vec![0; info.bytes().ok_or("rows are not whole blocks")? as usize];
        let row = info.row_len() as usize;
        types::encode(info.ty, Effort::Reference, &values, row, None, &mut encoded)?;
        writer.write_rows(at, 0, &encoded)?;
    }
    writer.finish()?;
    Ok(())
}

fn integers(file: &SafeTensors<'_>, name: &str) -> Result<Vec<u32>, Failure> {
    let words = file.tensor(name)?.data().as_chunks::<4>().0;
    Ok(words.iter().map(|&b| u32::from_le_bytes(b)).collect())
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, Failure> {
    let words = file.tensor(name)?.data().as_chunks::<4>().0;
    Ok(words.iter().map(|&b| f32::from_le_bytes(b)).collect())
}

/// What the model gives for the tokens of `reference`, and what it should give.
fn outputs(
    model: &Model,
    isa: Isa,
    reference: &SafeTensors<'_>,
    (exact, kv_type): (bool, KvType),
) -> Result<(Vec<f32>, Vec<f32>), Failure> {
    let tokens = integers(reference, "tokens").or_else(|_| integers(reference, "input_ids"))?;
    let mut session = model.session_on(
        isa,
        &SessionOptions {
            context: tokens.len(),
            kv_type,
            exact,
            ..SessionOptions::default()
        },
    )?;
    if model.encodes() {
        session.encode(&[&tokens])?;
        let decoder = integers(reference, "decoder_tokens")?;
        let hidden = session.forward(&[&decoder])?;
        return Ok((session.logits(hidden), floats(reference, "logits")?));
    }
    let hidden = session.forward(&[&tokens])?;
    Ok(match floats(reference, "logits") {
        Ok(logits) => (session.logits(hidden), logits),
        Err(_) => (hidden, floats(reference, "embeddings")?),
    })
}

/// The largest difference as a share of the largest value.
fn difference((found, expected): (Vec<f32>, Vec<f32>)) -> Result<f32, Failure> {
    if found.len() != expected.len() {
        return Err(format!("{} values instead of {}", found.len(), expected.len()).into());
    }
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    Ok(differences.fold(0f32, |m, d| if d <= m { m } else { d }) / largest)
}

fn run(model: &Path, reference: &Path) -> Result<f32, Failure> {
    let bytes = std::fs::read(reference)?;
    let reference = SafeTensors::deserialize(&bytes)?;
    let model = Model::open(model, &LoadOptions { threads: Some(1) })?;
    let types = model.file().type_counts();
    let all_f32 = types.iter().all(|&(ty, _)| ty == TensorType::F32);
    let mut worst = 0f32;
    for isa in Isa::available() {
        for arithmetic in [(true, KvType::F32), (false, KvType::F32)] {
            if arithmetic.0 || all_f32 {
                let found = difference(outputs(&model, isa, &reference, arithmetic)?)?;
                worst = if found <= worst { worst } else { found };
            }
        }
    }
    Ok(worst)
}

#[test]
fn logits_equal_transformers() {
    let Some(root) = common::golden("convert") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut names: Vec<String> = std::fs::read_dir(&root)
        .expect("golden/convert")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| root.join(name).join("logits.safetensors").exists())
        .collect();
    names.sort();
    let (mut passed, mut report) = (0, String::new());
    for name in &names {
        let case = root.join(name);
        let file = folder.path().join(format!("{name}.gguf"));
        let converted = convert(&case, &file);
        let result = converted.and_then(|()| run(&file, &case.join("logits.safetensors")));
        match result {
            Ok(difference) if difference <= LIMIT => {
                passed += 1;
                println!("{name}: {difference:.1e}");
            }
            Ok(difference) => {
                let _ = writeln!(report, "{name}: off by {difference:.1e}");
            }
            Err(error) => {
                let _ = writeln!(report, "{name}: {error}");
            }
        }
        let _ = std::fs::remove_file(file);
    }
    println!("{passed} of {} cases equal transformers", names.len());
    assert!(report.is_empty(), "{report}");
}
