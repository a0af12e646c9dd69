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
fn gptq() {
    let (inputs, outputs, groups) = (64, 32, 4);
    for bits in [2, 3, 4, 8] {
        for (v2, shuffled) in [(false, false), (false, true), (true, true)] {
            let mut dice = Dice(bits as u64);
            let quants = dice.many(inputs * outputs, 1 << bits);
            // The first format cannot store a zero point of 0.
            let zeros: Vec<u32> = dice
                .many(groups * outputs, (1 << bits) - 1)
                .iter()
                .map(|zero| zero + 1)
                .collect();
            let scales = dice.scales(groups * outputs);
            let index: Vec<usize> = (0..inputs)
                .map(|input| {
                    if shuffled {
                        input * 7 % groups
                    } else {
                        input * groups / inputs
                    }
                })
                .collect();
            // quants[output][input], packed down the columns of the stored matrix.
            let columns: Vec<u32> = quants
                .chunks(inputs)
                .flat_map(|row| packed(row.iter().copied(), bits))
                .collect();
            let words = inputs * bits / 32;
            let less = u32::from(!v2);
            let zero_words: Vec<u32> = zeros
                .chunks(outputs)
                .flat_map(|row| packed(row.iter().map(|zero| zero - less), bits))
                .collect();
            let mut store = Store::default();
            store.i32("m.qweight", &[words, outputs], &transposed(&columns, words));
            store.i32("m.qzeros", &[groups, outputs * bits / 32], &zero_words);
            store.f16("m.scales", &[groups, outputs], &scales);
            if shuffled {
                let index: Vec<u32> = index.iter().map(|&group| group as u32).collect();
                store.i32("m.g_idx", &[inputs], &index);
            }
            let format = if v2 { "gptq_v2" } else { "gptq" };
            let found = store.only(&config(json!({
                "quant_method": "gptq", "bits": bits, "group_size": inputs / groups,
                "checkpoint_format": format, "desc_act": shuffled
            })));
            for (at, value) in found.iter().enumerate() {
                let (output, input) = (at / inputs, at % inputs);
                let of = index[input] * outputs + output;
                let steps = f64::from(quants[at]) - f64::from(zeros[of]);
                assert_eq!(
                    f64::from(*value),
                    steps * f64::from(scales[of]),
                    "{bits} bits"
                );
            }
        }
    }
}

#[test]
fn awq() {
    let (inputs, outputs, groups) = (32, 24, 2);
    let mut dice = Dice(5);
    let quants = dice.many(inputs * outputs, 16);
    let zeros = dice.many(groups * outputs, 16);
    let scales = dice.scales(groups * outputs);
    // Eight columns to a word, in this order from the lowest bits on.
    let word = |eight: &[u32]| packed([0, 2, 4, 6, 1, 3, 5, 7].map(|at| eight[at]), 4)[0];
    let words = |values: &[u32]| values.chunks(8).map(word).collect::<Vec<u32>>();
    let mut store = Store::default();
    store.i32("m.qweight", &[inputs, outputs / 8], &words(&quants));
    store.i32("m.qzeros", &[groups, outputs / 8], &words(&zeros));
    store.f16("m.scales", &[groups, outputs], &scales);
    let found = store.only(&config(json!({
        "quant_method": "awq", "bits": 4, "group_size": inputs / groups, "version": "gemm"
    })));
    let expected: Vec<f32> = (0..inputs * outputs)
        .map(|at| {
            let of = at / outputs / (inputs / groups) * outputs + at % outputs;
            (quants[at] as f32 - zeros[of] as f32) * scales[of]
        })
        .collect();
    assert_eq!(found, transposed(&expected, outputs));
}

