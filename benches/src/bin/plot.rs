//! `plot ROWS… > docs/requests.svg`: plots the RS256 results of `requests` as bars on a logarithmic
//! scale.

use std::fmt::Write as _;

use portcullis_benches::contenders::Failure;

const LEFT: f64 = 345.0;
const WIDTH: f64 = 390.0;
const ROW: f64 = 24.0;
/// The range of the scale, in multiples of the limit.
const ENDS: (f64, f64) = (0.03, 20.0);

fn x(ratio: f64) -> f64 {
    let share = (ratio / ENDS.0).ln() / (ENDS.1 / ENDS.0).ln();
    LEFT + WIDTH * share.clamp(0.0, 1.0)
}

fn main() -> Result<(), Failure> {
    let mut rows: Vec<(String, f64)> = Vec::new();
    for file in std::env::args().skip(1) {
        for line in std::fs::read_to_string(file)?.lines() {
            let [algorithm, name, ratio] = line.split('\t').collect::<Vec<_>>()[..] else {
                return Err(format!("{line}: expected three columns").into());
            };
            let ratio: f64 = ratio.parse()?;
            if algorithm == "RS256" && ratio > ENDS.0 && rows.iter().all(|(known, _)| known != name)
            {
                rows.push((name.to_owned(), ratio));
            }
        }
    }
    rows.sort_by(|one, other| one.1.total_cmp(&other.1));
    let height = ROW * rows.len() as f64 + 60.0;
    let mut svg = String::new();
    writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {height}" font-family="sans-serif" font-size="13" role="img" aria-label="What a request costs, times the RS256 signature alone">
<style>text {{ fill: #222 }} .own {{ fill: #1a7f5a }} .peer {{ fill: #8a94a6 }} line {{ stroke: #c33; stroke-dasharray: 4 3 }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} .own {{ fill: #3fb68b }} .peer {{ fill: #6b7588 }} }}</style>
<text x="10" y="20" font-weight="bold">One request with RS256, times the signature alone (logarithmic)</text>"##
    )?;
    let bottom = height - 24.0;
    let limit = x(1.0);
    for (number, (name, ratio)) in rows.iter().enumerate() {
        let (top, end) = (36.0 + ROW * number as f64, x(*ratio));
        let class = if name.starts_with("portcullis") { "own" } else { "peer" };
        writeln!(
            svg,
            r#"<text x="{}" y="{}" text-anchor="end">{name}</text><rect class="{class}" x="{LEFT}" y="{top}" width="{:.1}" height="{}"/><text x="{:.1}" y="{}">{ratio:.2}</text>"#,
            LEFT - 8.0,
            top + 14.0,
            end - LEFT,
            ROW - 6.0,
            end + 6.0,
            top + 14.0,
        )?;
    }
    writeln!(
        svg,
        r#"<line x1="{limit:.1}" y1="32" x2="{limit:.1}" y2="{bottom}"/><text x="{limit:.1}" y="{}" text-anchor="middle">the limit: the signature alone</text>
</svg>"#,
        bottom + 16.0
    )?;
    print!("{svg}");
    Ok(())
}
