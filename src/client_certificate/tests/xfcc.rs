//! Envoy's `X-Forwarded-Client-Cert`.

use super::*;

const NAME: &str = "x-forwarded-client-cert";
const ELEMENTS: Outcome = Outcome::Unreadable("elements such as `Hash=…;Subject=\"…\"`");
const NAMES_LAST: Outcome = Outcome::Unreadable("`Hash` and `Cert` before `URI` and `DNS`");
const ONE_ELEMENT: Outcome =
    Outcome::Unreadable("one element, as with `SANITIZE_SET`, if it has `URI` or `DNS`");
const ONCE: Outcome = Outcome::Unreadable("one `Hash` and one `Cert` per element");
const NOT_HEX: Outcome = Outcome::Unreadable("`Hash` in hexadecimal");
const NOT_PEM: Outcome = Outcome::Unreadable("`Cert` in percent-encoded PEM");
const DISAGREE: Outcome = Outcome::Unreadable("`Hash` to be the SHA-256 of `Cert`");

fn assert_outcomes(fixture: &Fixture, cases: Vec<(&str, String, Outcome)>) {
    for (name, value, expected) in cases {
        assert_eq!(fixture.find(CertificateHeader::envoy(), &[(NAME, value)]), expected, "{name}");
    }
}

#[test]
fn the_element_identifies_the_certificate() {
    let fixture = Fixture::new();
    let (hash, other) = (fixture.hex(), hex(&fixture.issuer));
    let cert = escaped(&fixture.pem(), "-");
    let chain = escaped(&fixture.pem_chain(), "-");
    let other_cert = escaped(&pem(&fixture.issuer), "-");
    assert_outcomes(
        &fixture,
        vec![
            ("hash", format!("Hash={hash}"), Outcome::Leaf),
            ("hash in quotes", format!("Hash=\"{hash}\""), Outcome::Leaf),
            ("hash in upper case", format!("Hash={}", hash.to_uppercase()), Outcome::Leaf),
            ("keys in other cases", format!("BY=a;hASH={hash};suBJect=\"\""), Outcome::Leaf),
            ("certificate", format!("cert=\"{cert}\""), Outcome::Leaf),
            (
                "certificate with spaces",
                format!("Cert=\"{}\"", cert.replace("%20", " ")),
                Outcome::Leaf,
            ),
            ("certificate and its issuer", format!("Cert=\"{chain}\""), Outcome::Leaf),
            ("hash and certificate", format!("Hash={hash};Cert=\"{cert}\""), Outcome::Leaf),
            ("they disagree", format!("Hash={hash};Cert=\"{other_cert}\""), DISAGREE),
            ("they disagree, in another order", format!("Cert=\"{cert}\";Hash={other}"), DISAGREE),
            ("chain alone", format!("By=a;Chain=\"{chain}\""), Outcome::None),
            ("chain and hash", format!("Hash={hash};Chain=\"{other_cert}\""), Outcome::Leaf),
            ("names alone", "Subject=\"CN=a\";URI=spiffe://mesh/a".to_owned(), Outcome::None),
            ("two elements", format!("Hash={other},By=a;Hash={hash}"), Outcome::Leaf),
            (
                "two elements, white space",
                format!("Hash={other} , By=a ; Hash={hash}"),
                Outcome::Leaf,
            ),
            (
                "two elements, quoted",
                format!("Hash={other};Subject=\"CN=a\" ,Hash={hash}"),
                Outcome::Leaf,
            ),
            ("the last has no certificate", format!("Hash={hash},By=a"), Outcome::None),
            ("the first is misshapen", format!("Hash=1,Hash={hash}"), Outcome::Leaf),
            ("hash twice", format!("Hash={hash};Hash={hash}"), ONCE),
            ("certificate twice", format!("Cert=\"{cert}\";Cert=\"{cert}\""), ONCE),
            ("empty hash", "Hash=;By=a".to_owned(), NOT_HEX),
            ("short hash", format!("Hash={}", &hash[2..]), NOT_HEX),
            ("misshapen hash beside a certificate", format!("Hash=1;Cert=\"{cert}\""), NOT_HEX),
            ("empty certificate", "Cert=\"\"".to_owned(), NOT_PEM),
            ("certificate in base64", format!("Cert=\"{}\"", fixture.base64()), NOT_PEM),
            ("misshapen certificate beside a hash", format!("Hash={hash};Cert=a"), NOT_PEM),
        ],
    );
}