#[test]
fn compressed_packed() {
    let (rows, columns) = (12, 40);
    for (bits, groups, zeroed) in [(4, 5, false), (4, 1, true), (8, 2, true), (8, 5, false)] {
        let mut dice = Dice(bits as u64 * 3 + groups as u64);
        let quants = dice.many(rows * columns, 1 << bits);
        let zeros = dice.many(rows * groups, 1 << bits);
        let scales = dice.scales(rows * groups);
        let words: Vec<u32> = quants
            .chunks(columns)
            .flat_map(|row| packed(row.iter().copied(), bits))
            .collect();
        let mut store = Store::default();
        let per_row = words.len() / rows;
        store.i32("m.weight_packed", &[rows, per_row], &words);
        store.bf16("m.weight_scale", &[rows, groups], &scales);
        store.i32("m.weight_shape", &[2], &[rows as u32, columns as u32]);
        if zeroed {
            // Packed down the rows.
            let down: Vec<u32> = transposed(&zeros, groups)
                .chunks(rows)
                .flat_map(|column| packed(column.iter().copied(), bits))
                .collect();
            let high = down.len() / groups;
            store.i32(
                "m.weight_zero_point",
                &[high, groups],
                &transposed(&down, high),
            );
        }
        let found = store.only(&config(json!({
            "quant_method": "compressed-tensors", "format": "pack-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": bits}}}
        })));
        for (at, value) in found.iter().enumerate() {
            let of = at / columns * groups + at % columns / (columns / groups);
            let zero = if zeroed { zeros[of] } else { 1 << (bits - 1) };
            assert_eq!(*value, (quants[at] as f32 - zero as f32) * scales[of]);
        }
    }
}

#[test]
fn eight_bits_with_scales() {
    let (rows, columns) = (6, 10);
    let mut dice = Dice(9);
    let bytes: Vec<u8> = dice
        .many(rows * columns, 127)
        .iter()
        .map(|&b| b as u8)
        .collect();
    let e4m3 = |byte: u8| {
        let (exponent, mantissa) = (i32::from(byte >> 3), f64::from(byte & 7));
        match exponent {
            0 => mantissa / 8.0 * 2f64.powi(-6),
            _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
        }
    };
    let e5m2 = |byte: u8| {
        let (exponent, mantissa) = (i32::from(byte >> 2), f64::from(byte & 3));
        match exponent {
            0 => mantissa / 4.0 * 2f64.powi(-14),
            _ => (1.0 + mantissa / 4.0) * 2f64.powi(exponent - 15),
        }
    };
    let fp8 = |block: Json| config(json!({"quant_method": "fp8", "weight_block_size": block}));
    let ct = |format: &str| config(json!({"quant_method": "compressed-tensors", "format": format}));
    // Tensor, channel, block with a partial last one, groups of columns.
    for (shape, scheme, part) in [
        (vec![1], fp8(Json::Null), "_scale_inv"),
        (
            vec![rows, 1],
            json!({"quantization_config": {"quant_method": "fbgemm_fp8"}}),
            "_scale",
        ),
        (vec![2, 3], fp8(json!([4, 4])), "_scale_inv"),
        (vec![rows, 2], ct("float-quantized"), "_scale"),
    ] {
        let scales = dice.scales(shape.iter().product());
        let of = |row: usize, column: usize| match shape[..] {
            [2, 3] => row / 4 * 3 + column / 4,
            [_, 2] => row * 2 + column / 5,
            [_, 1] => row,
            _ => 0,
        };
        for (dtype, decode) in [
            (Dtype::F8_E4M3, &e4m3 as &dyn Fn(u8) -> f64),
            (Dtype::F8_E5M2, &e5m2),
            (Dtype::I8, &|byte: u8| f64::from(byte.cast_signed())),
        ] {
            let mut store = Store::default();
            // 124 and above are no numbers in E5M2.
            let bytes: Vec<u8> = bytes.iter().map(|&byte| byte.min(123)).collect();
            store.put("m.weight", dtype, &[rows, columns], bytes.clone());
            store.f32(&format!("m.weight{part}"), &shape, &scales);
            store.f32("m.input_scale", &[1], &[3.0]);
            let found = store.only(&scheme);
            for (at, value) in found.iter().enumerate() {
                let scale = f64::from(scales[of(at / columns, at % columns)]);
                assert_eq!(
                    *value,
                    (decode(bytes[at]) * scale) as f32,
                    "{dtype:?} {shape:?}"
                );
            }
        }
    }
    // With zero points.
    let mut store = Store::default();
    store.put("m.weight", Dtype::I8, &[rows, columns], bytes.clone());
    let scales = dice.scales(rows);
    store.f32("m.weight_scale", &[rows, 1], &scales);
    let zeros: Vec<u8> = (0..rows as i8)
        .map(|row| (row - 3).cast_unsigned())
        .collect();
    store.put("m.weight_zero_point", Dtype::I8, &[rows, 1], zeros);
    let found = store.only(&ct("int-quantized"));
    for (at, value) in found.iter().enumerate() {
        let row = at / columns;
        assert_eq!(
            *value,
            (f32::from(bytes[at]) - (row as f32 - 3.0)) * scales[row]
        );
    }
}

