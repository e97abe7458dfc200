//! Jinja as Hugging Face renders chat templates: blocks trimmed, Python's spelling of values, and the
//! functions that templates call.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, escape_formatter};
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

/// Instructions that a template may take: it comes from elsewhere, and may loop for ever.
const FUEL: u64 = 1_000_000;
/// The longest template that is rendered, in bytes: families' own have up to 20,000. Nesting grows with
/// the length, and with it the stack.
const LONGEST: usize = 1 << 16;
/// The longest text that a template may make, in bytes.
const LONGEST_TEXT: usize = 1 << 20;
/// Of the thread that renders, which a template of [`LONGEST`] bytes does not fill.
const STACK: usize = 512 << 20;
/// The widest indent of JSON.
const WIDEST: usize = 32;

/// The date that a template is told, which Llama's takes where it is told none: Friday, 26 July 2024.
const DATE: [(char, &str); 14] = [
    ('Y', "2024"),
    ('y', "24"),
    ('m', "07"),
    ('d', "26"),
    ('B', "July"),
    ('b', "Jul"),
    ('A', "Friday"),
    ('a', "Fri"),
    ('j', "208"),
    ('H', "00"),
    ('I', "12"),
    ('M', "00"),
    ('S', "00"),
    ('%', "%"),
];

/// Renders a template; the error is what is wrong with it, in one line.
pub(super) fn render(source: &str, context: impl Serialize) -> Result<String, String> {
    if source.len() > LONGEST {
        return Err(format!(
            "it has {} bytes, and at most {LONGEST} are rendered",
            source.len()
        ));
    }
    let context = Value::from(Serde(context));
    let text = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let rendering = thread.spawn_scoped(scope, || render_here(source, context));
        let rendering = rendering.map_err(|e| e.to_string())?;
        rendering
            .join()
            .unwrap_or_else(|_| Err("it cannot be rendered".to_owned()))
    })?;
    match text.len() {
        0..=LONGEST_TEXT => Ok(text),
        bytes => Err(format!(
            "it makes a text of {bytes} bytes, and {LONGEST_TEXT} are the most"
        )),
    }
}

fn render_here(source: &str, context: Value) -> Result<String, String> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    environment.set_syntax(syntax.map_err(|e| e.to_string())?);
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out, state, value| {
        let python = match value.kind() {
            ValueKind::None => Value::from("None"),
            ValueKind::Bool if value.is_true() => Value::from("True"),
            ValueKind::Bool => Value::from("False"),
            _ => value.clone(),
        };
        escape_formatter(out, state, &python)
    });
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |message: String| {
        Err::<Value, _>(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| date(&format));
    let source = without_generation(source);
    let rendered = environment.render_str(&source, context);
    rendered.map_err(|e| match e.line() {
        Some(line) => {
            let kind = e.kind().to_string();
            format!("{} (line {line})", e.detail().unwrap_or(&kind))
        }
        None => e.to_string(),
    })
}

/// A date as `strftime` writes it.
fn date(format: &str) -> Result<String, Error> {
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let code = letters.next();
        let known = DATE.iter().find(|(c, _)| Some(*c) == code);
        let (_, value) = known.ok_or_else(|| {
            let problem = format!("'{format}' asks for a part of a date that is not known");
            Error::new(ErrorKind::InvalidOperation, problem)
        })?;
        out.push_str(value);
    }
    Ok(out)
}

/// `{% generation %}` marks what the model has said, for training alone: a block that changes nothing.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("{%") {
        out.push_str(before);
        out.push_str("{%");
        let Some((tag, following)) = after.split_once("%}") else {
            rest = after;
            break;
        };
        match tag.trim_matches(['-', '+']).trim() {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        out.push_str("%}");
        rest = following;
    }
    out.push_str(rest);
    out
}

/// JSON as Python's `json.dumps` writes it, without the escapes of HTML; `indent` as there.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    if let Some(width) = indent.filter(|width| *width > WIDEST) {
        let problem = format!("an indent of {width} is wider than {WIDEST}");
        return Err(Error::new(ErrorKind::InvalidOperation, problem));
    }
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut bytes = Vec::new();
    let failed =
        |e| Error::new(ErrorKind::BadSerialization, "cannot be written as JSON").with_source(e);
    match indent {
        Some(width) => {
            let blanks = " ".repeat(width);
            let formatter = PrettyFormatter::with_indent(blanks.as_bytes());
            let mut serializer = Serializer::with_formatter(&mut bytes, formatter);
            value.serialize(&mut serializer).map_err(failed)?;
        }
        None => {
            let mut serializer = Serializer::with_formatter(&mut bytes, Spaced);
            value.serialize(&mut serializer).map_err(failed)?;
        }
    }
    Ok(Value::from(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Python's separators: a blank after each comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}
