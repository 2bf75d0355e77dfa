//! Which rule a message needs: the rules of everything that it names, added to the base rule.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::message::{Body, Name};
use super::uri::{Pattern, Uri};
use crate::middleware::challenge::Challenges;
use crate::rule::Rule;

/// The rules of a server, apart from its base rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    tools: HashMap<String, Operation>,
    prompts: HashMap<String, Operation>,
    resources: Vec<(Pattern, Operation)>,
    /// For names without a rule of their own.
    unregistered: Option<Operation>,
}

/// What an operation requires: the base rule and its own.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    /// What it requires beside the base rule.
    pub(super) own: Rule,
    pub(super) rule: Rule,
    /// Built when the operation is first rejected.
    pub(super) challenges: OnceLock<Challenges>,
}

/// What the messages of a request require together.
#[derive(Debug)]
pub(super) enum Requirement<'a> {
    Base,
    One(&'a Operation),
    /// Several operations: of a batch, or of one message with several names.
    Several(Vec<&'a Operation>),
}

impl Operation {
    fn new(base: &Rule, own: Rule) -> Self {
        Self { rule: base.clone().and(own.clone()), own, challenges: OnceLock::new() }
    }

    /// Adds the rule of a second registration of the same name.
    fn add(&mut self, own: Rule) {
        *self = Self::new(&self.rule, own);
    }
}

impl Rules {
    pub(super) fn add_tool(&mut self, name: String, base: &Rule, rule: Rule) {
        add(&mut self.tools, name, base, rule);
    }

    pub(super) fn add_prompt(&mut self, name: String, base: &Rule, rule: Rule) {
        add(&mut self.prompts, name, base, rule);
    }

    pub(super) fn add_resource(&mut self, uri: &str, base: &Rule, rule: Rule) {
        self.resources.push((Pattern::new(uri), Operation::new(base, rule)));
    }

    pub(super) fn set_unregistered(&mut self, base: &Rule, rule: Rule) {
        self.unregistered = Some(Operation::new(base, rule));
    }

    /// Whether no name has a rule, so that bodies need not be read.
    pub(super) fn is_empty(&self) -> bool {
        self.tools.is_empty()
            && self.prompts.is_empty()
            && self.resources.is_empty()
            && self.unregistered.is_none()
    }

    /// What the messages of `body` require.
    pub(super) fn of<'a>(&'a self, body: &Body<'_>) -> Requirement<'a> {
        let mut operations = Vec::new();
        for message in body.messages() {
            message.names(|name| self.collect(name, &mut operations));
        }
        match operations.as_slice() {
            [] => Requirement::Base,
            [one] => Requirement::One(one),
            _ => Requirement::Several(operations),
        }
    }

    /// What everything with this name requires.
    pub(super) fn of_name(&self, name: Name<'_>) -> Requirement<'_> {
        let mut operations = Vec::new();
        self.collect(name, &mut operations);
        if operations.is_empty() { Requirement::Base } else { Requirement::Several(operations) }
    }

    fn collect<'a>(&'a self, name: Name<'_>, operations: &mut Vec<&'a Operation>) {
        let is_registered = match name {
            Name::Tool(tool) => self.tools.get(tool).map(|one| push(one, operations)).is_some(),
            Name::Prompt(prompt) => {
                self.prompts.get(prompt).map(|one| push(one, operations)).is_some()
            }
            Name::Resource(_) if self.resources.is_empty() => false,
            Name::Resource(uri) => {
                let uri = Uri::new(uri);
                let matching = self.resources.iter().filter(|(pattern, _)| pattern.matches(&uri));
                matching.map(|(_, operation)| push(operation, operations)).count() > 0
            }
        };
        if !is_registered {
            self.unregistered.iter().for_each(|operation| push(operation, operations));
        }
    }
}

/// Adds an operation once: a batch may name one a hundred times.
fn push<'a>(operation: &'a Operation, operations: &mut Vec<&'a Operation>) {
    if !operations.iter().any(|other| std::ptr::eq(*other, operation)) {
        operations.push(operation);
    }
}

fn add(operations: &mut HashMap<String, Operation>, name: String, base: &Rule, rule: Rule) {
    match operations.get_mut(&name) {
        Some(operation) => operation.add(rule),
        None => {
            operations.insert(name, Operation::new(base, rule));
        }
    }
}
