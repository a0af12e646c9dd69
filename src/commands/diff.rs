//! `grist diff`.

use std::path::PathBuf;

use clap::Args;
use gristmill_gguf::diff::{self, Difference, TensorDifference};
use gristmill_gguf::error::Shown;
use gristmill_gguf::{File, TensorInfo, Value};
use serde_json::{Value as Json, json};

use crate::context::Context;
use crate::report::{Exit, Outcome, Report};
use crate::values;

/// Arguments of `grist diff`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A GGUF file, or any part of a split set
    first: PathBuf,
    /// Another
    second: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Prints what distinguishes two models; exits with 1 if anything does. Byte order, alignment and
/// splits do not.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let first = File::open(&arguments.first)?;
    let second = File::open(&arguments.second)?;
    let difference =
        diff::diff(&first, &second).map_err(|error| Report::input(error.to_string()))?;
    if arguments.json {
        context.print_json(&json_of(&difference))?;
    } else {
        context.print(&text_of(&difference))?;
    }
    Ok(if difference.is_empty() {
        Exit::Done
    } else {
        Exit::CheckFailed
    })
}

fn json_of(difference: &Difference) -> Json {
    let value = |value: &Option<Value>| {
        value
            .as_ref()
            .map(|value| json!({"type": values::type_name(value), "value": values::to_json(value)}))
    };
    let keys: Vec<Json> = difference
        .keys
        .iter()
        .map(|found| {
            json!({
                "key": found.key.to_string(),
                "first": value(&found.first),
                "second": value(&found.second),
            })
        })
        .collect();
    let tensor = |side: &Option<(usize, TensorInfo)>| {
        side.as_ref()
            .map(|(_, info)| json!({"shape": info.shape, "type": info.ty.name()}))
    };
    let tensors: Vec<Json> = difference
        .tensors
        .iter()
        .map(|found| {
            json!({
                "tensor": found.name.to_string(),
                "first": tensor(&found.first),
                "second": tensor(&found.second),
                "differing_rows": found.rows,
            })
        })
        .collect();
    json!({
        "same": difference.is_empty(),
        "keys": keys,
        "tensors": tensors,
        "key_order_differs": difference.key_order,
        "tensor_order_differs": difference.tensor_order,
    })
}

fn text_of(difference: &Difference) -> String {
    let mut text = String::new();
    let mut line = |mark: char, rest: String| text.push_str(&format!("{mark} {rest}\n"));
    let value = |value: &Value| format!("{} {}", values::type_name(value), values::show(value));
    for found in &difference.keys {
        let key = Shown(&found.key);
        match (&found.first, &found.second) {
            (Some(first), Some(second)) => {
                line('~', format!("{key}: {} → {}", value(first), value(second)));
            }
            (Some(first), None) => line('-', format!("{key}: {}", value(first))),
            (None, Some(second)) => line('+', format!("{key}: {}", value(second))),
            (None, None) => {}
        }
    }
    for found in &difference.tensors {
        let (mark, rest) = describe(found);
        line(mark, format!("tensor {}: {rest}", Shown(&found.name)));
    }
    if difference.key_order {
        line('~', "the order of keys".to_owned());
    }
    if difference.tensor_order {
        line('~', "the order of tensors".to_owned());
    }
    if difference.is_empty() {
        text.push_str("the same metadata and tensors\n");
    }
    text
}

fn describe(found: &TensorDifference) -> (char, String) {
    let side = |(_, info): &(usize, TensorInfo)| format!("{} {:?}", info.ty, info.shape);
    match (&found.first, &found.second) {
        (Some(first), Some(second)) => match found.rows {
            Some(rows) => ('~', format!("{rows} of {} rows differ", first.1.rows())),
            None => ('~', format!("{} → {}", side(first), side(second))),
        },
        (Some(first), None) => ('-', side(first)),
        (None, Some(second)) => ('+', side(second)),
        (None, None) => ('~', String::new()),
    }
}
