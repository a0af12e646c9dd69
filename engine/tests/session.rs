//! Sessions on small random models: results do not depend on how tokens are grouped.

use std::path::Path;

use gristmill_engine::{KvType, LoadOptions, Model, Pooling, Sampler, Sampling, SessionOptions};
use gristmill_gguf::{Layout, Metadata, Plan, TensorInfo, TensorType, Value, WriteOptions, Writer};

const WIDTH: u64 = 64;
const VOCABULARY: u64 = 96;

/// A model file under construction.
struct Builder {
    architecture: &'static str,
    metadata: Metadata,
    tensors: Vec<(TensorInfo, Vec<u8>)>,
    seed: u64,
}

impl Builder {
    fn new(architecture: &'static str, layers: u32) -> Self {
        let mut builder = Self {
            architecture,
            metadata: Metadata::new(),
            tensors: Vec::new(),
            seed: 1,
        };
        builder
            .metadata
            .set("general.architecture", Value::String(architecture.into()));
        builder.key("block_count", layers);
        builder.key("context_length", 256u32);
        builder.key("embedding_length", WIDTH as u32);
        builder.key("attention.layer_norm_rms_epsilon", 1e-5f32);
        builder.tensor("token_embd.weight", &[WIDTH, VOCABULARY]);
        builder.tensor("output_norm.weight", &[WIDTH]);
        builder
    }

    fn key(&mut self, key: &str, value: impl Into<Value>) {
        self.metadata
            .set(format!("{}.{key}", self.architecture), value);
    }

