//! Mixtures of experts.

use std::ops::Range;

use super::Dense;
use super::routing::Choice;
use crate::architecture::{Activation, Gating};
use crate::error::Error;
use crate::matmul::{Activations, ExpertTokens};
use crate::ops::{self, XIelu};
use crate::parameters::{Parameters, Routing};
use crate::pass::Pass;
use crate::weights::{Linear, Loader, Stack, missing};

/// Gate and up projections of the experts.
#[derive(Debug)]
enum Entry {
    Gated {
        gate: Stack,
        up: Stack,
    },
    /// Gate rows before up rows.
    Fused(Stack),
    Plain(Stack),
}

/// A mixture of experts.
#[derive(Debug)]
pub(crate) struct Experts {
    router: Linear,
    /// Gemma 4: the router reads inputs normalised without weights and scaled by this.
    router_scale: Option<Vec<f32>>,
    selection_bias: Option<Vec<f32>>,
    entry: Entry,
    down: Stack,
    shared: Option<Dense>,
    shared_gate: Option<Linear>,
    /// Nemotron 3: the experts' own, narrower space.
    latent: Option<(Linear, Linear)>,
    routing: Routing,
    activation: Activation,
    /// Routed and shared experts are averaged.
    average: bool,
}

/// Tokens in the order of their experts.
struct Plan {
    tokens: Vec<u32>,
    /// Expert, first and last place in `tokens`.
    experts: Vec<(usize, Range<usize>)>,
    /// For every token the place of each of its choices.
    places: Vec<Vec<usize>>,
}

impl Plan {
    fn new(choices: &[Choice], experts: usize) -> Self {
        let mut lists: Vec<Vec<(usize, usize)>> = vec![Vec::new(); experts];
        for (token, choice) in choices.iter().enumerate() {
            for (rank, &(expert, _)) in choice.experts.iter().enumerate() {
                lists[expert].push((token, rank));
            }
        }
        let mut plan = Self {
            tokens: Vec::new(),
            experts: Vec::new(),
            places: choices.iter().map(|c| vec![0; c.experts.len()]).collect(),
        };
        for (expert, list) in lists
            .iter()
            .enumerate()
            .filter(|(_, list)| !list.is_empty())
        {
            let first = plan.tokens.len();
            for &(token, rank) in list {
                plan.places[token][rank] = plan.tokens.len();
                plan.tokens.push(token as u32);
            }
            plan.experts.push((expert, first..plan.tokens.len()));
        }
        plan
    }

    fn groups<'a>(&self, tokens: &'a [u32]) -> Vec<ExpertTokens<'a>> {
        let group = |(expert, range): &(usize, Range<usize>)| ExpertTokens {
            expert: *expert,
            tokens: &tokens[range.clone()],
        };
        self.experts.iter().map(group).collect()
    }
}

impl Experts {
    /// Binds `{prefix}ffn_*_exps` and what goes with them, if the layer has them.
    pub fn load(
        loader: &Loader<'_>,
        prefix: &str,
        parameters: &Parameters,
    ) -> Result<Option<Self>, Error> {
        let name = |part: &str| format!("{prefix}ffn_{part}");
        let down_name = name("down_exps.weight");
        if !loader.has(&down_name) {
            return Ok(None);
        }
        let key = |key: &str, problem: String| Error::Key {
            key: format!("{}.{key}", parameters.architecture.name),
            problem,
        };
        let (width, count) = (parameters.width, parameters.experts);
        let Some(mut routing) = parameters.routing.clone() else {
            return Err(key("expert_used_count", "is missing".into()));
        };
        if routing.used > count {
            let problem = format!("{} of {count} experts", routing.used);
            return Err(key("expert_used_count", problem));
        }
        if routing.groups == 0 || !count.is_multiple_of(routing.groups) {
            let problem = format!("{} groups of {count} experts", routing.groups);
            return Err(key("expert_group_count", problem));
        }
        let inner = loader.shape(&down_name)?.first().map_or(0, |&n| n as usize);
        let latent = match loader.linear(&name("latent_down"), width)? {
            Some(down) => {
                let up = loader.product(&name("latent_up"), down.weight.rows(), width)?;
                Some((down, up))
            }
            None => None,
        };
        let space = latent
            .as_ref()
            .map_or(width, |(down, _)| down.weight.rows());
        let stack =
            |part: &str, cols: usize, rows: usize| match loader.stack(&name(part), cols, count)? {
                Some(stack) if stack.rows != rows => Err(Error::Shape {
                    name: stack.name.to_string(),
                    expected: format!("matrices of {rows} rows"),
                    found: loader.shape(&stack.name)?.to_vec(),
                }),
                stack => Ok(stack),
            };
        let need = |part: &str| missing(&format!("{}.weight", name(part)));
        let entry = if let Some(both) = stack("gate_up_exps", space, 2 * inner)? {
            Entry::Fused(both)
        } else {
            let up = stack("up_exps", space, inner)?.ok_or_else(|| need("up_exps"))?;
            match stack("gate_exps", space, inner)? {
                Some(gate) => Entry::Gated { gate, up },
                None => Entry::Plain(up),
            }
        };
        let selection_bias = match loader.vector(&format!("{prefix}exp_probs_b.bias"), count)? {
            Some(bias) => Some(bias),
            None => loader.vector(&format!("{prefix}exp_probs_b"), count)?,
        };
        if selection_bias.is_some() && routing.sigmoid_if_biased {
            routing.gating = Gating::Sigmoid;
        }
        let router = loader
            .unscaled(&name("gate_inp"), width)?
            .ok_or_else(|| need("gate_inp"))?;
        loader.check_rows(&router, count)?;
        Ok(Some(Self {
            router,
            router_scale: loader.vector(&name("gate_inp.scale"), width)?,
            selection_bias,
            entry,
            down: stack("down_exps", inner, space)?.ok_or_else(|| need("down_exps"))?,
            shared: Dense::load(loader, prefix, "_shexp", parameters)?,
            shared_gate: loader.linear(&name("gate_inp_shexp"), width)?,
            latent,
            routing,
            activation: parameters.architecture.activation,
            average: parameters.architecture.expert_average,
        }))
    }

