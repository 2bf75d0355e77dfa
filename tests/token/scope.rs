//! [`Scope`] as a set of scope tokens (RFC 6749 §3.3).

use portcullis::Scope;

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

#[test]
fn scopes_are_compared_as_sets() {
    struct Case {
        name: &'static str,
        one: &'static str,
        other: &'static str,
        one_contains_other: bool,
        other_contains_one: bool,
    }

    let case = |name, one, other, one_contains_other, other_contains_one| Case {
        name,
        one,
        other,
        one_contains_other,
        other_contains_one,
    };
    for Case { name, one, other, one_contains_other, other_contains_one } in [
        case("the same", "read write", "read write", true, true),
        case("in another order", "read write", "write read", true, true),
        case("repeated", "read write read", "read write", true, true),
        case("a part", "read write", "write", true, false),
        case("more", "read", "read write", false, true),
        case("an overlap", "read write", "write admin", false, false),
        case("nothing in common", "read", "write", false, false),
        case("in uppercase", "read", "READ", false, false),
        case("the beginning of a scope token", "read:messages", "read", false, false),
    ] {
        let (one, other) = (scope(one), scope(other));
        assert_eq!(one.contains_all(&other), one_contains_other, "{name}: contains");
        assert_eq!(other.contains_all(&one), other_contains_one, "{name}: is contained");
        assert_eq!(one == other, one_contains_other && other_contains_one, "{name}: is equal");
    }
}

#[test]
fn scope_tokens_are_returned_in_the_order_in_which_they_were_given() {
    for (text, expected) in [
        ("read", &["read"][..]),
        ("write read", &["write", "read"]),
        ("  write   read ", &["write", "read"]),
    ] {
        let scope = scope(text);
        assert_eq!(scope.iter().collect::<Vec<_>>(), expected, "{text:?}");
        assert_eq!(Vec::from_iter(&scope), expected, "{text:?}, by reference");
    }
}