#[test]
fn separators_in_quotes_separate_nothing() {
    let fixture = Fixture::new();
    let hash = fixture.hex();
    let with_subject = |subject: &str| format!("Subject=\"{subject}\";Hash={hash}");
    assert_outcomes(
        &fixture,
        vec![
            ("escaped quotes", with_subject(r#"CN=a,O=\"x;y\""#), Outcome::Leaf),
            ("semicolon", with_subject("CN=a;b"), Outcome::Leaf),
            ("comma", with_subject("CN=a,b"), Outcome::Leaf),
            ("equals sign", with_subject("=="), Outcome::Leaf),
            ("escaped backslash before the end", with_subject(r"CN=a\\"), Outcome::Leaf),
            ("escaped backslash and quote", with_subject(r#"CN=\\\";x=\""#), Outcome::Leaf),
            ("a quote that is not closed", with_subject(r"CN=a\"), ELEMENTS),
            ("no quote at the end", format!("Hash={hash};Subject=\"CN=a"), ELEMENTS),
            ("text after the quotes", format!("Hash={hash};Subject=\"CN=a\"b"), ELEMENTS),
            ("a quote within a value", format!("Hash={hash};By=a\"b;c\""), ELEMENTS),
            ("a backslash outside of quotes", format!("By=\\;Hash={hash}"), Outcome::Leaf),
        ],
    );
}

#[test]
fn a_header_of_another_form_is_unreadable() {
    let fixture = Fixture::new();
    let hash = fixture.hex();
    assert_outcomes(
        &fixture,
        vec![
            ("hash alone", hash.clone(), ELEMENTS),
            ("certificate alone", escaped(&fixture.pem(), "-"), ELEMENTS),
            ("a pair without a key", format!("=a;Hash={hash}"), ELEMENTS),
            ("a pair without a value", format!("By;Hash={hash}"), ELEMENTS),
            ("an empty pair", format!("By=a;;Hash={hash}"), ELEMENTS),
            ("an empty pair at the end", format!("Hash={hash};"), ELEMENTS),
            ("an empty element", format!("Hash={hash},,Hash={hash}"), ELEMENTS),
            ("an empty element at the end", format!("Hash={hash},"), ELEMENTS),
            ("an element without pairs", format!("a,Hash={hash}"), ELEMENTS),
            ("a key in quotes", format!("\"Hash\"={hash}"), ELEMENTS),
            ("a key that is not ASCII letters", format!("Ha-sh={hash}"), ELEMENTS),
        ],
    );
}

/// Envoy copies the names of the client's certificate as they are. The client of these cases wants
/// to be taken for the one with the fixture's certificate.
#[test]
fn names_in_a_certificate_of_an_attacker_do_not_count() {
    let fixture = Fixture::new();
    let (victim, own) = (fixture.hex(), hex(&fixture.issuer));
    let cert = escaped(&fixture.pem(), "-");
    let with_name = |name: String| format!("By=a;Hash={own};Subject=\"\";{name}");
    assert_outcomes(
        &fixture,
        vec![
            (
                "names of another certificate",
                with_name("URI=a;URI=b;DNS=c".to_owned()),
                Outcome::Issuer,
            ),
            ("an element in the URI", with_name(format!("URI=,Hash={victim}")), ONE_ELEMENT),
            ("an element in a domain", with_name(format!("DNS=a,Hash={victim}")), ONE_ELEMENT),
            (
                "an element in the second URI",
                with_name(format!("URI=a;URI=b,Hash={victim}")),
                ONE_ELEMENT,
            ),
            ("a hash in the URI", with_name(format!("URI=a;Hash={victim}")), NAMES_LAST),
            ("a certificate in a domain", with_name(format!("dns=a;Cert=\"{cert}\"")), NAMES_LAST),
            ("a quoted URI", with_name(format!("URI=\"a\",Hash={victim}")), ONE_ELEMENT),
            ("a quote in the URI", with_name("URI=a\"".to_owned()), ELEMENTS),
            (
                "an element with a URI before the client's own",
                format!("Hash={own};URI=a,Hash={victim}"),
                ONE_ELEMENT,
            ),
            (
                "the own element hidden in quotes",
                format!("Hash={victim};Subject=\",By=a;Hash={own};URI=\""),
                ELEMENTS,
            ),
            (
                "the own element hidden in quotes, in another case",
                format!("Hash={victim};X=\",by=a;hAsh={own};dns=\""),
                ELEMENTS,
            ),
        ],
    );
}

#[test]
fn lines_are_one_list() {
    let fixture = Fixture::new();
    let line = |text: String| (NAME, text);
    let (hash, other) = (fixture.hex(), hex(&fixture.issuer));
    let envoy = CertificateHeader::envoy;
    let lines = [line(format!("Hash={other}")), line(format!("Hash={hash}"))];
    assert_eq!(fixture.find(envoy(), &lines), Outcome::Leaf, "the last line");
    let lines = [line(format!("Hash={other};Subject=\"")), line(format!("\";Hash={hash}"))];
    assert_eq!(fixture.find(envoy(), &lines), ONCE, "a value over two lines");

    let rest = format!(",Hash={hash}");
    let fill = |bytes: usize| line("By=".to_owned() + &"a".repeat(bytes - "By=".len()));
    let longest = 16 * 1024 - rest.len();
    let last = || line(format!("Hash={hash}"));
    assert_eq!(fixture.find(envoy(), &[fill(longest), last()]), Outcome::Leaf, "16 KiB");
    let too_long = Outcome::Unreadable("at most 16 KiB");
    assert_eq!(fixture.find(envoy(), &[fill(longest + 1), last()]), too_long, "one byte more");
}
