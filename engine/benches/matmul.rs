//! Speed of products by type: prompt (GOPS, two operations per multiplication) and generation (GB/s
//! of stored weights).
//!
//! `cargo bench -p gristmill-engine --bench matmul -- [TYPE,TYPE,...] [threads] [rows] [cols] [tokens]`
//!
//! With one thread the time is that of the thread on its CPU (Linux), which neighbours hardly move.

use std::sync::Arc;
use std::time::Instant;

use gristmill_engine::matmul::{Activations, Compute, Matrix, is_supported};
use gristmill_engine::pool::Pool;
use gristmill_gguf::{TensorData, TensorType};
use gristmill_quantize::Isa;

/// Seconds that this thread has run.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? * 1e-9)
}

/// Seconds of a call, on average over a quarter of a second: the thread's clock ticks every 4 ms.
fn seconds(cpu: bool, mut call: impl FnMut()) -> f64 {
    call();
    let start = Instant::now();
    let now = || match cpu_seconds().filter(|_| cpu) {
        Some(seconds) => seconds,
        None => start.elapsed().as_secs_f64(),
    };
    let before = now();
    for calls in 1.. {
        call();
        let passed = now() - before;
        if passed > 0.25 {
            return passed / f64::from(calls);
        }
    }
    unreachable!("the clock runs")
}

fn matrix(ty: TensorType, rows: usize, cols: usize) -> Option<Matrix> {
    let bytes = ty.row_bytes(cols as u64)? as usize * rows;
    let mut state = 1u32;
    let data: Vec<u8> = (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // As f16, bf16 or f32 these are all normal and finite.
            (state >> 24) as u8 & 0xBB | 0x20
        })
        .collect();
    Matrix::new(ty, rows, cols, TensorData::from(data)).ok()
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let types: Vec<TensorType> = match arguments.next().filter(|a| a != "all") {
        Some(list) => list
            .split(',')
            .map(|name| name.parse().expect("a type"))
            .collect(),
        None => TensorType::all().filter(|&ty| is_supported(ty)).collect(),
    };
    let mut number = |default| {
        arguments
            .next()
            .map_or(default, |a| a.parse().expect("a number"))
    };
    let (threads, rows, cols, tokens) = (number(1), number(2048), number(2048), number(512));
    let pool = Arc::new(Pool::new(Some(threads)));
    let cpu = pool.threads() == 1;
    let isa = Isa::detect().expect("GRIST_CPU names a set that this CPU has");
    println!(
        "{isa}, {} threads, {rows} x {cols}, {tokens} tokens",
        pool.threads()
    );
    for ty in types {
        let Some(one) = matrix(ty, rows, cols) else {
            println!("{ty:8} rows do not fit");
            continue;
        };
        // Large enough that generation reads memory, not the cache.
        let large_rows = (128 << 20) / one.row_bytes();
        let large = matrix(ty, large_rows, cols).expect("the row fits");
        for exact in [false, true] {
            let compute = Compute::new(isa, exact, Arc::clone(&pool));
            let values: Vec<f32> = (0..tokens * cols)
                .map(|i| (i as f32 * 0.37).sin())
                .collect();
            let mut x = Activations::default();
            let mut out = vec![0.0; tokens * rows];
            let prompt = seconds(cpu, || {
                x.reset(tokens, cols).copy_from_slice(&values);
                compute.mul(&one, &x, &mut out);
            });
            let mut out = vec![0.0; large_rows];
            let generation = seconds(cpu, || {
                x.reset(1, cols).copy_from_slice(&values[..cols]);
                compute.mul(&large, &x, &mut out);
            });
            println!(
                "{ty:8} {:7} prompt {:7.1} GOPS   generation {:6.2} GB/s {:7.2} G weights/s",
                if exact { "exact" } else { "default" },
                2e-9 * (rows * cols * tokens) as f64 / prompt,
                1e-9 * (large_rows * large.row_bytes()) as f64 / generation,
                1e-9 * (large_rows * cols) as f64 / generation,
            );
            if !ty.is_quantized() {
                break;
            }
        }
    }
}
