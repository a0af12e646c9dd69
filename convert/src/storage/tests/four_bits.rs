//! Four-bit floats and codes of a table, of which those that GGUF has blocks for are kept.

use super::*;
use crate::storage::mxfp4;

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
    let expr = mxfp4::expr(blocks, stored).unwrap();
    for (at, value) in decoded(&expr).iter().enumerate() {
        let scale = 2f32.powi(i32::from(scales[at / 32]) - 127);
        assert_eq!(*value, e2m1(codes[at]) * scale);
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