    /// Numbers around zero; around one for vectors, which are norms.
    fn tensor(&mut self, name: &str, shape: &[u64]) {
        let count: u64 = shape.iter().product();
        let offset = if shape.len() == 1 { 1.0 } else { 0.0 };
        let scale = 1.0 / (shape[0] as f32).sqrt();
        let bytes = (0..count).flat_map(|_| {
            self.seed = self
                .seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let random = (self.seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            (offset + 2.0 * random * scale).to_le_bytes()
        });
        let info = TensorInfo {
            name: name.into(),
            shape: shape.to_vec(),
            ty: TensorType::F32,
        };
        self.tensors.push((info, bytes.collect()));
    }

    fn attention(&mut self, layer: usize) {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        self.tensor(&name("attn_norm"), &[WIDTH]);
        for (part, rows) in [("attn_q", WIDTH), ("attn_k", 32), ("attn_v", 32)] {
            self.tensor(&name(part), &[WIDTH, rows]);
        }
        self.tensor(&name("attn_output"), &[WIDTH, WIDTH]);
        self.tensor(&name("ffn_norm"), &[WIDTH]);
    }

    fn dense(&mut self, layer: usize) {
        let name = |part: &str| format!("blk.{layer}.ffn_{part}.weight");
        self.tensor(&name("gate"), &[WIDTH, 96]);
        self.tensor(&name("up"), &[WIDTH, 96]);
        self.tensor(&name("down"), &[96, WIDTH]);
    }

    fn open(&self, folder: &Path, threads: usize) -> Model {
        let path = folder.join(format!("{}.gguf", self.architecture));
        let infos: Vec<TensorInfo> = self.tensors.iter().map(|t| t.0.clone()).collect();
        let plan = Plan::new(&self.metadata, &infos, &Layout::default()).unwrap();
        let options = WriteOptions {
            replace: true,
            ..WriteOptions::default()
        };
        let writer = Writer::create(&path, plan, &options).unwrap();
        for (at, (_, bytes)) in self.tensors.iter().enumerate() {
            writer.write_rows(at, 0, bytes).unwrap();
        }
        writer.finish().unwrap();
        let threads = Some(threads);
        Model::open(&path, &LoadOptions { threads }).unwrap()
    }
}

/// Dense and expert layers with a sliding window in every other one.
fn mixture() -> Builder {
    let mut builder = Builder::new("gemma2", 2);
    builder.key("attention.head_count", 4u32);
    builder.key("attention.head_count_kv", 2u32);
    builder.key("attention.sliding_window", 70u32);
    builder.key("expert_count", 4u32);
    builder.key("expert_used_count", 2u32);
    for layer in 0..2 {
        builder.attention(layer);
    }
    builder.dense(0);
    let name = |part: &str| format!("blk.1.ffn_{part}.weight");
    builder.tensor(&name("gate_inp"), &[WIDTH, 4]);
    builder.tensor(&name("gate_exps"), &[WIDTH, 32, 4]);
    builder.tensor(&name("up_exps"), &[WIDTH, 32, 4]);
    builder.tensor(&name("down_exps"), &[32, WIDTH, 4]);
    builder
}

/// A short convolution, then attention.
fn hybrid() -> Builder {
    let mut builder = Builder::new("lfm2", 2);
    builder.key("attention.head_count", 4u32);
    builder.key(
        "attention.head_count_kv",
        Value::Array(gristmill_gguf::Array::U32(vec![0, 2])),
    );
    builder.key("shortconv.l_cache", 3u32);
    builder.tensor("token_embd_norm.weight", &[WIDTH]);
    builder.tensor("blk.0.attn_norm.weight", &[WIDTH]);
    builder.tensor("blk.0.ffn_norm.weight", &[WIDTH]);
    builder.tensor("blk.0.shortconv.conv.weight", &[3, WIDTH]);
    builder.tensor("blk.0.shortconv.in_proj.weight", &[WIDTH, 3 * WIDTH]);
    builder.tensor("blk.0.shortconv.out_proj.weight", &[WIDTH, WIDTH]);
    builder.dense(0);
    builder.attention(1);
    builder.dense(1);
    builder
}

fn text(seed: u32, len: u32) -> Vec<u32> {
    (0..len)
        .map(|i| (i * i + seed * 17) % VOCABULARY as u32)
        .collect()
}

fn options(kv_type: KvType) -> SessionOptions {
    SessionOptions {
        context: 150,
        sequences: 3,
        kv_type,
        ..SessionOptions::default()
    }
}

#[test]
fn grouping_of_tokens_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for builder in [mixture(), hybrid()] {
        let model = builder.open(folder.path(), 2);
        let width = model.width();
        for kv_type in [KvType::F32, KvType::F16, KvType::Q8_0] {
            let texts = [text(1, 150), text(2, 7), text(3, 100)];
            let batch: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let mut session = model.session(&options(kv_type)).unwrap();
            let together = session.forward(&batch).unwrap();
            assert!(together.iter().all(|x| x.is_finite()));

            let single = builder.open(folder.path(), 1);
            let mut session = single.session(&options(kv_type)).unwrap();
            let (mut at, cuts) = (0, [1, 65, 2, 150]);
            for (text, tokens) in texts.iter().enumerate() {
                let mut rest = tokens.as_slice();
                for cut in cuts.iter().cycle() {
                    if rest.is_empty() {
                        break;
                    }
                    let (part, tail) = rest.split_at((*cut).min(rest.len()));
                    rest = tail;
                    let mut batch: Vec<&[u32]> = vec![&[]; 3];
                    batch[text] = part;
                    let hidden = session.forward(&batch).unwrap();
                    assert_eq!(
                        hidden,
                        together[at..at + hidden.len()],
                        "{kv_type} text {text}"
                    );
                    at += part.len() * width;
                }
            }
            assert_eq!(at, together.len());
        }
    }
}

#[test]
fn a_reset_session_starts_anew() {
    let folder = tempfile::tempdir().unwrap();
    let model = hybrid().open(folder.path(), 1);
    let mut session = model.session(&options(KvType::F16)).unwrap();
    let text = text(5, 20);
    let first = session.forward(&[&text]).unwrap();
    session.reset();
    assert!(session.is_empty());
    assert_eq!(session.forward(&[&text]).unwrap(), first);
}

