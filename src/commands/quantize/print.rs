//! What `grist quantize` prints: the table, or the document.

use gristmill_quantize::job::{PlannedJob, PlannedOutput, Report};
use serde_json::{Value as Json, json};

use super::{Arguments, Variant};
use crate::context::Context;
use crate::report::{Exit, Outcome};
use crate::table;

/// Prints what was or, without a report, would be written.
pub(super) fn print(
    arguments: &Arguments,
    planned: &PlannedJob<'_>,
    variants: &[Variant],
    report: Option<&Report>,
    context: &Context,
) -> Outcome {
    let outputs = planned.outputs().iter().zip(variants);
    if arguments.json {
        let outputs: Vec<Json> = outputs
            .map(|(output, variant)| json_of(output, variant, report))
            .collect();
        context.print_json(&outputs)?;
        return Ok(Exit::Done);
    }
    if arguments.dry_run && variants.len() == 1 {
        context.print(&tensors_of(&planned.outputs()[0]))?;
    }
    let mut rows = table::plain(&["type", "size", "bytes", "bpw", "file"], 1);
    for (output, variant) in outputs {
        rows.add_row([
            variant.label.clone(),
            table::gib(output.size_bytes()),
            output.size_bytes().to_string(),
            format!("{:.3}", output.plan().bits_per_weight()),
            output.path().display().to_string(),
        ]);
    }
    context.print(&format!("{}\n", table::trimmed(&rows)))?;
    Ok(Exit::Done)
}

fn tensors_of(output: &PlannedOutput) -> String {
    let mut rows = table::plain(&["tensor", "shape", "from", "to", "reason"], 5);
    for tensor in &output.plan().tensors {
        let shape: Vec<String> = tensor.info.shape.iter().map(u64::to_string).collect();
        rows.add_row([
            tensor.info.name.to_string(),
            shape.join(" × "),
            tensor.from.to_string(),
            tensor.info.ty.to_string(),
            tensor.reason.name().to_owned(),
        ]);
    }
    format!("{}\n\n", table::trimmed(&rows))
}

fn json_of(output: &PlannedOutput, variant: &Variant, report: Option<&Report>) -> Json {
    let plan = output.plan();
    let tensors: Vec<Json> = plan
        .tensors
        .iter()
        .map(|tensor| {
            json!({
                "name": tensor.info.name.to_string(),
                "shape": tensor.info.shape,
                "from": tensor.from.name(),
                "to": tensor.info.ty.name(),
                "reason": tensor.reason.name(),
            })
        })
        .collect();
    json!({
        "type": variant.label,
        "effort": output.effort().name(),
        "files": output.paths(),
        "size_bytes": output.size_bytes(),
        "bits_per_weight": plan.bits_per_weight(),
        "nominal_bits_per_weight": plan.nominal_bits_per_weight(),
        // Of the whole pass, whatever the number of outputs.
        "source_bytes": report.map(|report| report.source_bytes),
        "decoded_values": report.map(|report| report.decoded_values),
        "tensors": tensors,
    })
}
