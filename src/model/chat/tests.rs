//! Templates against `apply_chat_template` of transformers (`tests/fixtures/make_chat.py`).

use serde_json::json;

use super::*;

fn fixture() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn turn(value: &Value) -> Turn {
    let role = ["system", "user", "assistant"];
    let role = role.into_iter().find(|r| value["role"] == *r).unwrap();
    Turn::new(role, value["content"].as_str().unwrap())
}

#[test]
fn conversations_are_written_as_transformers_writes_them() {
    let fixture = fixture();
    let tokens = fixture["tokens"].as_object().unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    let (mut refused, mut wrong) = (0, Vec::new());
    for case in cases {
        let name = case["template"].as_str().unwrap();
        let template =
            ChatTemplate::new(fixture["templates"][name].as_str().unwrap(), tokens.clone());
        let turns: Vec<Turn> = case["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(turn)
            .collect();
        let (last, before) = turns.split_last().unwrap();
        let written = match case["goes_on"].as_bool().unwrap() {
            true => template.render_answer(before, &last.content),
            false => template.render(&turns, case["asks_for_answer"].as_bool().unwrap()),
        };
        match (written, case["text"].as_str()) {
            (Ok(text), Some(wanted)) if text == wanted => {}
            (Err(error), None) => {
                refused += 1;
                let (error, wanted) = (error.to_string(), case["refused"].as_str().unwrap());
                assert!(
                    wanted.contains("final message") || error.contains(wanted),
                    "{error}"
                );
            }
            (found, wanted) => {
                wrong.push(format!("{name} {turns:?}\n{found:?}\nwanted\n{wanted:?}"))
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n\n")
    );
    assert!(refused > 5 && cases.len() > 50);
}

#[test]
fn templates_are_found_in_a_file_of_their_own_or_in_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = dir.path().join("tokenizer.json");
    let found = |config: Value| ChatTemplate::beside(&tokenizer, &config, Map::new());
    assert_eq!(found(json!({})), None);
    assert_eq!(
        found(json!({"chat_template": "a"})).unwrap().source,
        Ok("a".to_owned())
    );
    let named =
        json!([{"name": "tool_use", "template": "b"}, {"name": "default", "template": "c"}]);
    assert_eq!(
        found(json!({"chat_template": named})).unwrap().source,
        Ok("c".to_owned())
    );
    let other = json!([{"name": "tool_use", "template": "b"}]);
    assert_eq!(found(json!({"chat_template": other})), None);
    std::fs::write(dir.path().join(FILE), "d").unwrap();
    assert_eq!(
        found(json!({"chat_template": "a"})).unwrap().source,
        Ok("d".to_owned())
    );
    // What is no text is told where a template is used, and a model opens all the same.
    std::fs::remove_file(dir.path().join(FILE)).unwrap();
    std::fs::create_dir(dir.path().join(FILE)).unwrap();
    let template = found(json!({})).unwrap();
    let error = template.render(&[Turn::user("a")], true).unwrap_err();
    assert!(error.to_string().contains("cannot be rendered"), "{error}");
}

#[test]
fn a_template_from_elsewhere_takes_neither_the_stack_nor_the_memory() {
    let says = |source: String| {
        let template = ChatTemplate::new(&source, Map::new());
        template
            .render(&[Turn::user("a")], true)
            .unwrap_or_else(|error| error.to_string())
    };
    for part in ["-", "not ", "1+", "{% elif 1 %}", "{%"] {
        let source = part.repeat((1 << 16) / part.len() - 8);
        says(match part {
            "{%" => source,
            "{% elif 1 %}" => format!("{{% if 1 %}}{}{{% endif %}}", &source[..64_800]),
            _ => format!("{{{{ {source}1 }}}}"),
        });
    }
    assert!(says("a".repeat(1 << 17)).contains("at most 65536"));
    assert!(says("{{ 1|tojson(indent=99999999999999) }}".to_owned()).contains("wider than 32"));
    let double = "{% set ns.x = ns.x ~ ns.x %}".repeat(18);
    let long = format!("{{% set ns = namespace(x='abcdefgh') %}}{double}{{{{ ns.x }}}}");
    assert!(says(long).contains("1048576 are the most"));
}

#[test]
fn an_answer_is_found_whatever_the_request_quotes() {
    let turns = [Turn::user("Begin with \"I think that\"")];
    let keeps = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}";
    let template = ChatTemplate::new(keeps, Map::new());
    let text = template.render_answer(&turns, "I think that").unwrap();
    assert!(text.ends_with("<assistant>I think that"), "{text}");
    for source in [
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
        "{% for m in messages %}{{ m.content|upper }}{% endfor %}",
    ] {
        let template = ChatTemplate::new(source, Map::new());
        let error = template.render_answer(&turns, "I think that").unwrap_err();
        assert!(error.to_string().contains("leaves out the answer"));
    }
}

#[test]
fn what_cannot_be_rendered_is_told_with_its_file_and_line() {
    let says = |source: &str| {
        let template = ChatTemplate::new(source, Map::new());
        template
            .render(&[Turn::user("a")], true)
            .unwrap_err()
            .to_string()
    };
    assert!(
        says("\n{% if %}").contains("chat_template.jinja") && says("\n{% if %}").contains("line 2")
    );
    assert!(says("{{ raise_exception('no system') }}").contains("no system"));
    assert!(says("{{ strftime_now('%Q') }}").contains("%Q"));
    // A loop that would not end.
    let endless =
        "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
    assert!(says(endless).contains("fuel"), "{}", says(endless));
    let silent = ChatTemplate::new("nothing", Map::new());
    let error = silent
        .render_answer(&[Turn::user("a")], "I think")
        .unwrap_err();
    assert!(error.to_string().contains("leaves out the answer"));
}
