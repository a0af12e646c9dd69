//! Every type assignment of the golden data, tensor by tensor.

#[path = "../../fixtures/golden.rs"]
mod golden;

use std::collections::HashMap;
use std::path::Path;

use gristmill_gguf::{Metadata, TensorInfo, TensorType, Value};
use gristmill_quantize::plan::{Options, Plan, PlanError, plan};
use gristmill_quantize::preset::Preset;
use serde_json::Value as Json;

struct Shape {
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    legend: HashMap<char, TensorType>,
    json: Json,
}

fn value(json: &Json) -> Value {
    match json {
        Json::Bool(v) => (*v).into(),
        Json::String(v) => v.as_str().into(),
        Json::Number(v) if v.is_u64() => (v.as_u64().unwrap() as u32).into(),
        Json::Number(v) => (v.as_f64().unwrap() as f32).into(),
        Json::Array(v) => v
            .iter()
            .map(|v| v.as_u64().unwrap() as u32)
            .collect::<Vec<_>>()
            .into(),
        other => panic!("unexpected metadata {other}"),
    }
}

impl Shape {
    fn read(path: &Path) -> Self {
        let json: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let metadata = json["model"]["metadata"].as_object().unwrap();
        let tensors = json["model"]["tensors"].as_array().unwrap();
        Self {
            metadata: metadata
                .iter()
                .map(|(k, v)| (k.as_str(), value(v)))
                .collect(),
            tensors: tensors
                .iter()
                .map(|tensor| {
                    let shape: Vec<u64> = serde_json::from_value(tensor[1].clone()).unwrap();
                    let ty = match shape.len() {
                        1 => TensorType::F32,
                        _ => TensorType::F16,
                    };
                    let name = tensor[0].as_str().unwrap().into();
                    TensorInfo { name, shape, ty }
                })
                .collect(),
            legend: json["legend"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(code, name)| {
                    let ty = name.as_str().unwrap().parse().unwrap();
                    (code.chars().next().unwrap(), ty)
                })
                .collect(),
            json,
        }
    }

    fn plan(&self, preset: Preset, options: &Options, importance: bool) -> Result<Plan, PlanError> {
        plan(&self.metadata, &self.tensors, preset, options, importance)
    }

    fn check(&self, plan: &Plan, codes: &str, what: &str) {
        let mut found = vec![None; self.tensors.len()];
        for tensor in &plan.tensors {
            found[tensor.source] = Some(tensor.info.ty);
        }
        assert_eq!(codes.chars().count(), self.tensors.len(), "{what}");
        for ((code, tensor), found) in codes.chars().zip(&self.tensors).zip(found) {
            assert_eq!(found, Some(self.legend[&code]), "{what}: {}", tensor.name);
        }
    }
}

fn options(arguments: &[Json]) -> Options {
    let mut options = Options::default();
    let mut words = arguments.iter().map(|word| word.as_str().unwrap());
    while let Some(word) = words.next() {
        let mut next = || words.next().unwrap();
        match word {
            "--pure" => options.pure = true,
            "--leave-output-tensor" => options.leave_output_tensor = true,
            "--output-tensor-type" => options.output_tensor_type = Some(next().parse().unwrap()),
            "--token-embedding-type" => {
                options.token_embedding_type = Some(next().parse().unwrap());
            }
            "--tensor-type" => options.tensor_types.push(next().parse().unwrap()),
            other => panic!("unknown option {other}"),
        }
    }
    options
}

#[test]
fn every_assignment() {
    let Some(folder) = golden::golden("types") else {
        return;
    };
    let (mut shapes, mut runs, mut with_options, mut refused, mut failed) = (0, 0, 0, 0, 0);
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    paths.sort();
    for path in paths {
        let shape = Shape::read(&path);
        let name = path.file_stem().unwrap().to_str().unwrap();
        shapes += 1;
        for (importance, runs_key, fallbacks_key) in [
            (false, "presets", "fallbacks"),
            (true, "presets_with_importance", "fallbacks_with_importance"),
        ] {
            for (preset, codes) in shape.json[runs_key].as_object().unwrap() {
                let what = format!("{name} {preset} importance {importance}");
                let plan = shape
                    .plan(preset.parse().unwrap(), &Options::default(), importance)
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                shape.check(&plan, codes.as_str().unwrap(), &what);
                let fallbacks = shape.json[fallbacks_key][preset].as_u64().unwrap_or(0);
                assert_eq!(plan.fallbacks().count() as u64, fallbacks, "{what}");
                runs += 1;
            }
        }
        for preset in Preset::all() {
            let expected = &shape.json["refused_without_importance"][preset.name()];
            let Ok(plan) = shape.plan(preset, &Options::default(), false) else {
                continue;
            };
            let found = plan
                .first_needing_importance(preset, |_| true)
                .map(|tensor| tensor.info.name.to_string());
            let expected = expected["first_tensor"].as_str().map(str::to_owned);
            assert_eq!(found, expected, "{name} {preset}");
            refused += usize::from(found.is_some());
        }
        for (run, _) in shape.json["errors"].as_object().unwrap() {
            let preset: Preset = run.split(' ').next().unwrap().parse().unwrap();
            let error = shape.plan(preset, &Options::default(), run.contains("imatrix"));
            assert!(
                matches!(error, Err(PlanError::NoFallback { .. })),
                "{name} {run}: {error:?}"
            );
            failed += 1;
        }
        for run in shape.json["options"].as_array().unwrap_or(&Vec::new()) {
            let arguments = run["arguments"].as_array().unwrap();
            let preset = run["preset"].as_str().unwrap();
            let what = format!("{name} {preset} {arguments:?}");
            let plan = shape
                .plan(preset.parse().unwrap(), &options(arguments), false)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            shape.check(&plan, run["types"].as_str().unwrap(), &what);
            with_options += 1;
        }
    }
    println!(
        "{shapes} shapes: {runs} preset runs, {with_options} with options, {refused} refused \
         without importance, {failed} without a fallback"
    );
    assert_eq!((shapes, runs), (25, 1738));
    assert!(with_options > 0 && refused > 0 && failed > 0);
}
