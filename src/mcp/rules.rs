//! Which rule a message needs: the rules of everything that it names, added to the base rule.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::message::{Body, Name};
use super::uri::{Match, Pattern, Uri};
use crate::middleware::challenge::Challenges;
use crate::rule::Rule;

/// The rules of a server, apart from its base rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    operations: Vec<Operation>,
    /// By name: positions in `operations`.
    tools: HashMap<String, usize>,
    prompts: HashMap<String, usize>,
    resources: Vec<(Pattern, usize)>,
    /// For names without a rule of their own.
    unregistered: Option<usize>,
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
}

impl Rules {
    pub(super) fn add_tool(&mut self, name: String, base: &Rule, rule: Rule) {
        let operation = Self::add(&mut self.operations, self.tools.get(&name), base, rule);
        self.tools.insert(name, operation);
    }

    pub(super) fn add_prompt(&mut self, name: String, base: &Rule, rule: Rule) {
        let operation = Self::add(&mut self.operations, self.prompts.get(&name), base, rule);
        self.prompts.insert(name, operation);
    }

    pub(super) fn add_resource(&mut self, uri: &str, base: &Rule, rule: Rule) {
        let operation = Self::add(&mut self.operations, None, base, rule);
        self.resources.push((Pattern::new(uri), operation));
    }

    pub(super) fn set_unregistered(&mut self, base: &Rule, rule: Rule) {
        self.unregistered = Some(Self::add(&mut self.operations, None, base, rule));
    }

    /// Adds an operation, or a rule to the operation that the name has already.
    fn add(
        operations: &mut Vec<Operation>,
        existing: Option<&usize>,
        base: &Rule,
        rule: Rule,
    ) -> usize {
        match existing.and_then(|&at| Some((at, operations.get_mut(at)?))) {
            Some((at, operation)) => {
                *operation = Operation::new(base, operation.own.clone().and(rule));
                at
            }
            None => {
                operations.push(Operation::new(base, rule));
                operations.len() - 1
            }
        }
    }

    /// Whether no name has a rule, so that bodies need not be read.
    pub(super) fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// What the messages of `body` require.
    pub(super) fn of<'a>(&'a self, body: &Body<'_>) -> Requirement<'a> {
        let mut found = Found::in_rules(self);
        for message in body.messages() {
            message.names(|name| found.add(name));
        }
        match found.operations.as_slice() {
            [] => Requirement::Base,
            [one] => Requirement::One(one),
            _ => Requirement::Several(found.operations),
        }
    }

    /// What everything with this name requires.
    pub(super) fn of_name(&self, name: Name<'_>) -> Requirement<'_> {
        let mut found = Found::in_rules(self);
        found.add(name);
        match found.operations.as_slice() {
            [] => Requirement::Base,
            _ => Requirement::Several(found.operations),
        }
    }
}

/// The operations that a body needs, each once: a batch may name one a hundred times.
struct Found<'a> {
    rules: &'a Rules,
    operations: Vec<&'a Operation>,
    /// For each operation, whether it has been found.
    seen: Vec<bool>,
    /// Resources whose rule has not been found yet.
    resources_left: usize,
}

impl<'a> Found<'a> {
    fn in_rules(rules: &'a Rules) -> Self {
        let (seen, resources_left) = (Vec::new(), rules.resources.len());
        Self { rules, operations: Vec::new(), seen, resources_left }
    }

    fn add(&mut self, name: Name<'_>) {
        let rules = self.rules;
        let is_registered = match name {
            Name::Tool(tool) => rules.tools.get(tool).map(|&at| self.push(at)).is_some(),
            Name::Prompt(prompt) => rules.prompts.get(prompt).map(|&at| self.push(at)).is_some(),
            Name::Resource(_) if self.has_all_resources() => true,
            Name::Resource(uri) => {
                let uri = Uri::new(uri);
                let mut is_certain = false;
                for (pattern, at) in &rules.resources {
                    let found = pattern.matches(&uri);
                    is_certain |= found == Match::Certain;
                    if found != Match::No && self.push(*at) {
                        self.resources_left -= 1;
                    }
                }
                is_certain
            }
        };
        if let (false, Some(at)) = (is_registered, rules.unregistered) {
            self.push(at);
        }
    }

    /// Whether no further URI can add an operation. A body may name a thousand.
    fn has_all_resources(&self) -> bool {
        let is_seen = |at: usize| self.seen.get(at).is_some_and(|seen| *seen);
        self.resources_left == 0 && self.rules.unregistered.is_none_or(is_seen)
    }

