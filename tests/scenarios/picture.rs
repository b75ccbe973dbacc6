//! One SVG per pattern: for each profile a panel with the share of samples above each value, ours and the naive code's.
//!
//! Plain shapes and text that read on light and on dark pages; no script, no font, no outside reference.

use std::fmt::Write;

use kv_patterns::sim::Profile;

use super::table::Measured;
use super::{Picture, Run, Unit};

const PANEL_WIDTH: u64 = 270;
const PANEL_HEIGHT: u64 = 180;
const LEFT: u64 = 76;
const TOP: u64 = 70;
const GAP: u64 = 44;
/// Steps of the x axis; each axis has four labelled quarters.
const STEPS: u64 = 90;
/// What the y axis may reach, in per cent.
const SHARES: [u64; 5] = [4, 12, 20, 40, 100];

const OURS: &str = "#2f81f7";
const NAIVE: &str = "#d9730d";
const QUIET: &str = "#8b949e";

/// The picture of what was measured.
pub(crate) fn svg(picture: &Picture, measured: &Measured) -> String {
    let panels = u64::try_from(measured.runs.len()).unwrap_or(1);
    let width = LEFT + panels * (PANEL_WIDTH + GAP);
    let height = TOP + PANEL_HEIGHT + 70;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"{QUIET}\">\n<title>{}</title>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
        picture.title, picture.title
    );
    legend(&mut svg);
    let most = measured.runs.iter().flat_map(|(_, ours, naive)| [ours, naive]).map(|run| share(picture, run, 0)).max();
    let share_max = SHARES.into_iter().find(|percent| most.unwrap_or(0) <= percent * 10).unwrap_or(100);
    for (number, (profile, ours, naive)) in (0..).zip(&measured.runs) {
        let left = LEFT + number * (PANEL_WIDTH + GAP);
        let longest = longest(picture, ours).max(longest(picture, naive));
        let end = round_up(longest.max((picture.promised)(profile).unwrap_or(0)), picture.unit);
        let panel = Panel { left, end, share_max, unit: picture.unit };
        panel.axes(&mut svg, profile, number == 0);
        if let Some(most) = (picture.promised)(profile) {
            let x = panel.x(most);
            let (top, bottom) = (TOP, TOP + PANEL_HEIGHT);
            let _ = writeln!(
                svg,
                "<path d=\"M{x} {top}V{bottom}\" stroke=\"{QUIET}\" stroke-dasharray=\"4 3\"/><text x=\"{}\" y=\"{}\" \
                 text-anchor=\"end\">promised {}</text>",
                x.saturating_sub(4),
                TOP + 12,
                tick(most, picture.unit)
            );
        }
        panel.curve(&mut svg, picture, naive, NAIVE);
        panel.curve(&mut svg, picture, ours, OURS);
    }
    let (middle, bottom) = (LEFT + panels * (PANEL_WIDTH + GAP) / 2, TOP + PANEL_HEIGHT + 52);
    let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{bottom}\" text-anchor=\"middle\">{}</text>", picture.x);
    let _ = writeln!(
        svg,
        "<text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n</svg>",
        TOP + PANEL_HEIGHT / 2,
        picture.y
    );
    svg
}

fn legend(svg: &mut String) {
    for (x, color, label) in [(LEFT, OURS, "this library"), (LEFT + 120, NAIVE, "naive code")] {
        let _ = writeln!(
            svg,
            "<path d=\"M{x} 40h20\" stroke=\"{color}\" stroke-width=\"3\"/><text x=\"{}\" y=\"44\">{label}</text>",
            x + 26
        );
    }
}

struct Panel {
    left: u64,
    /// The value at the right end.
    end: u64,
    /// The share at the top, in per cent.
    share_max: u64,
    unit: Unit,
}

impl Panel {
    fn x(&self, value: u64) -> u64 {
        self.left + value * PANEL_WIDTH / self.end
    }

    fn axes(&self, svg: &mut String, profile: &Profile, labelled: bool) {
        let (left, bottom) = (self.left, TOP + PANEL_HEIGHT);
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"{}\">{}</text>\n<path d=\"M{left} {TOP}V{bottom}H{}\" fill=\"none\" stroke=\"{QUIET}\"/>",
            TOP - 8,
            profile.name,
            left + PANEL_WIDTH
        );
        for quarter in 0..=4 {
            let (value, y) = (self.end * quarter / 4, bottom - PANEL_HEIGHT * quarter / 4);
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                self.x(value),
                bottom + 18,
                tick(value, self.unit).trim_end_matches(" s")
            );
            if labelled {
                let _ = writeln!(
                    svg,
                    "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{} %</text>",
                    left - 6,
                    y + 4,
                    quarter * self.share_max / 4
                );
            }
        }
    }

    /// The share of samples above each value, as steps.
    fn curve(&self, svg: &mut String, picture: &Picture, run: &Run, color: &str) {
        let mut path = String::new();
        for step in 0..=STEPS {
            let value = self.end * step / STEPS;
            let y = TOP + PANEL_HEIGHT - PANEL_HEIGHT * share(picture, run, value) / (self.share_max * 10);
            let _ = write!(path, "{}{} {y}", if step == 0 { "M" } else { "L" }, self.x(value));
        }
        let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>");
    }
}

/// A value as the axis shows it: times in whole seconds.
fn tick(value: u64, unit: Unit) -> String {
    match unit {
        Unit::Millis => format!("{} s", value / 1000),
        Unit::Count => value.to_string(),
        Unit::Permille => format!("{} %", value / 10),
    }
}

/// The smallest end not below `value` whose four quarters are whole and short numbers.
fn round_up(value: u64, unit: Unit) -> u64 {
    let one = match unit {
        Unit::Millis => 1000,
        Unit::Count => 1,
        Unit::Permille => 10,
    };
    let quarter = value.div_ceil(4 * one).max(1);
    let mut power = 1;
    loop {
        if let Some(digit) = [1, 2, 3, 4, 5, 6, 8].into_iter().find(|digit| digit * power >= quarter) {
            let end = 4 * one * digit * power;
            return if unit == Unit::Permille { end.min(1000) } else { end };
        }
        power *= 10;
    }
}

/// How many of a thousand samples are above `value`.
fn share(picture: &Picture, run: &Run, value: u64) -> u64 {
    let samples = samples(picture, run);
    let above = samples.iter().filter(|sample| **sample > value).count();
    u64::try_from(above * 1000 / samples.len().max(1)).unwrap_or(0)
}

fn samples<'a>(picture: &Picture, run: &'a Run) -> &'a [u64] {
    run.samples.get(picture.figure).map_or(&[], Vec::as_slice)
}

fn longest(picture: &Picture, run: &Run) -> u64 {
    samples(picture, run).iter().max().copied().unwrap_or(0)
}
