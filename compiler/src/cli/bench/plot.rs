//! `tcc bench --plot`: what was measured as charts, one SVG, alone or in a page with the tables below.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use serde_json::Value;

use crate::cli::prepare;
use crate::error::Error;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Pixels of a chart with bars: its width, what surrounds the bars, and each bar.
const WIDTH: u32 = 760;
const AROUND: u32 = 90;
const BAR: u32 = 26;
/// Pixels of the chart of rates.
const RATES_HEIGHT: u32 = 300;
/// Room for the names of ops, pixels.
const NAMES: u32 = 120;

const DECODE: RGBColor = RGBColor(38, 98, 178);
const PREFILL: RGBColor = RGBColor(196, 98, 16);
const FAINT: RGBColor = RGBColor(150, 150, 150);

/// Bars of one kind of work.
struct Bars {
    title: String,
    color: RGBColor,
    /// What the axis counts.
    unit: &'static str,
    /// Name, length and words of each.
    bars: Vec<(String, f64, String)>,
    /// Where a line is drawn, if anywhere: the roofline.
    limit: Option<f64>,
}

/// Fails for a file that is neither `.svg` nor `.html`, before anything is measured.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("svg" | "html") => Ok(()),
        _ => Err(Error::usage(format!("'{}' is no kind of plot", path.display()), "give --plot FILE.svg or FILE.html")),
    }
}

/// Draws `value`, as `tcc bench --json` prints it, to `path`; a page has `text` below.
pub(super) fn write(path: &Path, value: &Value, text: &str) -> Result<(), Error> {
    let svg =
        svg(value).map_err(|reason| Error::usage(format!("the plot cannot be drawn: {reason}"), "leave out --plot"))?;
    let content = match path.extension().and_then(|e| e.to_str()) {
        Some("html") => {
            let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
            format!(
                "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>tcc bench</title>\n<body>\n{svg}\n\
                 <pre>{escaped}</pre>\n</body></html>\n"
            )
        }
        _ => svg,
    };
    prepare::write_file(path, content.as_bytes())
}

fn svg(value: &Value) -> Result<String, String> {
    let rows: Vec<&Value> = value["rows"].as_array().into_iter().flatten().collect();
    let charts = charts(value, &rows);
    let heights: Vec<u32> = charts.iter().map(|chart| AROUND + BAR * chart.bars.len() as u32).collect();
    let rates = if rows.is_empty() { 0 } else { RATES_HEIGHT };
    let mut svg = String::new();
    {
        let height = heights.iter().sum::<u32>() + rates;
        let mut rest = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let failed = |error: DrawingAreaErrorKind<_>| format!("{error}");
        rest.fill(&WHITE).map_err(failed)?;
        for (chart, height) in charts.iter().zip(heights) {
            let (here, below) = rest.split_vertically(height);
            draw_bars(&here, chart).map_err(failed)?;
            rest = below;
        }
        if rates > 0 {
            draw_rates(&rest, &rows).map_err(failed)?;
        }
        rest.present().map_err(failed)?;
    }
    Ok(svg)
}

/// What is drawn as bars: shares of limits for the first number of threads, or counts of instructions.
fn charts(value: &Value, rows: &[&Value]) -> Vec<Bars> {
    let (from, threads) = match rows.first() {
        Some(row) => (*row, row["threads"].as_u64()),
        None => (value, None),
    };
    let chart = |kind: &str, color, share: &str, limit_name: &str| {
        let ops = from[format!("{kind}_ops")].as_array().into_iter().flatten();
        let title = |what: &str| match threads {
            Some(n) => format!("{kind}: {what} by op, threads: {n}"),
            None => format!("{kind}: {what} by op"),
        };
        let name = |op: &Value| op["op"].as_str().unwrap_or("").to_owned();
        if threads.is_some() {
            let bar = |op: &Value| {
                let time = 100.0 * op["share_of_time"].as_f64().unwrap_or(0.0);
                let share = op[share].as_f64().map(|share| 100.0 * share);
                let words = share.map_or_else(String::new, |share| format!("{share:.0} %, "));
                (name(op), share.unwrap_or(0.0), format!("{words}{time:.0} % of time"))
            };
            Bars {
                title: title(&format!("share of {limit_name}")),
                color,
                unit: "%",
                bars: ops.map(bar).collect(),
                limit: Some(100.0),
            }
        } else {
            let bar = |op: &Value| {
                let count = op["instructions_per_token"].as_f64().unwrap_or(0.0) / 1e6;
                (name(op), count, format!("{count:.2} M"))
            };
            let bars = ops.map(bar).collect();
            Bars { title: title("executed instructions of a token"), color, unit: "million", bars, limit: None }
        }
    };
    vec![
        chart("decode", DECODE, "share_of_bandwidth", "the read bandwidth"),
        chart("prefill", PREFILL, "share_of_int8_peak", "the int8 peak"),
    ]
}

