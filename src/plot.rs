//! A line chart with intervals, as SVG and as text. Knows numbers and names, not what they mean.

use std::fmt::Write;

/// The colours of Okabe and Ito, which colour-blind readers can tell apart.
const COLOURS: [&str; 8] = [
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999",
];
/// Dash patterns: each repeats all colours before the next pattern begins.
const DASHES: [&str; 4] = ["", "7 4", "2 3", "9 3 2 3"];
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// The space left, right, above and below the lines, in SVG units.
const MARGINS: [f64; 4] = [56.0, 210.0, 40.0, 48.0];
/// Lines of a text chart.
const TEXT_LINES: usize = 14;
/// The character of the reference line in a text chart.
const LEVEL: char = '·';
/// Columns between two values of x in a text chart.
const TEXT_STEP: usize = 10;

/// A chart of lines over a few values of x, which are drawn at equal distances.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chart {
    /// The title, above the lines.
    pub title: String,
    /// The name of the x axis, below it.
    pub x_label: String,
    /// The name of the y axis, above it.
    pub y_label: String,
    /// The lines, in the order in which the legend names them.
    pub series: Vec<Series>,
    /// A reference value that is drawn as a horizontal line, with its name.
    pub level: Option<(String, f64)>,
}

/// A line of a chart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// The name in the legend.
    pub name: String,
    /// The points, ascending in x.
    pub points: Vec<Point>,
}

/// A point with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The position on the x axis.
    pub x: f64,
    /// The value at `x`, between `low` and `high`.
    pub y: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

impl Chart {
    /// Whether no series has a point.
    pub fn is_empty(&self) -> bool {
        self.series.iter().all(|s| s.points.is_empty())
    }

    fn xs(&self) -> Vec<f64> {
        let mut xs: Vec<f64> = self
            .series
            .iter()
            .flat_map(|s| s.points.iter().map(|p| p.x))
            .collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        xs
    }

    /// The top of the y axis: a round number not below any value or interval.
    fn top(&self) -> f64 {
        let most = self
            .series
            .iter()
            .flat_map(|s| s.points.iter().map(|p| p.high));
        let most = most
            .chain(self.level.iter().map(|l| l.1))
            .fold(0.0, f64::max);
        if most <= 0.0 {
            return 1.0;
        }
        let base = 10f64.powf(most.max(1e-6).log10().floor());
        [1.0, 2.0, 4.0, 6.0, 8.0]
            .map(|m| m * base)
            .into_iter()
            .find(|&top| top >= most)
            .unwrap_or(10.0 * base)
    }

    /// The chart as SVG, readable on white and without scripts.
    pub fn svg(&self) -> String {
        let (xs, top) = (self.xs(), self.top());
        let [left, right, above, below] = MARGINS;
        let (wide, high) = (WIDTH - left - right, HEIGHT - above - below);
        let at_x = |x: f64| {
            let place = xs.iter().position(|&v| v == x).unwrap_or(0);
            left + wide * (place as f64 + 0.5) / xs.len().max(1) as f64
        };
        let at_y = |y: f64| above + high * (1.0 - (y / top).clamp(0.0, 1.0));
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        let text = |x: f64, y: f64, anchor: &str, content: &str| {
            format!(
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n",
                escaped(content)
            )
        };
        out += &text(left, 22.0, "start", &self.title);
        out += &text(left + wide / 2.0, HEIGHT - 10.0, "middle", &self.x_label);
        out += &text(6.0, above - 8.0, "start", &self.y_label);
        for i in 0..=4 {
            let y = top * f64::from(i) / 4.0;
            let at = at_y(y);
            out += &text(left - 6.0, at + 4.0, "end", &number(y));
            let _ = writeln!(
                out,
                "<path d=\"M{left:.1} {at:.1}h{wide:.1}\" stroke=\"#ddd\" fill=\"none\"/>"
            );
        }
        for &x in &xs {
            out += &text(at_x(x), HEIGHT - below + 18.0, "middle", &number(x));
        }
        for (i, series) in self.series.iter().enumerate() {
            let (colour, dash) = (
                COLOURS[i % COLOURS.len()],
                DASHES[i / COLOURS.len() % DASHES.len()],
            );
            let dash = if dash.is_empty() {
                String::new()
            } else {
                format!(" stroke-dasharray=\"{dash}\"")
            };
            // Intervals at the same x are shifted sideways, so that each can be read.
            let shift = (i as f64 - (self.series.len() as f64 - 1.0) / 2.0) * 4.0;
            let line: Vec<String> = series
                .points
                .iter()
                .map(|p| format!("{:.1},{:.1}", at_x(p.x) + shift, at_y(p.y)))
                .collect();
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
                line.join(" ")
            );
            for p in &series.points {
                let (x, y) = (at_x(p.x) + shift, at_y(p.y));
                let (low, high) = (at_y(p.low), at_y(p.high));
                let _ = writeln!(
                    out,
                    "<path d=\"M{x:.1} {low:.1}V{high:.1}\" stroke=\"{colour}\" fill=\"none\"/>"
                );
                let _ = writeln!(
                    out,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
                );
            }
            let (x, y) = (left + wide + 16.0, above + 18.0 * i as f64);
            let path = format!("M{x:.1} {:.1}h24", y + 2.0);
            let _ = writeln!(
                out,
                "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"4\" fill=\"none\"{dash}/>"
            );
            out += &text(x + 30.0, y + 7.0, "start", &series.name);
        }
        if let Some((name, y)) = &self.level {
            let at = at_y(*y);
            let _ = writeln!(
                out,
                "<path d=\"M{left:.1} {at:.1}h{wide:.1}\" stroke=\"#555\" stroke-dasharray=\"1 3\" fill=\"none\"/>"
            );
            out += &text(
                left + 4.0,
                at - 4.0,
                "start",
                &format!("{name} {}", number(*y)),
            );
        }
        out + "</svg>\n"
    }

    /// The chart as lines of text. Each series has a letter; where two coincide the first is shown.
    pub fn text(&self) -> Vec<String> {
        let mut out = vec![format!("{} ({})", self.title, self.y_label)];
        out.extend(self.grid(TEXT_LINES, TEXT_STEP));
        out.extend(
            self.series
                .iter()
                .enumerate()
                .map(|(i, s)| format!("{:>9} {}", letter(i), s.name)),
        );
        out.extend(
            self.level
                .iter()
                .map(|(name, y)| format!("{:>9} {name} ({})", LEVEL, number(*y))),
        );
        out
    }

    /// The plot without title and legend: `lines` lines above the axis, with the values of x `step`
    /// columns apart.
    pub fn grid(&self, lines: usize, step: usize) -> Vec<String> {
        let (lines, step) = (lines.max(2), step.max(2));
        let (xs, top) = (self.xs(), self.top());
        let mut grid = vec![vec![' '; xs.len() * step]; lines];
        let line_of =
            |y: f64| lines - 1 - ((y / top).clamp(0.0, 1.0) * (lines - 1) as f64).round() as usize;
        if let Some((_, y)) = &self.level {
            grid[line_of(*y)].fill(LEVEL);
        }
        for (i, series) in self.series.iter().enumerate().rev() {
            for p in &series.points {
                let column = xs.iter().position(|&x| x == p.x).unwrap_or(0) * step + step / 2;
                grid[line_of(p.y)][column] = letter(i);
            }
        }
        let mut out = Vec::with_capacity(lines + 2);
        for (i, line) in grid.into_iter().enumerate() {
            let y = top * (lines - 1 - i) as f64 / (lines - 1) as f64;
            out.push(format!(
                "{:>7} │{}",
                number(y),
                line.into_iter().collect::<String>().trim_end()
            ));
        }
        out.push(format!("{:>7} └{}", "", "─".repeat(xs.len() * step)));
        let ticks: String = xs
            .iter()
            .map(|&x| format!("{:^step$}", number(x)))
            .collect();
        out.push(format!("{:>7}  {}  {}", "", ticks.trim_end(), self.x_label));
        out
    }
}

