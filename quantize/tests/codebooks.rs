//! The constant tables against those of llama.cpp.

#[path = "../../fixtures/golden.rs"]
mod golden;

use gristmill_quantize::codebooks::{self, Grid};
use sha2::{Digest, Sha256};

/// SHA-256 of every table, from the golden folder.
fn hashes() -> Option<serde_json::Value> {
    let folder = golden::golden("codebooks")?;
    let text = std::fs::read(folder.join("codebooks.json")).unwrap();
    let all: serde_json::Value = serde_json::from_slice(&text).unwrap();
    Some(all["tensors"].clone())
}

fn grid_bytes<const D: usize, const N: usize>(grid: &Grid<D, N>) -> Vec<u8> {
    grid.as_flattened().iter().map(|&v| v as u8).collect()
}

fn floats(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

#[test]
fn tables_have_the_published_hashes() {
    let Some(hashes) = hashes() else { return };
    let tables = [
        ("iq2xxs_grid", grid_bytes(&codebooks::IQ2XXS_GRID)),
        ("iq2xs_grid", grid_bytes(&codebooks::IQ2XS_GRID)),
        ("iq2s_grid", grid_bytes(&codebooks::IQ2S_GRID)),
        ("iq1s_grid", grid_bytes(&codebooks::IQ1S_GRID)),
        ("iq3xxs_grid", grid_bytes(&codebooks::IQ3XXS_GRID)),
        ("iq3s_grid", grid_bytes(&codebooks::IQ3S_GRID)),
        ("ksigns", (0..128).map(codebooks::even_signs).collect()),
        ("iq4nl_values", grid_bytes(&[codebooks::IQ4_VALUES])),
        ("e2m1_doubled", grid_bytes(&[codebooks::E2M1_DOUBLED])),
        ("e8m0_half", floats((0..=255).map(codebooks::e8m0_half))),
        ("ue4m3_half", floats((0..128).map(codebooks::ue4m3_half))),
    ];
    for (name, bytes) in &tables {
        let expected = hashes[name][2].as_str().unwrap();
        let hash: String = Sha256::digest(bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hash, expected, "{name}");
    }
    println!("checked {} tables", tables.len());
}
