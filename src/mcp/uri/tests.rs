//! Every spelling of a registered URI matches, and the plain one with certainty.

use super::Match::{Certain, No, Possible};
use super::{MAX_LENGTH, Match, Pattern, Uri};

struct Case {
    pattern: &'static str,
    uri: &'static str,
    expected: Match,
}

const fn case(pattern: &'static str, uri: &'static str, expected: Match) -> Case {
    Case { pattern, uri, expected }
}

const CASES: &[Case] = &[
    case("drafts://{id}", "drafts://1", Certain),
    case("drafts://{id}", "drafts://{id}", Certain),
    case("drafts://{id}", "DRAFTS://1", Possible),
    case("drafts://{id}", "drafts:///1", Certain),
    case("drafts://{id}", "drafts:1", Possible),
    case("drafts://{id}", "drafts:/%2f1", Possible),
    case("drafts://{id}", "dr%61fts://1", Possible),
    case("drafts://{id}", "dr%2561fts://1", Possible),
    case("drafts://{id}", "dr\tafts://1", Possible),
    case("drafts://{id}", "dr%\t61fts://1", Possible),
    case("drafts://{id}", "dr%6\n1fts://1", Possible),
    case("drafts://{id}", " drafts://1", Possible),
    case("drafts://{id}", "drafts:\\\\1", Possible),
    case("drafts://{id}", "notes://../drafts/1", Possible),
    case("drafts://{id}", "notes://a/%2e%2e/b", Possible),
    case("drafts://{id}", "notes://a/..;x/b", Possible),
    case("drafts://{id}", "%25252561", Possible),
    case("drafts://{id}", "notes://a@b@c/1", Possible),
    case("drafts://{id}", "notes://1", No),
    case("drafts://{id}", "notes://x@1", No),
    case("drafts://{id}", "notes://1.", No),
    case("drafts://{id}", "notes://B%C3%BCcher", No),
    case("drafts://{id}", "notes://a:b", No),
    case("drafts://{id}", "drafts", No),
    case("drafts://{id}", "draftsx://1", No),
    case("drafts://{id}", "drafts://", Certain),
    case("notes://a/{id}", "notes://a/1", Certain),
    case("notes://a/{id}", "notes://A/1", Possible),
    case("notes://a/{id}", "notes://b/1", No),
    case("notes://a/{id}", "notes://\u{ff41}/1", Possible),
    case("notes://a/{id}", "notes://x@a/1", Possible),
    case("notes://a/{id}", "notes://a:b/1", Possible),
    case("notes://a/{id}", "notes://a./1", Possible),
    case("notes://a/{id}", "notes://a//1", Certain),
    case("notes://a", "notes://a", Certain),
    case("notes://a", "notes://%61", Possible),
    case("notes://a", "notes://@a", Possible),
    case("notes://a", "notes://a:", Possible),
    case("notes://a", "notes://a/", Possible),
    case("notes://a", "notes://a?x=1", Possible),
    case("notes://a", "notes://a#x", Possible),
    case("notes://a", "notes://a/b", No),
    case("notes://a", "notes://ab", No),
    case("notes://a", "notes://100%", No),
    case("notes://100%", "notes://100%", Certain),
    case("notes://1", "notes://1", Certain),
    case("notes://1.", "notes://1.", Certain),
    case("notes://a%2Fb", "notes://a%2Fb", Certain),
    case("notes://a%2Fb", "notes://a/b", Possible),
    case("notes://a?v=1", "notes://a?v=1", Certain),
    case("notes://a?v=1", "notes://a?v=2", Possible),
    case("notes://search?q={q}", "notes://search?q=1", Possible),
    case("notes://search?q={q}", "notes://search?a=b&q=1", Possible),
    case("notes://search?q={q}", "notes://search/?q=1", Possible),
    case("notes://search?q={q}", "notes://searches?q=1", No),
    case("notes://v1.{minor}", "notes://v1.2", Certain),
    case("notes://v1.{minor}", "notes://v2.1", No),
    case("notes://v1.{minor}", "notes://v10", No),
    case("notes://caf\u{e9}/{x}", "notes://caf%C3%A9/1", Certain),
    case("notes://caf\u{e9}/{x}", "notes://caf\u{e9}/1", Certain),
    case("notes://caf\u{e9}/{x}", "notes://1", No),
    case("my%20docs://{id}", "my%20docs://1", Certain),
    case("my_app:///a/{x}", "my_app:///a/1", Certain),
    case("my_app:///a/{x}", "my_app://a/1", Possible),
    case("{uri}", "secret://1", Certain),
    case("mailto:bob@example.com", "mailto:bob@example.com", Certain),
    case("mailto:bob@example.com", "mailto:eve@example.com", No),
    case("mailto:bob@example.com", "notes://1", No),
    case("postgres://app@db/{t}", "postgres://app@db/users", Certain),
    case("postgres://app@db/{t}", "postgres://db/users", Possible),
    case("postgres://app@db/{t}", "notes://1", No),
    case("file:///repo/.{tool}", "file:///repo/.git", Certain),
    case("file:///repo/.{tool}", "file:///repo/readme", No),
    case("file:///srv/private/{x}", "file:///srv/private/1", Certain),
    case("file:///srv/private/{x}", "file:///srv/%\t70rivate/1", Possible),
    case("file:///srv/private/{x}", "file:///srv//private/1", Possible),
    case("file:///srv/private/{x}", "file:///srv/%2Fprivate/1", Possible),
    case("file:///srv/private/{x}", "file://localhost/srv/private/1", Possible),
    case("file:///srv/private/{x}", "file:/srv/private", Possible),
    case("file:///srv/private/{x}", "file:///srv/public/1", No),
    case("files://private/{x}", "files://private", Possible),
    case("files://private/{x}", "files://private/", Certain),
    case("files://private/{x}", "files://privates", No),
    case("https://api.{region}.x/1", "https://api.eu.x/1", Certain),
    case("https://api.{region}.x/1", "https://api.eu@other/1", Possible),
    case("https://api.{region}.x/1", "https://other/1", No),
    case("https://h/my%20docs/{id}", "https://h/my%20docs/1", Certain),
    case("https://h/my%20docs/{id}", "https://h/my docs/1", Possible),
    case("https://h/p/{x}", "https://h/p/1", Certain),
    case("https://h/p/{x}", "https://h:443/p/1", Possible),
    case("https://h/p/{x}", "https://h:/p/1", Possible),
    case("https://h/p/{x}", "https://@h/p/1", Possible),
    case("https://h/p/{x}", "https://user@h/p/1", Possible),
    case("https://h/p/{x}", "https://h./p/1", Possible),
    case("https://h/p/{x}", "https:h/p/1", Possible),
    case("https://h/p/{x}", "https://h:99999/p/1", Possible),
    case("https://127.0.0.1/p/{x}", "https://127.1/p/1", Possible),
    case("https://h:443/p/{x}", "https://h/p/1", Possible),
    case("https://h:8443/p/{x}", "https://h:8443/p/1", Certain),
    case("https://h:8443/p/{x}", "https://h/p/1", No),
    case("https://[::1]/p/{x}", "https://[::1]/p/1", Certain),
    case("https://[::1]/p/{x}", "https://[0:0::1]/p/1", Possible),
];

#[test]
fn spellings_of_a_registered_uri_match() {
    for Case { pattern, uri, expected } in CASES {
        assert_eq!(Pattern::new(pattern).matches(&Uri::new(uri)), *expected, "{pattern} {uri:?}");
    }
}

#[test]
fn a_uri_that_is_too_long_may_mean_any_resource() {
    let pattern = Pattern::new("notes://a/{id}");
    for (length, expected) in [(MAX_LENGTH, Certain), (MAX_LENGTH + 1, Possible)] {
        let uri = format!("notes://a/{}", "x".repeat(length - "notes://a/".len()));
        assert_eq!(pattern.matches(&Uri::new(&uri)), expected, "{length} bytes");
    }
}
