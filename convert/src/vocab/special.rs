//! Special tokens: which id has which role, and which are added around a text.
//!
//! The evidence lies in four files that contradict each other at times; their order of precedence
//! is that of `gguf-py/gguf/vocab.py`, so that the same files give the same keys.

use gristmill_gguf::Value;
use serde_json::Value as Json;

use super::files::{TokenizerConfig, TokenizerJson, components};

/// Roles that every tokenizer is asked for, in the order in which they are looked up.
const ROLES: &[&str] = &["bos", "eos", "unk", "sep", "pad", "cls", "mask"];

/// The key of a role's token id. `cls` has none: it is written as `bos`.
fn id_key(role: &str) -> Option<String> {
    let name = match role {
        "unk" => "unknown",
        // Spelled so in the format.
        "sep" => "seperator",
        "pad" => "padding",
        "cls" => return None,
        other => other,
    };
    Some(format!("tokenizer.ggml.{name}_token_id"))
}

/// Roles and flags in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct SpecialTokens {
    ids: Vec<(&'static str, u32)>,
    adds: Vec<(&'static str, bool)>,
}

impl SpecialTokens {
    /// Gathers what the files say. Ids not below `vocabulary` are skipped with a warning.
    pub fn gather(
        tokenizer: Option<&TokenizerJson>,
        tokenizer_config: Option<&TokenizerConfig>,
        config: &Json,
        vocabulary: usize,
        warnings: &mut Vec<String>,
    ) -> Self {
        let mut special = Self::default();
        let mut evidence = Evidence::new(tokenizer, tokenizer_config);
        if let Some(tokenizer) = tokenizer {
            let processors = components(&tokenizer.json["post_processor"]);
            for processor in processors {
                special.read_processor(processor, &mut evidence, warnings);
            }
        }
        if let Some(tokenizer_config) = tokenizer_config {
            let added = tokenizer.map_or(&[][..], |tokenizer| &tokenizer.added);
            for &role in ROLES.iter().chain(&evidence.extra_roles) {
                if let Some(add) = tokenizer_config.0[format!("add_{role}_token")].as_bool() {
                    special.set_add_if_unknown(role, add, warnings);
                }
                let found = evidence
                    .text(role)
                    .and_then(|text| added.iter().find(|token| token.text == text));
                if let Some(token) = found {
                    special.set_checked(role, &token.id.into(), vocabulary, warnings);
                }
            }
        }
        for &role in ROLES.iter().chain(&evidence.extra_roles) {
            special.set_checked(
                role,
                &config[format!("{role}_token_id")],
                vocabulary,
                warnings,
            );
        }
        special
    }

    /// Gives a role its id, if it has none.
    pub fn set(&mut self, role: &'static str, id: u32) {
        if !self.ids.iter().any(|(known, _)| *known == role) {
            self.ids.push((role, id));
        }
    }

    /// Gives a role its id, whatever the files say.
    pub fn replace(&mut self, role: &'static str, id: u32) {
        match self.ids.iter_mut().find(|(known, _)| *known == role) {
            Some(entry) => entry.1 = id,
            None => self.ids.push((role, id)),
        }
    }

    fn set_checked(
        &mut self,
        role: &'static str,
        id: &Json,
        vocabulary: usize,
        warnings: &mut Vec<String>,
    ) {
        match id.as_u64() {
            Some(id) if id < vocabulary as u64 => self.set(role, id as u32),
            Some(id) => warnings.push(format!(
                "the {role} token's id {id} is beyond the vocabulary of {vocabulary}; left out"
            )),
            None => {}
        }
    }

    /// Whether a token is added, in any case.
    pub fn set_add(&mut self, role: &'static str, add: bool) {
        match self.adds.iter_mut().find(|(known, _)| *known == role) {
            Some(entry) => entry.1 = add,
            None => self.adds.push((role, add)),
        }
    }

    fn set_add_if_unknown(&mut self, role: &'static str, add: bool, warnings: &mut Vec<String>) {
        match self.adds.iter().find(|(known, _)| *known == role) {
            Some((_, known)) if *known != add => warnings.push(format!(
                "tokenizer_config.json says add_{role}_token = {add}, the post-processor of tokenizer.json {known}; the latter is taken"
            )),
            Some(_) => {}
            None => self.adds.push((role, add)),
        }
    }

    /// Ids, then flags.
    pub fn entries(&self) -> impl Iterator<Item = (String, Value)> {
        let ids = self
            .ids
            .iter()
            .filter_map(|(role, id)| Some((id_key(role)?, Value::U32(*id))));
        let adds = self.adds.iter().map(|(role, add)| {
            (
                format!("tokenizer.ggml.add_{role}_token"),
                Value::Bool(*add),
            )
        });
        ids.chain(adds)
    }

    fn read_processor(
        &mut self,
        processor: &Json,
        evidence: &mut Evidence,
        warnings: &mut Vec<String>,
    ) {
        match processor["type"].as_str() {
            Some("ByteLevel") => {
                for role in ["bos", "eos"] {
                    if !self.adds.iter().any(|(known, _)| *known == role) {
                        self.adds.push((role, false));
                    }
                }
            }
            Some("RobertaProcessing") => {
                for role in ["bos", "eos", "sep"] {
                    self.set_add(role, true);
                }
                for (role, slot) in [("cls", &mut evidence.cls), ("sep", &mut evidence.sep)] {
                    if slot.is_none() {
                        *slot = processor[role][0].as_str().map(str::to_owned);
                    }
                }
            }
            Some("TemplateProcessing") => self.read_template(processor, evidence, warnings),
            _ => {}
        }
    }

    /// What a template adds before, after and between texts. Only simple templates are understood.
    fn read_template(
        &mut self,
        processor: &Json,
        evidence: &mut Evidence,
        warnings: &mut Vec<String>,
    ) {
        let list = |name: &str| processor[name].as_array().map_or(&[][..], Vec::as_slice);
        let special = |piece: &Json| piece["SpecialToken"]["id"].as_str().map(str::to_owned);
        let single = list("single");
        let (mut first, mut last) = (None, None);
        if let [head, .., tail] = single {
            first = special(head);
            last = special(tail);
        }
        if let Some(first) = &first {
            // A role that the configuration leaves open is the first token's.
            let known = [&evidence.bos, &evidence.cls].contains(&&Some(first.clone()));
            if !known {
                evidence.bos.get_or_insert_with(|| first.clone());
                evidence.cls.get_or_insert_with(|| first.clone());
            }
            let known = [&evidence.bos, &evidence.cls].contains(&&Some(first.clone()));
            if !known {
                warnings.push(format!(
                    "the template puts `{first}` first, which is neither bos nor cls; it is not added"
                ));
            }
            self.set_add("bos", known || !evidence.has_config);
        }
        if let Some(last) = &last {
            if evidence.has_config && !evidence.is_plainly("eos", last) {
                evidence.demote_eos();
            }
            evidence.eos = Some(last.clone());
            evidence.objects.retain(|role| *role != "eos");
            self.set_add("eos", true);
        }

        let mut pair = list("pair");
        if let [head, rest @ ..] = pair
            && first.is_some()
            && special(head) == first
        {
            pair = rest;
        }
        if let [rest @ .., tail] = pair
            && last.is_some()
            && special(tail) == last
        {
            pair = rest;
        }
        let sequence = |piece: &Json, id: &str| piece["Sequence"]["id"] == id;
        if let [a, between @ .., b] = pair
            && sequence(a, "A")
            && sequence(b, "B")
            && let [head, tail @ ..] = between
        {
            let separates = |piece: &Json| {
                special(piece).is_some_and(|token| {
                    ["sep", "eos"]
                        .iter()
                        .any(|role| evidence.is_plainly(role, &token))
                })
            };
            let add = (separates(head) && last.is_none())
                || matches!(tail, [second] if separates(second));
            self.set_add("sep", add);
            if add && evidence.sep.is_none() {
                evidence.sep = evidence.eos.clone();
            }
        }
    }
}

/// Texts of the roles as far as known, changed while the post-processor is read.
struct Evidence {
    has_config: bool,
    bos: Option<String>,
    eos: Option<String>,
    /// Roles whose token is stated as an object, which the reference takes for another token than
    /// its text.
    objects: Vec<&'static str>,
    cls: Option<String>,
    sep: Option<String>,
    others: Vec<(&'static str, String)>,
    extra_roles: Vec<&'static str>,
}

impl Evidence {
    fn new(tokenizer: Option<&TokenizerJson>, config: Option<&TokenizerConfig>) -> Self {
        let text = |role: &str| config.and_then(|c| c.token(role)).map(str::to_owned);
        let (mut bos, mut eos) = (text("bos"), text("eos"));
        let (cls, sep) = (text("cls"), text("sep"));
        if tokenizer.is_some() {
            bos = bos.or_else(|| cls.clone());
            eos = eos.or_else(|| sep.clone());
        }
        let is_object =
            |role: &&str| config.is_some_and(|c| c.0[format!("{role}_token")].is_object());
        let objects = ["eos", "sep"].into_iter().filter(is_object).collect();
        let others = ["unk", "pad", "mask"]
            .into_iter()
            .filter_map(|role| Some((role, text(role)?)))
            .collect();
        Self {
            has_config: config.is_some(),
            bos,
            eos,
            objects,
            cls,
            sep,
            others,
            extra_roles: Vec::new(),
        }
    }

    /// Whether a role's token is this text, and stated as text.
    fn is_plainly(&self, role: &str, text: &str) -> bool {
        self.text(role) == Some(text) && !self.objects.contains(&role)
    }

    /// The end-of-sequence token becomes end-of-turn, or end-of-message if that is taken.
    fn demote_eos(&mut self) {
        let Some(role) = ["eot", "eom"]
            .into_iter()
            .find(|role| !self.extra_roles.contains(role))
        else {
            return;
        };
        self.extra_roles.push(role);
        if let Some(eos) = &self.eos {
            self.others.push((role, eos.clone()));
        }
    }

    fn text(&self, role: &str) -> Option<&str> {
        match role {
            "bos" => self.bos.as_deref(),
            "eos" => self.eos.as_deref(),
            "cls" => self.cls.as_deref(),
            "sep" => self.sep.as_deref(),
            other => self
                .others
                .iter()
                .find(|(known, _)| *known == other)
                .map(|(_, text)| text.as_str()),
        }
    }
}