#[test]
fn mlx() {
    let (rows, columns) = (5, 128);
    for (bits, size) in [
        (2, 32),
        (3, 64),
        (4, 32),
        (4, 64),
        (5, 32),
        (6, 128),
        (8, 64),
    ] {
        let mut dice = Dice(bits as u64);
        let quants = dice.many(rows * columns, 1 << bits);
        let words: Vec<u32> = quants
            .chunks(columns)
            .flat_map(|row| packed(row.iter().copied(), bits))
            .collect();
        let groups = columns / size;
        let (scales, biases) = (dice.scales(rows * groups), dice.scales(rows * groups));
        let mut store = Store::default();
        let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        store.put("m.weight", Dtype::U32, &[rows, words.len() / rows], bytes);
        store.bf16("m.scales", &[rows, groups], &scales);
        store.bf16("m.biases", &[rows, groups], &biases);
        // Stated for all, or for this module alone.
        for scheme in [
            json!({"bits": bits, "group_size": size}),
            json!({"bits": 4, "group_size": 64, "m": {"bits": bits, "group_size": size}}),
        ] {
            let found = store.only(&json!({"quantization": scheme}));
            for (at, value) in found.iter().enumerate() {
                let of = at / size;
                assert_eq!(
                    *value,
                    quants[at] as f32 * scales[of] + biases[of],
                    "{bits} bits"
                );
            }
        }
    }
}

/// The values of 4-bit floats.
const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

fn e2m1(code: u32) -> f32 {
    let magnitude = E2M1[(code & 7) as usize];
    if code & 8 == 0 { magnitude } else { -magnitude }
}

/// Decodes what is kept in blocks.
fn decoded(expr: &Expr) -> Vec<f32> {
    let bytes = expr.rows(0..expr.row_count()).unwrap();
    let mut values = vec![0.0; expr.elements() as usize];
    gristmill_quantize::types::decode(expr.ty(), &bytes, &mut values).unwrap();
    values
}

#[test]
fn mlx_keeps_four_bit_floats() {
    let (rows, columns) = (3, 128);
    let mut dice = Dice(17);
    let codes = dice.many(rows * columns, 16);
    let words = packed(codes.iter().copied(), 4);
    for (mode, size) in [("mxfp4", 32), ("nvfp4", 16)] {
        let scales: Vec<u8> = (0..rows * columns / size)
            .map(|at| 120 + (at % 5) as u8)
            .collect();
        let mut store = Store::default();
        let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        store.put("m.weight", Dtype::U32, &[rows, columns / 8], bytes);
        // As E4M3 small exponents are enough.
        let stored: Vec<u8> = if mode == "nvfp4" {
            scales.iter().map(|scale| (scale - 115) << 3).collect()
        } else {
            scales.clone()
        };
        store.put("m.scales", Dtype::U8, &[rows, columns / size], stored);
        let scheme = json!({"quantization": {"mode": mode, "group_size": size, "bits": 4}});
        let found = store.read(&scheme).unwrap();
        let values = decoded(&found[0].1);
        assert_eq!(found[0].1.ty().name().to_lowercase(), mode);
        for (at, value) in values.iter().enumerate() {
            let scale = i32::from(scales[at / size]);
            let scale = if mode == "nvfp4" {
                scale - 115 - 7
            } else {
                scale - 127
            };
            assert_eq!(*value, e2m1(codes[at]) * 2f32.powi(scale), "{mode}");
        }
    }
}