type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw_bars<'a>(area: &Area<'a>, chart: &Bars) -> Drawn<'a> {
    let n = chart.bars.len();
    let longest = chart.bars.iter().map(|bar| bar.1).chain(chart.limit).fold(0.0, f64::max);
    // Room for the words behind the longest bar.
    let end = if longest > 0.0 { 1.3 * longest } else { 1.0 };
    let mut context = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(0.0..end, 0.0..n as f64)?;
    // Centers of bars; the first is on top.
    let center = |i: usize| n as f64 - i as f64 - 0.5;
    context.configure_mesh().disable_y_mesh().disable_y_axis().y_labels(0).x_desc(chart.unit).draw()?;
    context.draw_series(
        chart
            .bars
            .iter()
            .enumerate()
            .map(|(i, bar)| Rectangle::new([(0.0, center(i) - 0.38), (bar.1, center(i) + 0.38)], chart.color.filled())),
    )?;
    if let Some(limit) = chart.limit {
        context.draw_series(LineSeries::new([(limit, 0.0), (limit, n as f64)], FAINT.stroke_width(2)))?;
    }
    let words = ("sans-serif", 13).into_font().color(&BLACK);
    let plane = context.plotting_area();
    for (i, (name, length, said)) in chart.bars.iter().enumerate() {
        let (x, y) = plane.map_coordinate(&(*length, center(i)));
        let (left, _) = plane.map_coordinate(&(0.0, center(i)));
        area.draw(&Text::new(said.clone(), at(area, x + 6, y - 7), words.clone()))?;
        area.draw(&Text::new(name.clone(), at(area, left - NAMES as i32 + 6, y - 7), words.clone()))?;
    }
    Ok(())
}

/// A pixel of the whole picture as one of `area`.
fn at(area: &Area<'_>, x: i32, y: i32) -> (i32, i32) {
    let (left, top) = area.get_base_pixel();
    (x - left, y - top)
}

/// Tokens per second by threads, and what the bandwidth allows.
fn draw_rates<'a>(area: &Area<'a>, rows: &[&Value]) -> Drawn<'a> {
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or(0.0);
    let allowed = |row: &Value| {
        let [decode, share] = ["decode_tokens_per_second", "share_of_bandwidth"].map(|key| number(row, key));
        if share > 0.0 { decode / share } else { 0.0 }
    };
    let points = |of: &dyn Fn(&Value) -> f64| -> Vec<(f64, f64)> {
        rows.iter().map(|row| (number(row, "threads"), of(row))).collect()
    };
    let series = [
        ("decode", DECODE, points(&|row| number(row, "decode_tokens_per_second"))),
        ("what the read bandwidth allows", FAINT, points(&allowed)),
        ("prefill", PREFILL, points(&|row| number(row, "prefill_tokens_per_second"))),
    ];
    let most = |i: fn(&(f64, f64)) -> f64| series.iter().flat_map(|s| &s.2).map(i).fold(1.0, f64::max);
    let mut context = ChartBuilder::on(area)
        .caption("tokens per second by threads", ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(64)
        .build_cartesian_2d(0.5..most(|p| p.0) + 0.5, 0.0..1.1 * most(|p| p.1))?;
    context.configure_mesh().x_labels(rows.len() + 1).x_desc("threads").y_desc("tokens/s").draw()?;
    for (name, color, points) in series {
        context.draw_series(points.iter().map(|point| Circle::new(*point, 4, color.filled())))?;
        context
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 14, y + 4)], color.filled()));
    }
    context.configure_series_labels().border_style(FAINT).background_style(WHITE).draw()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn measured_and_counted_results_are_drawn() {
        let op = |share: &str| json!({ "op": "gate, up", "share_of_time": 0.5, share: 0.75 });
        let row = |threads: u32| {
            json!({ "threads": threads, "decode_tokens_per_second": 10.0, "prefill_tokens_per_second": 90.0,
                    "share_of_bandwidth": 0.5,
                    "decode_ops": [op("share_of_bandwidth")], "prefill_ops": [op("share_of_int8_peak")] })
        };
        let measured = svg(&json!({ "bytes_per_token": 1e9, "rows": [row(1), row(2)] })).expect("drawn");
        for words in ["share of the read bandwidth", "gate, up", "75 %, 50 % of time", "tokens per second by threads"] {
            assert!(measured.contains(words), "{words}: {measured}");
        }
        let ops = json!([{ "op": "down", "instructions_per_token": 2.5e6 }]);
        let counted = svg(&json!({ "decode_ops": ops, "prefill_ops": ops })).expect("drawn");
        assert!(counted.contains("2.50 M") && !counted.contains("tokens per second"), "{counted}");
    }

    #[test]
    fn files_of_another_kind_are_refused() {
        assert!(check(Path::new("a.svg")).is_ok() && check(Path::new("a.html")).is_ok());
        assert!(check(Path::new("a.png")).is_err() && check(Path::new("svg")).is_err());
    }
}