/// The letter of a series in a text chart.
fn letter(i: usize) -> char {
    char::from(b'a' + (i % 26) as u8)
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Escapes text for an XML element; characters that XML cannot hold become `?`.
pub(crate) fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => "?".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let point = |x, y| Point {
            x,
            y,
            low: y - 0.1,
            high: y + 0.1,
        };
        Chart {
            title: "score <&> KL".to_owned(),
            x_label: "KL".to_owned(),
            y_label: "score".to_owned(),
            series: vec![
                Series {
                    name: "k100".to_owned(),
                    points: vec![point(0.1, 0.2), point(0.5, 0.85)],
                },
                Series {
                    name: "random".to_owned(),
                    points: vec![point(0.5, 0.1)],
                },
            ],
            level: None,
        }
    }

    #[test]
    fn text_shows_each_point_at_its_height() {
        let lines = chart().text();
        assert_eq!(lines.len(), 1 + TEXT_LINES + 2 + 2);
        let height_of = |letter: char| {
            let line = lines[1..=TEXT_LINES]
                .iter()
                .rposition(|l| l.contains(letter));
            TEXT_LINES - 1 - line.unwrap()
        };
        // The axis ends at 1, which is 13 steps above 0.
        assert!(lines[1].starts_with("      1 │"), "{}", lines[1]);
        assert_eq!((height_of('a'), height_of('b')), (3, 1));
        assert!(lines[TEXT_LINES + 2].contains("0.1") && lines[TEXT_LINES + 2].contains("0.5"));
        assert!(lines.last().unwrap().ends_with("b random"));
    }

    #[test]
    fn svg_is_well_formed_and_escapes_names() {
        let svg = chart().svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("score &lt;&amp;&gt; KL") && !svg.contains("<&>"));
        assert_eq!(
            (
                svg.matches("<circle").count(),
                svg.matches("<polyline").count()
            ),
            (3, 2)
        );
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(
            Chart::default().svg().contains("</svg>"),
            "an empty chart is still one"
        );
    }

    #[test]
    fn many_lines_differ_in_colour_or_dashes_and_a_level_is_drawn() {
        let one = chart().series.remove(0);
        let many = Chart {
            series: vec![one; 20],
            level: Some(("unsteered".to_owned(), 0.5)),
            ..chart()
        };
        let svg = many.svg();
        let styles = svg
            .lines()
            .filter(|l| l.starts_with("<polyline"))
            .map(|l| l.split_once("stroke=").unwrap().1);
        assert_eq!(styles.collect::<std::collections::HashSet<_>>().len(), 20);
        assert!(svg.contains("unsteered 0.5"));
        let text = many.text();
        assert!(
            text.last().unwrap().ends_with("· unsteered (0.5)")
                && text.iter().any(|l| l.contains("····"))
        );
    }

    #[test]
    fn an_axis_of_nothing_but_zeros_has_a_scale() {
        let flat = Point {
            x: 0.1,
            y: 0.0,
            low: 0.0,
            high: 0.0,
        };
        let series = vec![Series {
            name: "a".to_owned(),
            points: vec![flat],
        }];
        let lines = Chart { series, ..chart() }.grid(3, 8);
        assert!(
            lines[0].trim_start().starts_with("1 │")
                && lines[1].contains("0.5")
                && lines[2].contains('a'),
            "{lines:?}"
        );
    }
}
