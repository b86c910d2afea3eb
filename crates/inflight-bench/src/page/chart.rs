//! Line charts as SVG: a few series over a logarithmic axis, with how far their samples lie apart.

use std::fmt::Write;

/// The drawing's own units; the page scales them to its width.
const SIZE: (f64, f64) = (520.0, 300.0);
const LEFT: f64 = 90.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;

pub(super) struct Point {
    /// Which of the chart's ticks.
    pub(super) at: usize,
    pub(super) value: f64,
    /// Where half of the samples lie, if that is to be shown.
    pub(super) spread: Option<(f64, f64)>,
    /// What is said when somebody points at it.
    pub(super) note: String,
}

pub(super) struct Series {
    pub(super) name: String,
    /// Which of the page's seven colours, and form of marks.
    pub(super) color: usize,
    pub(super) points: Vec<Point>,
    /// The same everywhere: a line across, without marks.
    pub(super) is_level: bool,
}

pub(super) struct Chart {
    pub(super) title: String,
    pub(super) ticks: Vec<String>,
    pub(super) axis: &'static str,
    pub(super) series: Vec<Series>,
    /// Whether the upward axis is logarithmic too.
    pub(super) is_logarithmic: bool,
    /// How values are written beside the axis.
    pub(super) label: fn(f64) -> String,
    /// A line across, and what it is.
    pub(super) limit: Option<(f64, String)>,
}

impl Chart {
    fn values(&self) -> impl Iterator<Item = f64> {
        let points = self.series.iter().flat_map(|series| &series.points);
        let of_points = points.flat_map(|point| {
            let (low, high) = point.spread.unwrap_or((point.value, point.value));
            [point.value, low, high]
        });
        of_points.chain(self.limit.iter().map(|(value, _)| *value)).filter(|value| *value > 0.0)
    }

    /// Values at which lines are drawn, from the bottom to the top.
    fn lines(&self) -> Vec<f64> {
        let most = self.values().fold(0.0, f64::max);
        if most == 0.0 {
            return vec![0.0, 1.0];
        }
        if !self.is_logarithmic {
            let step = round_step(most / 4.0);
            let count = (most / step * 0.999).ceil().max(1.0) as usize;
            return (0..=count).map(|line| line as f64 * step).collect();
        }
        let least = self.values().fold(most, f64::min);
        let (from, to) = (least.log10().floor() as i32, most.log10().ceil() as i32);
        (from..=to.max(from + 1)).map(|power| 10f64.powi(power)).collect()
    }

    fn x(&self, at: usize) -> f64 {
        let width = SIZE.0 - LEFT - RIGHT - 24.0;
        let steps = self.ticks.len().saturating_sub(1).max(1) as f64;
        LEFT + 12.0 + width * at as f64 / steps
    }