#[test]
fn nvfp4_in_both_spellings() {
    let (rows, columns) = (4, 64);
    let mut dice = Dice(23);
    let codes = dice.many(rows * columns, 16);
    let bytes: Vec<u8> = codes
        .chunks(2)
        .map(|pair| (pair[0] | pair[1] << 4) as u8)
        .collect();
    let scales: Vec<u8> = dice
        .many(rows * columns / 16, 14)
        .iter()
        .map(|&e| (e as u8 + 1) << 3)
        .collect();
    let spelled = [
        (
            ["weight", "weight_scale_2", "input_scale"],
            0.25,
            json!({"quant_method": "modelopt", "quant_algo": "NVFP4"}),
        ),
        (
            ["weight_packed", "weight_global_scale", "input_global_scale"],
            4.0,
            json!({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}),
        ),
    ];
    for ([weight, global, input], factor, scheme) in spelled {
        let mut store = Store::default();
        store.put(
            &format!("m.{weight}"),
            Dtype::U8,
            &[rows, columns / 2],
            bytes.clone(),
        );
        store.put(
            "m.weight_scale",
            Dtype::F8_E4M3,
            &[rows, columns / 16],
            scales.clone(),
        );
        store.f32(&format!("m.{global}"), &[1], &[factor]);
        store.f32(&format!("m.{input}"), &[1], &[1.0]);
        let found = store.read(&config(scheme)).unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["m.weight", "m.scale"]);
        assert_eq!(found[1].1.f32_rows(0..1).unwrap(), [0.25]);
        for (at, value) in decoded(&found[0].1).iter().enumerate() {
            let scale = 2f32.powi(i32::from(scales[at / 16] >> 3) - 7);
            assert_eq!(*value, e2m1(codes[at]) * scale);
        }
    }
}

/// The levels of NF4, as the library's table has them.
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

#[test]
fn bitsandbytes_four_bits() {
    // Rows are no whole number of blocks, and the last block is short.
    let (rows, columns, block) = (6, 50, 64);
    let count = rows * columns;
    let mut dice = Dice(31);
    let codes = dice.many(count, 16);
    let bytes: Vec<u8> = codes
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect();
    let blocks = usize::div_ceil(count, block);
    for nested in [false, true] {
        let kind = if nested { "nf4" } else { "fp4" };
        let mut store = Store::default();
        store.put("m.weight", Dtype::U8, &[bytes.len(), 1], bytes.clone());
        store.f32("m.weight.quant_map", &[16], &NF4);
        let mut state = json!({"quant_type": kind, "blocksize": block, "shape": [rows, columns], "dtype": "bfloat16"});
        let absmax: Vec<f32> = if nested {
            let table: Vec<f32> = (0..256).map(|at| at as f32 / 128.0 - 1.0).collect();
            let inner: Vec<u8> = dice
                .many(blocks, 256)
                .iter()
                .map(|&code| code as u8)
                .collect();
            let outer = dice.scales(blocks.div_ceil(2));
            store.put("m.weight.absmax", Dtype::U8, &[blocks], inner.clone());
            store.f32("m.weight.nested_quant_map", &[256], &table);
            store.f32("m.weight.nested_absmax", &[outer.len()], &outer);
            state["nested_blocksize"] = 2.into();
            state["nested_offset"] = 0.5.into();
            inner
                .iter()
                .enumerate()
                .map(|(at, &code)| table[usize::from(code)] * outer[at / 2] + 0.5)
                .collect()
        } else {
            let plain = dice.scales(blocks);
            store.f32("m.weight.absmax", &[blocks], &plain);
            plain
        };
        let state = state.to_string().into_bytes();
        store.put(
            &format!("m.weight.quant_state.bitsandbytes__{kind}"),
            Dtype::U8,
            &[state.len()],
            state,
        );
        let found = store.only(&config(
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true}),
        ));
        for (at, value) in found.iter().enumerate() {
            assert_eq!(*value, NF4[codes[at] as usize] * absmax[at / block]);
        }
    }
}

