//! `describe` and the judged `eval steering` against a real server: llama.cpp's, with SmolLM2
//! behind it.
//!
//! `pip install 'llama-cpp-python[server]'`, then `MLPEEK_TEST_LLAMA=PYTHON
//! MLPEEK_TEST_MODEL=SmolLM2-135M-Instruct.Q4_1.gguf cargo test --test llama_server -- --ignored`
//! where PYTHON is the interpreter that has it; or MLPEEK_TEST_LLAMA is the address of a server
//! that needs no key, such as `http://127.0.0.1:8080/v1`. So small a judge is wrong about much:
//! what is tested is that it is asked and read rightly.

mod support;

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

const KEY: &str = "sk-of-a-test-on-loopback";

/// A server that ends with the test.
struct Server {
    url: String,
    child: Option<Child>,
}

impl Server {
    fn start() -> Self {
        let how = std::env::var("MLPEEK_TEST_LLAMA")
            .expect("set MLPEEK_TEST_LLAMA to a python or a server's address");
        if how.starts_with("http") {
            return Self {
                url: how,
                child: None,
            };
        }
        let model = std::env::var("MLPEEK_TEST_MODEL")
            .expect("set MLPEEK_TEST_MODEL to the SmolLM2 GGUF file");
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let port_text = port.to_string();
        let child = std::process::Command::new(how)
            .args([
                "-m",
                "llama_cpp.server",
                "--model",
                &model,
                "--host",
                "127.0.0.1",
                "--port",
                &port_text,
            ])
            .args([
                "--n_ctx",
                "2048",
                "--model_alias",
                "smollm2",
                "--api_key",
                KEY,
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            url: format!("http://127.0.0.1:{port}/v1"),
            child: Some(child),
        };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(180),
                "the server does not come up"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn run(home: &TempDir, args: &[&str], key: &str) -> (Vec<Value>, String, Option<i32>) {
    let mut command = Command::cargo_bin("mlpeek").unwrap();
    command
        .env("MLPEEK_HOME", home.path().join("home"))
        .env("HF_HUB_OFFLINE", "1")
        .env("NO_PROXY", "*");
    command
        .env("JUDGE_KEY", key)
        .timeout(Duration::from_secs(900));
    let output = command.args(args).arg("--json").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        !stderr.contains(KEY) && !stderr.contains("panicked"),
        "{stderr}"
    );
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(!stdout.contains(KEY));
    (
        stdout
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect(),
        stderr,
        output.status.code(),
    )
}

fn event<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    lines.iter().filter(|l| l["event"] == name).collect()
}

#[test]
#[ignore = "needs llama.cpp's server and the SmolLM2 weights: MLPEEK_TEST_LLAMA and MLPEEK_TEST_MODEL"]
fn a_real_server_describes_and_judges() {
    let (server, home) = (Server::start(), TempDir::new().unwrap());
    let model = support::tiny_model(home.path()).display().to_string();
    let data = support::corpus(home.path(), 60).display().to_string();
    let study = home.path().join("study").display().to_string();
    let done = |args: &[&str]| {
        let (lines, stderr, code) = run(&home, args, KEY);
        assert_eq!(code, Some(0), "{stderr}");
        println!("{stderr}");
        lines
    };
    done(&[
        "collect", "--model", &model, "--layer", "1", "--data", &data, "--out", &study,
    ]);
    done(&[
        "fit",
        &study,
        "--features",
        "6",
        "--sparsity",
        "0.2",
        "--max-sweeps",
        "20",
    ]);
    // The server answers one call after the other, and a small machine takes its time.
    let judge = [
        "--endpoint",
        &server.url,
        "--judge-model",
        "smollm2",
        "--key-env",
        "JUDGE_KEY",
        "--timeout",
        "300",
    ];
    let judge = [&judge[..], &["--concurrency", "2"]].concat();

    let described = done(&[&["describe", &study, "0,3", "--sentences"], &judge[..]].concat());
    println!("{described:#?}");
    let all = event(&described, "described");
    assert_eq!(all.len(), 2);
    for line in &all {
        let description = &line["description"];
        assert!(
            description["input"].as_str().is_some_and(|s| s.len() > 3)
                && description["output"].is_string(),
            "{description}"
        );
        assert!(
            description["judge"]
                .as_str()
                .unwrap()
                .starts_with("smollm2 at "),
            "{description}"
        );
        // Whatever it did not give is told.
        let missing = description["input_sentences"].is_null()
            || description["detection"]["missing"].as_u64() > Some(0);
        assert!(
            !missing
                || description["errors"]
                    .as_array()
                    .is_some_and(|e| !e.is_empty()),
            "{description}"
        );
    }
    let usage = &event(&described, "usage")[0]["usage"];
    assert!(
        usage["failed"] == 0 && usage["prompt_tokens"].as_u64() > Some(500),
        "the server counts tokens: {usage}"
    );

    let texts = [
        "--labels",
        "water",
        "--kl",
        "0.02",
        "--max-tokens",
        "6",
        "--prompt",
        "the river",
        "--prompt",
        "on Tuesday",
    ];
    let steering = [
        &[
            "eval",
            "steering",
            &study,
            "--methods",
            "fit,random",
            "--name",
            "real",
        ],
        &texts[..],
        &judge[..],
    ]
    .concat();
    let found = done(&steering);
    println!("{:#?}", event(&found, "method"));
    let judged = event(&found, "text");
    assert!(!judged.is_empty());
    for text in &judged {
        let judgement = &text["judgement"];
        assert!(
            judgement["concept"].is_number() && judgement["fluency"].is_number()
                || judgement["unrated"].is_string(),
            "{text}"
        );
    }
    let rated = judged
        .iter()
        .filter(|t| t["judgement"]["concept"].is_number())
        .count();
    println!("{rated} of {} texts rated", judged.len());
    // What it rated is not asked again.
    let again = done(&steering);
    let calls = |lines: &[Value]| event(lines, "usage")[0]["usage"]["calls"].as_u64().unwrap();
    assert!(
        calls(&again) < calls(&found) || rated == 0,
        "{} of {}",
        calls(&again),
        calls(&found)
    );

    if server.child.is_some() {
        let other = [&["describe", &study, "1", "--no-score"], &judge[..]].concat();
        let (_, stderr, code) = run(&home, &other, "sk-another-key-altogether");
        assert!(
            code == Some(1) && stderr.contains("refuses the key"),
            "{stderr}"
        );
        assert_eq!(json!(event(&done(&other), "described").len()), json!(1));
    }
}
