//! The curves of the samples as an SVG: memory, file descriptors and requests over time, with the
//! disturbances as bars.

use std::fmt::Write as _;
use std::time::Duration;

use crate::chaos::Event;
use crate::recorder::Sample;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 40.0;
const GAP: f64 = 50.0;

/// Its name, its color, and its value at the sample with this index.
type Curve = (&'static str, &'static str, fn(&[Sample], usize) -> f64);

const MIB: f64 = 1024.0 * 1024.0;

const PANELS: [(&str, &[Curve]); 3] = [
    (
        "Memory of the server, MiB",
        &[
            ("resident", "#1f6feb", |samples, index| samples[index].rss / MIB),
            ("heap", "#8250df", |samples, index| samples[index].heap / MIB),
        ],
    ),
    ("Open file descriptors", &[("files", "#1a7f37", |samples, index| samples[index].files)]),
    (
        "Requests per second",
        &[
            ("good, accepted", "#1a7f37", |samples, index| {
                rate(samples, index, |one| one.accepted)
            }),
            ("hostile, rejected", "#9a6700", |samples, index| {
                rate(samples, index, |one| one.rejected)
            }),
            ("good, lost in a window", "#cf222e", |samples, index| {
                rate(samples, index, |one| one.lost)
            }),
        ],
    ),
];

/// Per second, over the last five samples.
fn rate(samples: &[Sample], index: usize, of: fn(&Sample) -> u64) -> f64 {
    let (before, now) = (&samples[index.saturating_sub(5)], &samples[index]);
    of(now).saturating_sub(of(before)) as f64 / (now.at - before.at).max(0.001)
}

pub(crate) fn svg(samples: &[Sample], events: &[Event], warm_up: Duration) -> String {
    let end = samples.last().map_or(1.0, |last| last.at.max(1.0));
    let x = |at: f64| LEFT + at / end * WIDTH;
    let total = TOP + 3.0 * (HEIGHT + GAP) + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {total:.0}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        LEFT + WIDTH + 30.0
    );
    for (number, (title, curves)) in PANELS.iter().enumerate() {
        let top = TOP + number as f64 * (HEIGHT + GAP);
        let bottom = top + HEIGHT;
        for event in events {
            let (from, until) = (event.at.as_secs_f64(), (event.at + event.lasts).as_secs_f64());
            if from < end {
                let _ = writeln!(
                    svg,
                    "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{HEIGHT}\" fill=\"#f0e6d8\"><title>{event}</title></rect>",
                    x(from),
                    x(until.min(end)) - x(from)
                );
            }
        }
        let values =
            curves.iter().flat_map(|(_, _, of)| (0..samples.len()).map(|index| of(samples, index)));
        let highest = values.fold(1.0, f64::max) * 1.1;
        let y = |value: f64| bottom - value / highest * HEIGHT;
        for part in 0..=4 {
            let value = highest * f64::from(part) / 4.0;
            let at = y(value);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
                LEFT + WIDTH,
                LEFT - 8.0,
                at + 4.0
            );
        }
        let warm = x(warm_up.as_secs_f64().min(end));
        let _ = writeln!(
            svg,
            "<line x1=\"{warm:.1}\" x2=\"{warm:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\" stroke=\"#666\" stroke-dasharray=\"4\"/>\
             <text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{title}</text>",
            top - 8.0
        );
        for (place, (name, color, of)) in curves.iter().enumerate() {
            let mut points = String::new();
            for (index, sample) in samples.iter().enumerate() {
                let _ = write!(points, "{:.1},{:.1} ", x(sample.at), y(of(samples, index)));
            }
            let _ = writeln!(
                svg,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{color}\">{name}</text>",
                LEFT + 300.0 + 200.0 * place as f64,
                top - 8.0
            );
        }
    }
    for part in 0..=10 {
        let at = end * f64::from(part) / 10.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.1} min</text>",
            x(at),
            TOP + 3.0 * HEIGHT + 2.0 * GAP + 18.0,
            at / 60.0
        );
    }
    svg + "</svg>\n"
}