    /// Returns whether the operation is new.
    fn push(&mut self, at: usize) -> bool {
        let rules = self.rules;
        if self.seen.is_empty() {
            self.seen = vec![false; rules.operations.len()];
        }
        let (Some(seen), Some(operation)) = (self.seen.get_mut(at), rules.operations.get(at))
        else {
            return false;
        };
        let is_new = !std::mem::replace(seen, true);
        if is_new {
            self.operations.push(operation);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_token::AccessToken;

    /// Whether a token with this scope satisfies what the body requires.
    fn is_satisfied(rules: &Rules, base: &Rule, body: &str, scope: &str) -> bool {
        let token = AccessToken::for_tests(serde_json::json!({ "scope": scope }));
        let body = Body::read(body.as_bytes()).unwrap();
        let own: Vec<_> = match rules.of(&body) {
            Requirement::Base => Vec::new(),
            Requirement::One(operation) => vec![operation.rule.clone()],
            Requirement::Several(all) => all.iter().map(|one| one.own.clone()).collect(),
        };
        own.into_iter().chain([base.clone()]).all(|rule| rule.check(&token).is_ok())
    }

    /// Also if one message names several things.
    #[test]
    fn rules_for_the_same_name_add_up() {
        let base = Rule::scope("a");
        let mut rules = Rules::default();
        rules.add_tool("t".to_owned(), &base, Rule::scope("b"));
        rules.add_tool("t".to_owned(), &base, Rule::scope("c"));
        rules.add_resource("n://{id}", &base, Rule::scope("d"));
        let one = r#"{"method":"tools/call","params":{"name":"t"}}"#;
        let two = r#"{"method":"tools/call","params":{"name":"t","uri":"n://1"}}"#;
        for (body, scope, expected) in [
            (one, "a c", false),
            (one, "a b", false),
            (one, "a b c", true),
            (two, "a c d", false),
            (two, "a b d", false),
            (two, "a b c", false),
            (two, "a b c d", true),
        ] {
            assert_eq!(is_satisfied(&rules, &base, body, scope), expected, "{body} {scope}");
        }
    }

    /// The work for a body with a thousand URIs is bounded by this.
    #[test]
    fn no_uri_is_compared_once_every_rule_was_found() {
        let base = Rule::scope("a");
        let mut rules = Rules::default();
        rules.add_resource("n://{id}", &base, Rule::scope("b"));
        rules.add_resource("m://{id}", &base, Rule::scope("c"));
        for (unregistered, names) in [
            (None, &[("n://1", false), ("n://2", false), ("s://1", false), ("m://1", true)][..]),
            (Some(Rule::scope("d")), &[("n://1", false), ("m://1", false), ("s://1", true)]),
        ] {
            if let Some(rule) = unregistered {
                rules.set_unregistered(&base, rule);
            }
            let mut found = Found::in_rules(&rules);
            for (uri, expected) in names {
                found.add(Name::Resource(uri));
                assert_eq!(found.has_all_resources(), *expected, "{uri} of {names:?}");
            }
        }
    }

    #[test]
    fn resources_have_the_rule_for_others_if_none_is_registered() {
        let base = Rule::scope("a");
        let mut rules = Rules::default();
        rules.add_tool("t".to_owned(), &base, Rule::scope("b"));
        let body = r#"{"method":"resources/read","params":{"uri":"n://1"}}"#;
        assert!(is_satisfied(&rules, &base, body, "a"));
        rules.set_unregistered(&base, Rule::scope("c"));
        assert!(!is_satisfied(&rules, &base, body, "a b"));
        assert!(is_satisfied(&rules, &base, body, "a c"));
    }

    /// Also once the rule of every resource has been found.
    #[test]
    fn resources_without_a_rule_are_found_among_others() {
        let base = Rule::scope("a");
        let mut rules = Rules::default();
        rules.add_resource("n://{id}", &base, Rule::scope("b"));
        rules.set_unregistered(&base, Rule::scope("c"));
        let body = |uris: &str| {
            format!(
                r#"{{"method":"subscriptions/listen","params":{{"notifications":{{"resourceSubscriptions":{uris}}}}}}}"#
            )
        };
        for (uris, scope, expected) in [
            (r#"["n://1"]"#, "a b", true),
            (r#"["n://1","n://2"]"#, "a b", true),
            (r#"["n://1","s://1"]"#, "a b", false),
            (r#"["s://1","n://1"]"#, "a b", false),
            (r#"["n://1","s://1"]"#, "a c", false),
            (r#"["n://1","s://1"]"#, "a b c", true),
            (r#"["n://1","N://1"]"#, "a b", false),
        ] {
            assert_eq!(is_satisfied(&rules, &base, &body(uris), scope), expected, "{uris} {scope}");
        }
    }
}
