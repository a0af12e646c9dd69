//! The table of a comparison as a page of its own.

use std::fmt::Write as _;

use crate::report::Report;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}\
table{border-collapse:collapse;width:100%}th,td{padding:.35rem .6rem;text-align:right;\
border-bottom:1px solid #8884}th:first-child,td:first-child{text-align:left}\
.bar{display:inline-block;height:.7em;background:#4a7;vertical-align:baseline}\
caption{text-align:left;padding:.5rem 0}";

/// Renders the report; the page needs no other file and no script.
pub fn render(report: &Report) -> String {
    let worst = report
        .variants
        .iter()
        .filter_map(|v| v.measured.against.as_ref())
        .map(|d| d.kl_mean)
        .fold(0.0, f64::max);
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{base}: variants</title><style>{STYLE}</style>\
         <table><caption>Held against <code>{base}</code> (perplexity {:.4} ± {:.4}) on <code>{}</code>, {} chunks of {} \
         tokens</caption><tr><th>file<th>size<th>bits/weight<th>perplexity<th>ratio<th>mean KL<th>99 % KL<th>same top\
         <th>prompt t/s<th>generation t/s<th>KL</tr>",
        report.base.perplexity,
        report.base.perplexity_error,
        escaped(&report.text.file),
        report.text.chunks,
        report.text.context,
        base = escaped(&report.base.file),
    );
    for variant in &report.variants {
        let speed = |speed: Option<f64>| {
            speed.map_or_else(|| "–".to_owned(), |speed| format!("{speed:.1}"))
        };
        let _ = write!(
            page,
            "<tr><td>{}<td>{:.3} GiB<td>{:.2}<td>{:.4} ± {:.4}",
            escaped(&variant.file),
            variant.size_bytes as f64 / (1u64 << 30) as f64,
            variant.bits_per_weight,
            variant.measured.perplexity,
            variant.measured.perplexity_error,
        );
        match &variant.measured.against {
            Some(d) => {
                let _ = write!(
                    page,
                    "<td>{:.5}<td>{:.6}<td>{:.5}<td>{:.2} %",
                    d.perplexity_ratio,
                    d.kl_mean,
                    d.kl_p99,
                    100.0 * d.same_top
                );
            }
            None => page.push_str("<td>–<td>–<td>–<td>–"),
        }
        let share = variant
            .measured
            .against
            .as_ref()
            .map_or(0.0, |d| d.kl_mean / worst.max(f64::MIN_POSITIVE));
        let _ = writeln!(
            page,
            "<td>{}<td>{}<td><span class=\"bar\" style=\"width:{:.1}px\"></span></tr>",
            speed(variant.prompt_tokens_per_second),
            speed(variant.generation_tokens_per_second),
            100.0 * share,
        );
    }
    page.push_str("</table></html>\n");
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn names_cannot_break_the_page() {
        assert_eq!(escaped("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }
}