#[test]
fn bitsandbytes_eight_bits() {
    let (rows, columns) = (4, 6);
    let mut dice = Dice(37);
    let bytes: Vec<u8> = dice
        .many(rows * columns, 256)
        .iter()
        .map(|&b| b as u8)
        .collect();
    let scales = dice.scales(rows);
    let mut store = Store::default();
    store.put("m.weight", Dtype::I8, &[rows, columns], bytes.clone());
    store.f32("m.SCB", &[rows], &scales);
    store.put("m.weight_format", Dtype::U8, &[], vec![0]);
    let found = store.only(&config(json!({"load_in_8bit": true})));
    for (at, value) in found.iter().enumerate() {
        let exact = f64::from(bytes[at].cast_signed()) * f64::from(scales[at / columns]) / 127.0;
        assert!((f64::from(*value) - exact).abs() <= 2e-7 * exact.abs());
    }
}

#[test]
fn bitnet_packed() {
    let (quarter, columns) = (3, 8);
    let mut dice = Dice(41);
    let levels = dice.many(4 * quarter * columns, 3);
    let bytes: Vec<u8> = (0..quarter * columns)
        .map(|at| {
            (0..4)
                .map(|part| levels[part * quarter * columns + at] << (2 * part))
                .sum::<u32>() as u8
        })
        .collect();
    let mut store = Store::default();
    store.put("m.weight", Dtype::U8, &[quarter, columns], bytes);
    store.bf16("m.weight_scale", &[1], &[4.0]);
    let scheme = config(json!({"quant_method": "bitnet"}));
    let expected: Vec<f32> = levels
        .iter()
        .map(|&level| (level as f32 - 1.0) / 4.0)
        .collect();
    assert_eq!(store.only(&scheme), expected);
    // Ternary weights are not rounded once more.
    let expr = store.read(&scheme).unwrap()[0].1.ternary();
    assert_eq!(expr.f32_rows(0..4 * quarter as u64).unwrap(), expected);
}

#[test]
fn mxfp4_keeps_its_blocks() {
    let (experts, rows, blocks) = (2, 3, 2);
    let mut dice = Dice(43);
    let codes = dice.many(experts * rows * blocks * 32, 16);
    let bytes: Vec<u8> = codes
        .chunks(2)
        .map(|pair| (pair[0] | pair[1] << 4) as u8)
        .collect();
    let scales: Vec<u8> = dice
        .many(experts * rows * blocks, 20)
        .iter()
        .map(|&s| s as u8 + 118)
        .collect();
    let mut store = Store::default();
    store.put("b", Dtype::U8, &[experts, rows, blocks, 16], bytes);
    store.put("s", Dtype::U8, &[experts, rows, blocks], scales.clone());
    let folder = tempfile::tempdir().unwrap();
    let views = store.0.iter().map(|(name, dtype, shape, bytes)| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let [blocks, stored] = checkpoint.tensors() else {
        panic!()
    };
    let expr = super::mxfp4::expr(blocks, stored).unwrap();
    for (at, value) in decoded(&expr).iter().enumerate() {
        let scale = 2f32.powi(i32::from(scales[at / 32]) - 127);
        assert_eq!(*value, e2m1(codes[at]) * scale);
    }
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
