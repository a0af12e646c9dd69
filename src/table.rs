//! The table of measured variants, as release and compare print it.

use comfy_table::{CellAlignment, Table, presets};
use gristmill_perplexity::report::{Report, Variant};

/// A table without borders, its first `left` columns left-aligned and the others right-aligned.
pub fn plain(header: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Bytes as GiB.
pub fn gib(bytes: u64) -> String {
    format!("{:.3} GiB", bytes as f64 / (1u64 << 30) as f64)
}

/// The variants of a report.
pub fn variants(report: &Report) -> String {
    let header = [
        "type",
        "size",
        "bytes",
        "bpw",
        "perplexity",
        "±",
        "ppl ratio",
        "mean KL",
        "±",
        "99 % KL",
        "same top %",
        "prompt t/s",
        "gen t/s",
    ];
    let mut table = plain(&header, 1);
    for variant in &report.variants {
        table.add_row(row(variant));
    }
    let base = format!(
        "base {}: perplexity {:.4} ± {:.4} on {} ({} chunks of {} tokens)\n",
        report.base.file,
        report.base.perplexity,
        report.base.perplexity_error,
        report.text.file,
        report.text.chunks,
        report.text.context,
    );
    format!("{}\n{base}", trimmed(&table))
}

/// The table's text without spaces at line ends.
pub fn trimmed(table: &Table) -> String {
    table
        .to_string()
        .lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
}

fn row(variant: &Variant) -> Vec<String> {
    let measured = &variant.measured;
    let mut cells = vec![
        variant.ty.clone(),
        gib(variant.size_bytes),
        variant.size_bytes.to_string(),
        format!("{:.3}", variant.bits_per_weight),
        format!("{:.4}", measured.perplexity),
        format!("{:.4}", measured.perplexity_error),
    ];
    match &measured.against {
        Some(d) => cells.extend([
            format!("{:.5}", d.perplexity_ratio),
            format!("{:.6}", d.kl_mean),
            format!("{:.6}", d.kl_error),
            format!("{:.5}", d.kl_p99),
            format!("{:.2}", 100.0 * d.same_top),
        ]),
        None => cells.extend(std::iter::repeat_n("-".to_owned(), 5)),
    }
    for speed in [
        variant.prompt_tokens_per_second,
        variant.generation_tokens_per_second,
    ] {
        cells.push(speed.map_or_else(|| "-".to_owned(), |speed| format!("{speed:.1}")));
    }
    cells
}
