//! Every scheme against values that were quantized here: packed by the format's own rules, and
//! multiplied out directly.

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value as Json, json};

use super::read;
use crate::Error;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::expr::Expr;

mod four_bits;
mod integers;

/// Stored tensors of a checkpoint under construction.
#[derive(Default)]
struct Store(Vec<(String, Dtype, Vec<usize>, Vec<u8>)>);

impl Store {
    fn put(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) {
        self.0.push((name.into(), dtype, shape.to_vec(), bytes));
    }

    fn f32(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.put(name, Dtype::F32, shape, bytes);
    }

    fn f16(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes());
        self.put(name, Dtype::F16, shape, bytes.collect());
    }

    fn bf16(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes());
        self.put(name, Dtype::BF16, shape, bytes.collect());
    }

    fn i32(&mut self, name: &str, shape: &[usize], words: &[u32]) {
        let bytes = words.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.put(name, Dtype::I32, shape, bytes);
    }

    /// What the scheme makes of it.
    fn read(&self, config: &Json) -> Result<Vec<(String, Expr)>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let views = self.0.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let path = folder.path().join("model.safetensors");
        safetensors::serialize_to_file(views, None, &path).unwrap();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let checkpoint = Checkpoint::open(folder.path())?;
        read(checkpoint.tensors(), &Config::new(checkpoint.config()))
    }

    /// The only tensor that the scheme makes of it, by rows of several sizes.
    fn only(&self, config: &Json) -> Vec<f32> {
        let found = self.read(config).unwrap();
        let [(name, expr)] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(name, "m.weight");
        let rows = expr.row_count();
        let whole = expr.f32_rows(0..rows).unwrap();
        let mut parts = expr.f32_rows(0..1).unwrap();
        parts.extend(expr.f32_rows(1..rows - 1).unwrap());
        parts.extend(expr.f32_rows(rows - 1..rows).unwrap());
        assert_eq!(parts, whole);
        whole
    }
}

/// Numbers that are the same on every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % n
    }

    fn many(&mut self, count: usize, n: u64) -> Vec<u32> {
        (0..count).map(|_| self.below(n) as u32).collect()
    }

    /// Numbers that f16 and bf16 hold exactly.
    fn scales(&mut self, count: usize) -> Vec<f32> {
        (0..count)
            .map(|_| (self.below(127) + 1) as f32 / 64.0)
            .collect()
    }
}

fn config(scheme: Json) -> Json {
    json!({"architectures": ["LlamaForCausalLM"], "quantization_config": scheme})
}

/// A stream of fields in words, the first in the lowest bits.
fn packed(fields: impl IntoIterator<Item = u32>, bits: usize) -> Vec<u32> {
    let mut out = Vec::new();
    let (mut held, mut have) = (0u64, 0);
    for field in fields {
        held |= u64::from(field) << have;
        have += bits;
        while have >= 32 {
            out.push(held as u32);
            held >>= 32;
            have -= 32;
        }
    }
    if have > 0 {
        out.push(held as u32);
    }
    out
}

fn transposed<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    let rows = values.len() / columns;
    (0..columns)
        .flat_map(|column| (0..rows).map(move |row| values[row * columns + column]))
        .collect()
}

#[test]
fn parts_that_do_not_fit_are_named() {
    let wrong = |store: &Store, scheme: Json| store.read(&config(scheme)).unwrap_err().to_string();
    let mut store = Store::default();
    store.i32("m.qweight", &[8, 32], &[0; 256]);
    let gptq = json!({"quant_method": "gptq", "bits": 4, "group_size": 64});
    assert!(wrong(&store, gptq.clone()).contains("m.qzeros"));
    store.i32("m.qzeros", &[1, 4], &[0; 4]);
    store.f16("m.scales", &[1, 31], &[1.0; 31]);
    assert!(wrong(&store, gptq).contains("do not fit 4 bits"));

    let mut store = Store::default();
    store.put("m.weight", Dtype::F8_E4M3, &[4, 4], vec![0; 16]);
    store.f32("m.weight_scale", &[3], &[1.0; 3]);
    assert!(wrong(&store, json!({"quant_method": "fp8"})).contains("m.weight_scale"));

    let mut store = Store::default();
    store.put("m.weight", Dtype::U8, &[8, 1], vec![0; 8]);
    let state = br#"{"blocksize": 64, "shape": [4, 1000000]}"#.to_vec();
    store.put(
        "m.weight.quant_state.bitsandbytes__nf4",
        Dtype::U8,
        &[state.len()],
        state,
    );
    assert!(wrong(&store, json!({"quant_method": "bitsandbytes"})).contains("no 4-bit codes"));

    assert!(wrong(&store, json!({"quant_method": "hqq"})).contains("`hqq`"));
}
