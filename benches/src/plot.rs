//! A bar chart as SVG: for each row a wide bar with its range, and a narrow one for another measure.

use std::fmt::Write;

use crate::measure::Spread;

/// One thing that was measured.
#[derive(Debug)]
pub struct Row {
    /// What it is called.
    pub label: String,
    /// The wide bar, with its range as a line.
    pub main: Spread,
    /// The narrow bar below it.
    pub side: Spread,
    /// In the stronger colour.
    pub marked: bool,
}

/// A chart. Shorter is better.
#[derive(Debug)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// What the wide bars are, with their unit.
    pub main: &'static str,
    /// What the narrow bars are, with their unit.
    pub side: &'static str,
    /// From top to bottom.
    pub rows: Vec<Row>,
}

/// Pixels: of the picture, left of the bars, and of the bars.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 150.0;
const BARS: f64 = 530.0;
/// Pixels: above the rows, and of a row.
const TOP: f64 = 52.0;
const ROW: f64 = 30.0;

impl Plot {
    /// The picture.
    pub fn svg(&self) -> String {
        let most = self.rows.iter().map(|row| row.main.most.max(row.side.median)).fold(0.0, f64::max);
        let step = step(most);
        let end = (most / step).ceil().max(1.0) * step;
        let x = |value: f64| LEFT + value / end * BARS;
        let bottom = self.rows.iter().fold(TOP, |at, _| at + ROW);
        let height = bottom + 28.0;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
             <text x=\"10\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{}</text>\n\
             <text x=\"10\" y=\"38\" fill=\"#555\">wide: {}, median with range; narrow: {}; shorter is better</text>\n",
            escape(&self.title),
            self.main,
            self.side
        );
        let mut tick = 0.0;
        while tick <= end + step / 2.0 {
            let at = x(tick);
            writeln!(out, "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/>").unwrap();
            writeln!(
                out,
                "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
                bottom + 16.0,
                number(tick)
            )
            .unwrap();
            tick += step;
        }
        let mut top = TOP;
        for row in &self.rows {
            let (wide, narrow) = if row.marked { ("#0b6e4f", "#7cc6a8") } else { ("#54708c", "#b3c3d3") };
            let middle = top + 10.0;
            writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                top + 18.0,
                escape(&row.label)
            )
            .unwrap();
            let mut bar = |at: f64, height: f64, value: f64, colour: &str| {
                let width = x(value) - LEFT;
                writeln!(
                    out,
                    "<rect x=\"{LEFT}\" y=\"{at:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
                )
                .unwrap();
            };
            bar(top + 4.0, 12.0, row.main.median, wide);
            bar(top + 18.0, 6.0, row.side.median, narrow);
            let (from, to) = (x(row.main.least), x(row.main.most));
            writeln!(
                out,
                "<path d=\"M{from:.1} {middle}H{to:.1}M{from:.1} {:.1}v6M{to:.1} {:.1}v6\" stroke=\"#000\"/>",
                middle - 3.0,
                middle - 3.0
            )
            .unwrap();
            writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>",
                to.max(x(row.side.median)) + 5.0,
                top + 17.0,
                row.main.median
            )
            .unwrap();
            top += ROW;
        }
        out.push_str("</svg>\n");
        out
    }
}

/// A distance of ticks that gives four to eight of them.
fn step(most: f64) -> f64 {
    let power = 10_f64.powf((most.max(1e-6) / 4.0).log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|factor| factor * power).find(|step| most / step >= 4.0).unwrap_or(power)
}

/// A tick without digits that say nothing.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