#[test]
fn bad_calls_are_refused_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = mixture().open(folder.path(), 1);
    let mut session = model.session(&options(KvType::F32)).unwrap();
    let unknown = session.forward(&[&[1, 96]]).unwrap_err().to_string();
    assert!(unknown.contains("96"), "{unknown}");
    assert!(session.forward(&[&text(0, 151)]).is_err());
    assert!(session.forward(&[&[], &[], &[], &[1]]).is_err());
    assert!(session.is_empty());
    assert!(session.encode(&[&[1]]).is_err());
}

#[test]
fn logits_of_parts_are_the_logits() {
    let folder = tempfile::tempdir().unwrap();
    let model = mixture().open(folder.path(), 1);
    let mut session = model.session(&options(KvType::F32)).unwrap();
    let hidden = session.forward(&[&text(1, 5)]).unwrap();
    let all = session.logits(hidden.clone());
    let head = session.head(hidden);
    for part in [0..1, 1..50, 50..96] {
        let mut out = vec![0.0; 5 * part.len()];
        head.logits(part.clone(), &mut out);
        for (token, row) in out.chunks(part.len()).enumerate() {
            assert_eq!(row, &all[token * 96..][part.clone()]);
        }
    }
}

#[test]
fn importance_counts_tokens_and_squares() {
    let folder = tempfile::tempdir().unwrap();
    let model = mixture().open(folder.path(), 1);
    let options = SessionOptions {
        collect: true,
        exact: true,
        ..options(KvType::F32)
    };
    let mut session = model.session(&options).unwrap();
    session.forward(&[&text(1, 40), &text(2, 20)]).unwrap();
    let collected = session.take_importance().unwrap();
    let sums = collected.sums();
    assert_eq!(sums["blk.0.attn_q.weight"].counts, [60]);
    assert_eq!(sums["blk.0.attn_q.weight"], sums["blk.0.attn_k.weight"]);
    // Every token goes to two experts.
    let experts = &sums["blk.1.ffn_up_exps.weight"];
    assert_eq!(experts.counts.iter().sum::<u64>(), 120);
    assert_eq!(experts.squares.len(), 4 * 64);
    assert!(!sums.contains_key("token_embd.weight"));
    // The inputs of a normalised block have a known length: squares of norm weights times width.
    let total: f64 = sums["blk.1.ffn_gate_inp.weight"].squares.iter().sum();
    let routed: f64 = experts.squares.iter().sum();
    assert!((routed / total - 2.0).abs() < 1e-6, "{routed} {total}");
}

#[test]
fn generation_repeats_with_its_seed_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let model = hybrid().open(folder.path(), 1);
    let run = |seed, ends: &[u32]| {
        let mut session = model.session(&options(KvType::F16)).unwrap();
        let mut sampler = Sampler::new(Sampling {
            seed,
            ..Sampling::default()
        });
        gristmill_engine::generate(&mut session, &[1, 2, 3], 20, &mut sampler, ends, |_| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap()
        .tokens
    };
    let first = run(1, &[]);
    assert_eq!(first.len(), 20);
    assert_eq!(first, run(1, &[]));
    assert!(run(1, &[first[0]]).is_empty());
}

#[test]
fn pooling_makes_one_vector() {
    let folder = tempfile::tempdir().unwrap();
    let model = mixture().open(folder.path(), 1);
    let mut session = model.session(&options(KvType::F32)).unwrap();
    let batch: [&[u32]; 2] = [&[1, 2], &[3]];
    let hidden = session.forward(&batch).unwrap();
    let mean = session.pool(&batch, &hidden, Pooling::Mean).unwrap();
    assert_eq!(mean[1], hidden[128..]);
    assert_eq!(
        session.pool(&batch, &hidden, Pooling::Last).unwrap()[0],
        hidden[64..128]
    );
    assert_eq!(
        session.pool(&batch, &hidden, Pooling::Cls).unwrap()[0],
        hidden[..64]
    );
    assert!((mean[0][7] - (hidden[7] + hidden[71]) / 2.0).abs() < 1e-6);
    assert!(session.pool(&batch, &hidden, Pooling::Rank).is_err());
}
