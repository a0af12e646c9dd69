//! `grist bench`.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use gristmill_perplexity::speed::{self, Rate, Speed, Workload};
use gristmill_quantize::Isa;
use serde_json::{Value, json};

use crate::context::Context;
use crate::measure::{self, Arithmetic};
use crate::report::{Exit, Outcome, Report};
use crate::table;

/// Arguments of `grist bench`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// GGUF files
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// Tokens of the prompt, evaluated at once; 0 leaves it out
    #[arg(short, long, value_name = "N", default_value_t = 512)]
    prompt: usize,
    /// Tokens generated one by one; 0 leaves it out
    #[arg(short = 'n', long = "tokens", value_name = "N", default_value_t = 128)]
    generated: usize,
    /// Tokens in the cache before either starts
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    depth: usize,
    /// Runs, after one that is not counted
    #[arg(short, long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    #[command(flatten)]
    arithmetic: Arithmetic,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What one file gave.
struct Row {
    file: String,
    ty: String,
    size_bytes: u64,
    load_seconds: f64,
    speed: Speed,
}

/// Measures and prints.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let isa = Isa::detect().map_err(|error| Report::environment(error.to_string()))?;
    let bar = context.count_bar("measuring", arguments.models.len() as u64);
    let mut rows = Vec::new();
    for path in &arguments.models {
        context.check_interrupt()?;
        let start = Instant::now();
        let model = measure::open(path, context)?;
        let load_seconds = start.elapsed().as_secs_f64();
        let workload = Workload {
            prompt: arguments.prompt,
            generated: arguments.generated,
            depth: arguments.depth,
            runs: arguments.runs as usize,
        };
        let speed = speed::measure(&model, &arguments.arithmetic.session(), &workload)
            .map_err(|error| measure::failed(path, error))?;
        rows.push(Row {
            file: path.display().to_string(),
            ty: measure::type_name(&model),
            size_bytes: model.file().bytes(),
            load_seconds,
            speed,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let threads = context.threads();
    if arguments.json {
        let kv_type = if arguments.arithmetic.exact {
            "f32".to_owned()
        } else {
            arguments.arithmetic.kv_name()
        };
        context.print_json(&json!({
            "threads": threads,
            "instruction_set": isa.to_string(),
            "exact": arguments.arithmetic.exact,
            "kv_type": kv_type,
            "prompt_tokens": arguments.prompt,
            "generated_tokens": arguments.generated,
            "depth_tokens": arguments.depth,
            "runs": arguments.runs,
            "models": rows.iter().map(document).collect::<Vec<_>>(),
        }))?;
    } else {
        context.print(&text(&rows, arguments, threads, isa))?;
    }
    Ok(Exit::Done)
}

fn document(row: &Row) -> Value {
    let median = |rate: Option<Rate>| rate.map(|rate| rate.median);
    let range = |rate: Option<Rate>| rate.map(|rate| [rate.lowest, rate.highest]);
    json!({
        "file": row.file,
        "type": row.ty,
        "size_bytes": row.size_bytes,
        "load_seconds": row.load_seconds,
        "anonymous_bytes": row.speed.anonymous_bytes,
        "prompt_tokens_per_second": median(row.speed.prompt),
        "prompt_tokens_per_second_range": range(row.speed.prompt),
        "generation_tokens_per_second": median(row.speed.generation),
        "generation_tokens_per_second_range": range(row.speed.generation),
    })
}

fn text(rows: &[Row], arguments: &Arguments, threads: usize, isa: Isa) -> String {
    let header = [
        "file",
        "type",
        "size",
        "load s",
        "anonymous",
        "prompt t/s",
        "±",
        "gen t/s",
        "±",
    ];
    let mut table = table::plain(&header, 2);
    for row in rows {
        let mut cells = vec![
            row.file.clone(),
            row.ty.clone(),
            table::gib(row.size_bytes),
            format!("{:.3}", row.load_seconds),
            row.speed
                .anonymous_bytes
                .map_or_else(|| "-".to_owned(), table::gib),
        ];
        for rate in [row.speed.prompt, row.speed.generation] {
            match rate {
                Some(rate) => cells.extend([
                    format!("{:.2}", rate.median),
                    format!("{:.2}", (rate.highest - rate.lowest) / 2.0),
                ]),
                None => cells.extend(["-".to_owned(), "-".to_owned()]),
            }
        }
        table.add_row(cells);
    }
    let Arguments {
        prompt,
        generated,
        depth,
        runs,
        ..
    } = arguments;
    format!(
        "{}\nmedians of {runs} runs: {prompt} tokens of prompt, {generated} generated, {depth} before; \
         {threads} threads, {isa}\n",
        table::trimmed(&table),
    )
}