    /// The block's output; the router may read another input than the experts (Gemma 4).
    pub fn forward(
        &self,
        pass: &mut Pass<'_>,
        router_input: &Activations,
        input: &Activations,
    ) -> Vec<f32> {
        let (tokens, width) = (input.tokens(), input.cols());
        let logits = pass.multiply(&self.router, router_input);
        let choices: Vec<Choice> = logits
            .chunks_exact(self.down.count)
            .map(|logits| Choice::new(&self.routing, self.selection_bias.as_deref(), logits))
            .collect();
        pass.scratch.give(logits);
        let plan = Plan::new(&choices, self.down.count);
        let (rows, space) = match &self.latent {
            Some((down, _)) => {
                let space = down.weight.rows();
                let narrow = Activations::new(tokens, space, pass.multiply(down, input));
                let rows = self.run(pass, &plan, &choices, &narrow);
                pass.recycle(narrow);
                (rows, space)
            }
            None => (self.run(pass, &plan, &choices, input), width),
        };
        // Added by rank, so that the order is the same whatever the batch.
        let mut total = pass.scratch.take(tokens * space);
        pass.each_row(&mut total, space, |token, row| {
            row.fill(0.0);
            let choice = choices[token].experts.iter();
            for (&(_, weight), &place) in choice.zip(&plan.places[token]) {
                let weight = if self.routing.weight_on_input {
                    1.0
                } else {
                    weight
                };
                ops::add_scaled(row, &rows[place * space..][..space], weight);
            }
        });
        pass.scratch.give(rows);
        if let Some((_, up)) = &self.latent {
            let narrow = Activations::new(tokens, space, total);
            total = pass.multiply(up, &narrow);
            pass.recycle(narrow);
        }
        if let Some(shared) = &self.shared {
            let out = shared.forward(pass, input);
            let gates = self
                .shared_gate
                .as_ref()
                .map(|gate| pass.multiply(gate, input));
            pass.each_row(&mut total, width, |token, row| {
                let weight = gates.as_ref().map_or(1.0, |g| ops::sigmoid(g[token]));
                ops::add_scaled(row, &out[token * width..][..width], weight);
            });
            pass.scratch.give(out);
            if self.average {
                ops::multiply(&mut total, 0.5);
            }
        }
        total
    }

    /// Scales the router's input, where the model does.
    pub fn scale_router_input(&self, row: &mut [f32]) {
        if let Some(scale) = &self.router_scale {
            let root = (row.len() as f32).sqrt();
            for (x, s) in row.iter_mut().zip(scale) {
                *x *= s / root;
            }
        }
    }

    /// The experts' outputs, a row for each place of the plan.
    fn run(
        &self,
        pass: &mut Pass<'_>,
        plan: &Plan,
        choices: &[Choice],
        input: &Activations,
    ) -> Vec<f32> {
        let count = plan.tokens.len();
        let consecutive: Vec<u32> = (0..count as u32).collect();
        let weighted = self.routing.weight_on_input.then(|| {
            let width = input.cols();
            let mut rows = pass.scratch.take(count * width);
            for (token, places) in plan.places.iter().enumerate() {
                for (&place, &(_, weight)) in places.iter().zip(&choices[token].experts) {
                    let row = &mut rows[place * width..][..width];
                    row.copy_from_slice(input.token(token));
                    ops::multiply(row, weight);
                }
            }
            Activations::new(count, width, rows)
        });
        let (input, tokens) = match &weighted {
            Some(weighted) => (weighted, &consecutive),
            None => (input, &plan.tokens),
        };
        let inner = self.down.matrix.cols();
        let groups = plan.groups(tokens);
        let (activation, none) = (self.activation, XIelu::default());
        let isa = pass.compute.isa();
        let hidden = match &self.entry {
            Entry::Gated { gate, up } => {
                let mut outs = pass.multiply_experts([gate, up], &groups, input);
                let up = outs.pop().unwrap_or_default();
                let mut hidden = outs.pop().unwrap_or_default();
                pass.each_row(&mut hidden, inner, |i, row| {
                    ops::activate(isa, activation, none, row, Some(&up[i * inner..][..inner]));
                });
                pass.scratch.give(up);
                hidden
            }
            Entry::Fused(both) => {
                let both = pass.multiply_experts([both], &groups, input).remove(0);
                let mut hidden = pass.scratch.take(count * inner);
                pass.each_row(&mut hidden, inner, |i, row| {
                    let both = &both[i * 2 * inner..][..2 * inner];
                    row.copy_from_slice(&both[..inner]);
                    ops::activate(isa, activation, none, row, Some(&both[inner..]));
                });
                pass.scratch.give(both);
                hidden
            }
            Entry::Plain(up) => {
                let mut hidden = pass.multiply_experts([up], &groups, input).remove(0);
                pass.each_row(&mut hidden, inner, |_, row| {
                    ops::activate(isa, activation, none, row, None);
                });
                hidden
            }
        };
        let hidden = Activations::new(count, inner, hidden);
        let out = pass.multiply_experts([&self.down], &plan.groups(&consecutive), &hidden);
        pass.recycle(hidden);
        if let Some(weighted) = weighted {
            pass.recycle(weighted);
        }
        out.into_iter().next().unwrap_or_default()
    }
}