    pub(super) fn svg(&self) -> String {
        let lines = self.lines();
        let is_logarithmic = self.is_logarithmic && lines[0] > 0.0;
        let scale = |value: f64| if is_logarithmic { value.max(1e-12).log10() } else { value };
        let (bottom, top) = (scale(lines[0]), scale(lines[lines.len() - 1]));
        let height = SIZE.1 - TOP - BOTTOM;
        let y = |value: f64| {
            TOP + height * (1.0 - ((scale(value) - bottom) / (top - bottom)).clamp(0.0, 1.0))
        };
        let mut out = String::new();
        let title = escape(&self.title);
        let _ = write!(
            out,
            r#"<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{title}">"#,
            SIZE.0, SIZE.1
        );
        for line in &lines {
            let (y, label) = (y(*line), (self.label)(*line));
            let _ = write!(
                out,
                r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}"/><text x="{}" y="{:.1}" text-anchor="end">{label}</text>"#,
                SIZE.0 - RIGHT,
                LEFT - 8.0,
                y + 5.0,
            );
        }
        // On a narrow axis every second name has room.
        let every = self.ticks.len().div_ceil(8);
        for (at, tick) in self.ticks.iter().enumerate().filter(|(at, _)| at % every == 0) {
            let _ = write!(
                out,
                r#"<text x="{:.1}" y="{}" text-anchor="middle">{tick}</text>"#,
                self.x(at),
                SIZE.1 - BOTTOM + 20.0,
            );
        }
        let _ = write!(
            out,
            r#"<text x="{:.1}" y="{}" text-anchor="middle">{}</text>"#,
            (LEFT + SIZE.0 - RIGHT) / 2.0,
            SIZE.1 - 4.0,
            self.axis,
        );
        if let Some((limit, name)) = &self.limit {
            let _ = write!(
                out,
                r#"<line class="limit" x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}"><title>{}</title></line>"#,
                SIZE.0 - RIGHT,
                escape(name),
                y = y(*limit),
            );
        }
        self.series.iter().for_each(|series| self.draw(&mut out, series, &y));
        out.push_str("</svg>");
        out
    }

    fn draw(&self, out: &mut String, series: &Series, y: &dyn Fn(f64) -> f64) {
        let color = series.color;
        let mut line = String::new();
        for point in &series.points {
            let letter = if line.is_empty() { 'M' } else { 'L' };
            let _ = write!(line, "{letter}{:.1} {:.1}", self.x(point.at), y(point.value));
        }
        if series.is_level
            && let Some(point) = series.points.first()
        {
            line = format!("M{LEFT} {y:.1}L{} {y:.1}", SIZE.0 - RIGHT, y = y(point.value));
        }
        let note = series.points.first().filter(|_| series.is_level).map(|point| &*point.note);
        let dashes = if series.is_level { r#" stroke-dasharray="7 5""# } else { "" };
        let _ = write!(
            out,
            r#"<path class="series c{color}" d="{line}"{dashes}><title>{}</title></path>"#,
            escape(note.unwrap_or(&series.name))
        );
        for point in series.points.iter().filter(|_| !series.is_level) {
            let (x, middle) = (self.x(point.at), y(point.value));
            if let Some((low, high)) = point.spread {
                let _ = write!(
                    out,
                    r#"<line class="spread c{color}" x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{:.1}"/>"#,
                    y(low),
                    y(high),
                );
            }
            let note = escape(&point.note);
            let _ = write!(
                out,
                r#"<path class="point f{color}" d="{}"><title>{note}</title></path>"#,
                mark(color, x, middle)
            );
        }
    }

    pub(super) fn legend(&self) -> String {
        let mut out = String::from(r#"<ul class="legend">"#);
        for series in &self.series {
            let (color, name) = (series.color, escape(&series.name));
            let (dashes, mark) = match series.is_level {
                true => (r#" stroke-dasharray="7 5""#, String::new()),
                false => {
                    ("", format!(r#"<path class="f{color}" d="{}"/>"#, mark(color, 12.0, 6.0)))
                }
            };
            let _ = write!(
                out,
                r#"<li><svg viewBox="0 0 24 12" aria-hidden="true"><path class="series c{color}" d="M0 6L24 6"{dashes}/>{mark}</svg>{name}</li>"#
            );
        }
        out.push_str("</ul>");
        out
    }
}

/// Marks have forms as well as colours: not everybody tells these apart.
fn mark(form: usize, x: f64, y: f64) -> String {
    match form % 4 {
        0 => format!("M{:.1} {y:.1}a4.6 4.6 0 1 0 9.2 0a4.6 4.6 0 1 0 -9.2 0Z", x - 4.6),
        1 => format!("M{:.1} {:.1}h8.4v8.4h-8.4Z", x - 4.2, y - 4.2),
        2 => format!("M{x:.1} {:.1}l5.4 9.4h-10.8Z", y - 6.0),
        _ => format!("M{x:.1} {:.1}l5.6 5.6l-5.6 5.6l-5.6 -5.6Z", y - 5.6),
    }
}

/// The next larger of 1, 2, 2.5 and 5 times a power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 2.5, 5.0];
    let fitting = factors.into_iter().find(|factor| factor * power >= step * 0.999);
    fitting.unwrap_or(10.0) * power
}

/// Text between tags, and in attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            char if char.is_control() => out.extend(char.escape_default()),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        let found = [0.3, 1.0, 1.7, 2.2, 4.0, 7.0, 480e6].map(round_step);
        let wanted = [0.5, 1.0, 2.0, 2.5, 5.0, 10.0, 500e6];
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found / wanted - 1.0).abs() < 1e-9, "{found} {wanted}");
        }
    }

    #[test]
    fn all_values_lie_within_the_chart() {
        for is_logarithmic in [false, true] {
            let point = |at, value: f64| Point {
                at,
                value,
                spread: Some((value * 0.5, value * 1.2)),
                note: "<here>".into(),
            };
            let points = vec![point(0, 1.0), point(1, 350.0), point(2, 2000.0)];
            let series = Series { name: "a&b".into(), color: 0, points, is_level: false };
            let chart = Chart {
                title: "\"t\"".into(),
                ticks: ["1", "2", "3"].map(String::from).into(),
                axis: "n",
                series: vec![series],
                is_logarithmic,
                label: |value| format!("{value}"),
                limit: Some((3000.0, "limit".into())),
            };
            let (lines, svg) = (chart.lines(), chart.svg());
            assert!(lines[0] <= 0.5 && *lines.last().expect("some") >= 3000.0, "{lines:?}");
            assert!(lines.len() >= 3 && lines.len() <= 7, "{lines:?}");
            assert!(
                svg.contains("&lt;here&gt;") && svg.contains("a&amp;b") && !svg.contains("NaN")
            );
        }
    }
}
