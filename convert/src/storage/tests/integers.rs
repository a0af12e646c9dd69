//! Integers with scales: GPTQ, AWQ, compressed-tensors, MLX, 8-bit values of several kinds, BitNet.

use super::*;

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
