//! Options that would do nothing, values that cannot be, files that could not be written: refused
//! with exit code 2, before anything is read, asked or written.

use crate::{Made, everything};

/// Command lines, and what their refusal says. `S` is a study with the fit k3 of layer 1 and no
/// other, `M` its model, `I` an imported matrix, `X.…` files that are there.
const REFUSED: &[(&str, &str)] = &[
    // The explorer.
    ("S --features 5", "--features has no effect"),
    ("S -k 3", "--features has no effect"),
    ("S --hook hook_mlp_out", "--hook has no effect"),
    ("S --device cpu", "--device has no effect"),
    ("-k 0", "from 1 on"),
    ("--data absent.json", "no corpus absent.json"),
    ("corpus.json", "is a file"),
    ("M", "is no study and holds other files"),
    ("--model=", "--model"),
    (
        "fitt",
        "did you mean 'fit'? A new study of that name: mlpeek ./fitt",
    ),
    ("tarce --model M", "did you mean 'trace'"),
    (
        "--color never info S",
        "--color is an option of the explorer, which no command takes: leave it out before info",
    ),
    ("-l 1 --json fit S", "-l is an option of the explorer"),
    ("S info", "the command comes first: mlpeek info S"),
    ("--json help", "the help is no JSON"),
    ("help --json", "the help is no JSON"),
    // Models.
    ("collect --model M --out corpus.json", "is a file"),
    (
        "collect --model M --out M",
        "is no study and holds other files",
    ),
    ("collect --model M --layer 4 --out new", "0 to 3"),
    (
        "collect --model M --batch-tokens 0 --out new",
        "--batch-tokens",
    ),
    ("collect --model M --hook nowhere --out new", "--hook"),
    (
        "forward --model M --text a --layer 4 --out new.safetensors",
        "0 to 3",
    ),
    (
        "forward --model M --text a --layer 1 --out new.npz",
        "named .npz, and what is written is .safetensors",
    ),
    (
        "forward --model M --text a --layer 1 --out absent/new.safetensors",
        "no directory absent",
    ),
    (
        "forward --model M --text a --layer 1 --out M",
        "is a directory",
    ),
    (
        "forward --model M --text a --ids 1 --layer 1 --out new.safetensors",
        "cannot be used with",
    ),
    (
        "forward --model M --layer 1 --out new.safetensors",
        "required",
    ),
    (
        "forward --model M --ids 1,999999 --layer 1 --out new.safetensors",
        "token id 999999",
    ),
    // Fits.
    ("fit S -k 0", "from 1 on"),
    ("fit S --max-sweeps 0", "from 1 on"),
    ("fit S --patience 0", "from 1 on"),
    ("fit S --threads 0", "from 1 to 1024"),
    ("fit S --threads 4294967296", "from 1 to 1024"),
    ("fit S --batch-rows 0", "from 1 on"),
    ("fit S --l1=-1", "0 or more"),
    ("fit S --l1 nan", "0 or more"),
    ("fit S --sparsity 1.5", "at most 1"),
    ("fit S --sparsity 0", "above 0"),
    ("fit S --sparsity nan", "above 0"),
    (
        "fit S -k 2 --name k3",
        "fit 'k3' is there, made by other settings",
    ),
    (
        "fit S --from k3 --merge 1 --name k3",
        "fit 'k3' is there, made by other settings",
    ),
    ("fit S --layer 2", "no such hook"),
    ("fit S -k 3 --name a/b", "cannot be a name"),
    ("fit S -k 3 --name=", "cannot be a name"),
    ("fit S --solver mu --l1 0.1", "know no penalty"),
    ("fit S -k 3 --solver mu --row-cap 2", "cannot cap"),
    ("fit S --solver mu --batch-rows 10", "know no --batch-rows"),
    ("fit S --from k3 --solver mu", "know no --from"),
    ("fit S --from k3 --add 0", "from 1 on"),
    ("fit S --from k3 --merge 0", "from 1 on"),
    ("fit S --from k3 --merge 3", "cannot be merged away"),
    (
        "fit S --from k3 --add 1 --lock 3",
        "feature 3 cannot be locked: fit 'k3' has 0 to 2",
    ),
    ("fit S --from k3 -k 5", "cannot be used with"),
    ("fit S --from k3 --init svd", "cannot be used with"),
    ("fit S --from k3 --layer 2", "leave out --layer and --hook"),
    ("fit S --from absent", "no fit 'absent'"),
    ("fit S --add 1", "--from"),
    ("fit S --lock 1", "--from"),
    ("fit S --resume --fresh", "cannot be used with"),
    ("fit S --resume --batch-rows 9", "cannot be used with"),
    (
        "fit S --resume --name k3 --layer 2",
        "leave out --layer and --hook",
    ),
    // Reading.
    ("features S --fit absent", "no fit 'absent'"),
    ("features S --layer 2", "no such hook"),
    (
        "features S --fit k3 --layer 2",
        "leave out --layer and --hook",
    ),
    ("features S --directions nothing", "nothing"),
    ("features I --directions diffmean", "no labels"),
    ("feature S 3", "0 to 2"),
    ("feature S neuron:64", "64"),
    ("feature S 0:2", "without a weight"),
    ("trace S --text=", "--text"),
    ("trace S --text a --fit absent", "no fit 'absent'"),
    ("compare S k3 absent", "no fit 'absent'"),
    ("keys --json --markdown", "cannot be used with"),
    // Trees.
    (
        "tree S --cut 0.9 --format svg --out new.svg",
        "clusters are lists of features",
    ),
    (
        "tree S --cut 0.9 --format newick",
        "clusters are lists of features",
    ),
    ("tree S --cut nan", "a height from 0 to 2"),
    ("tree S --cut=-1", "a height from 0 to 2"),
    (
        "tree S --recursive --format svg",
        "levels are no dendrogram",
    ),
    ("tree S --recursive --cut 0.5", "cannot be used with"),
    ("tree S --recursive --linkage single", "cannot be used with"),
    ("tree S --recursive --overlap cosine", "cannot be used with"),
    ("tree S --recursive --levels 0", "from 1 on"),
    (
        "tree S --recursive --levels 3",
        "each level must have fewer",
    ),
    ("tree S --levels 2", "--recursive"),
    ("tree S --growth fixed", "--recursive"),
    ("tree S --joint", "--recursive"),
    ("tree S --max-children 4", "--recursive"),
    ("tree S --child-share 0.15", "--recursive"),
    ("tree S --recursive --child-share 0", "at most 1"),
    (
        "tree S --format csv",
        "--format csv has no effect without --matrix",
    ),
    ("tree S --matrix --format newick", "a matrix is no tree"),
    ("tree S --matrix --cut 0.5", "cannot be used with"),
    ("tree S --matrix --format csv --out new.svg", "csv"),
    (
        "tree S --out new.svg",
        "named .svg, and what is written is .txt",
    ),
    (
        "tree S --format svg --out new.json",
        "named .json, and what is written is .svg",
    ),
    (
        "tree S --format svg --out absent/new.svg",
        "no directory absent",
    ),
    // Notes.
    ("notes S 3 name", "0 to 2"),
    ("notes S 3 ", "0 to 2"),
    ("notes S 1", "<TEXT>"),
    ("notes S --export absent/notes.json", "no directory absent"),
    (
        "notes S --export notes.csv",
        "named .csv, and what is written is .json",
    ),
    (
        "notes S --export a.json --import b.json",
        "cannot be used with",
    ),
    ("notes S 1 name --export a.json", "cannot be used with"),
    ("notes S 1 name --import a.json", "cannot be used with"),
    // Steering.
    ("steer S 0 --top-p 0", "at most 1"),
    ("steer S 0 --top-p 1.1", "at most 1"),
    ("steer S 0 --top-p nan", "at most 1"),
    ("steer S 0 --temperature=-1", "0 or more"),
    ("steer S 0 --temperature inf", "0 or more"),
    (
        "steer S 0 --temperature 0 --top-p 0.5",
        "--top-p has no effect with --temperature 0",
    ),
    (
        "steer S 0 --temperature 0 --top-k 5",
        "--top-k has no effect with --temperature 0",
    ),
    (
        "steer S 0 --temperature 0 --seed 5",
        "--seed has no effect with --temperature 0",
    ),
    (
        "steer S 0 --temperature 0 --samples 2",
        "--samples has no effect with --temperature 0",
    ),
    ("steer S 0 --samples 0", "from 1 on"),
    ("steer S 0 --max-tokens 0", "from 1 on"),
    ("steer S 0 --kl 0", "positive number"),
    ("steer S 0 --kl nan", "positive number"),
    ("steer S 0 --alpha inf", "finite"),
    ("steer S 0 --alpha 1 --kl 0.1", "cannot be used with"),
    (
        "steer S 0 --positions 5..5",
        "the end must be after the start",
    ),
    (
        "steer S 0 --positions 500..600",
        "beyond the prompt, whose tokens are at 0 to",
    ),
    (
        "steer S 0 --positions 500..600 --alpha 1",
        "beyond the prompt and its new tokens",
    ),
    ("steer S 0 --mode set --kl 0.1", "no KL to aim for"),
    (
        "steer S 0 --core-of 1 --exclusive-of 2",
        "cannot be used with",
    ),
    ("steer S 0 --core-of 9", "9"),
    ("steer S diffmean:a --core-of 1", "take features of a fit"),
    ("steer S 0:nan", "is no direction"),
    ("steer S ,", "is no direction"),
    ("steer S 0 --sign up", "--sign"),
    // Judging.
    ("quality S -k 0", "from 1 on"),
    ("quality S --seeds 0", "from 1 on"),
    ("quality S --threads 0", "from 1 to 1024"),
    ("quality S --max-sweeps 0", "from 1 on"),
    ("quality S --holdout 1", "below 1"),
    ("quality S --holdout=-0.1", "below 1"),
    ("quality S --sparsity 2", "at most 1"),
    ("quality S --l1=-1", "0 or more"),
    ("quality S --solver mu --l1 0.5", "--l1 has no effect"),
    (
        "quality S --solver mu --row-cap 3",
        "--row-cap has no effect",
    ),
    ("quality S --labels --json", "cannot be used with"),
    (
        "quality S --fit k3 --layer 2",
        "leave out --layer and --hook",
    ),
    ("sweep S -k 0", "from 1 on"),
    ("sweep S -k 3 --cold", "--cold has no effect"),
    ("sweep S --solver mu --l1 0.5", "--l1 has no effect"),
    ("eval detection S --labels --json", "cannot be used with"),
    ("eval detection S --holdout 1", "below 1"),
    ("eval detection S --methods proof", "is no method"),
    ("eval steering S --labels absent", "no label 'absent'"),
    ("eval steering S --kl 0", "positive number"),
    ("eval steering S --top-p 0", "at most 1"),
    (
        "eval steering S --temperature 0 --top-k 3",
        "--top-k has no effect",
    ),
    ("eval steering S --max-tokens 0", "from 1 on"),
    ("eval steering S --batch 0", "from 1 on"),
    ("eval steering S --prompt alone", "at least two"),
    (
        "eval steering S --concepts labels --protocol paper --kl 0.1 --samples 1 --max-tokens 2",
        "--protocol has no effect",
    ),
    (
        "eval steering S --samples 0 --svg new.svg",
        "--svg has no effect with --samples 0",
    ),
    (
        "eval steering S --samples 0 --max-tokens 3",
        "--max-tokens has no effect with --samples 0",
    ),
    (
        "eval steering S --dry-run --svg new.svg",
        "cannot be used with",
    ),
    (
        "eval steering S --svg new.png",
        "named .png, and what is written is .svg",
    ),
    (
        "eval steering S --svg absent/new.svg",
        "no directory absent",
    ),
    ("eval steering S --concurrency 2", "--endpoint"),
    ("eval steering S --timeout 2", "--endpoint"),
    ("eval steering S --key-env KEY", "--endpoint"),
    ("eval steering S --judge-max-tokens 99", "--endpoint"),
    ("eval reuse S --node 99", "there is no node 99"),
    ("eval reuse S --node 4 --labels a", "cannot be used with"),
    ("eval reuse S --labels absent", "no label"),
    ("eval reuse S", "required"),
    // Autoencoders.
    ("sae train S --latents 0", "from 1 on"),
    ("sae train S --top-k 0", "from 1 on"),
    ("sae train S --epochs 0", "from 1 on"),
    ("sae train S --batch 0", "from 1 on"),
    ("sae train S --learning-rate 0", "above 0"),
    ("sae train S --learning-rate nan", "above 0"),
    ("sae train S --latents 2 --top-k 3", "from 1 to the latents"),
    ("sae train S --layer 2", "no such hook"),
    ("sae train S --resume --fresh", "cannot be used with"),
    (
        "sae compare S --fit k3 --layer 2",
        "leave out --layer and --hook",
    ),
    (
        "sae compare S --predict 0 --device cpu",
        "--device has no effect with --predict 0",
    ),
    ("sae compare S --sae absent", "no SAE 'absent'"),
    // Where directions lie.
    (
        "feature S fit:k3/1 --fit k3",
        "--fit k3 has no effect on fit:k3",
    ),
    (
        "feature S neuron@1.mlp.hook_post:3 --layer 1",
        "--layer has no effect on neuron@1.mlp.hook_post",
    ),
    (
        "features S --directions neuron,diffmean --fit k3",
        "--fit k3 has no effect on neuron, diffmean",
    ),
    (
        "steer S fit:k3/1 --hook mlp.hook_post",
        "--hook has no effect on fit:k3",
    ),
    (
        "eval detection S --methods neuron --fit k3",
        "--fit k3 has no effect on neuron",
    ),
    ("notes S 1 *9", "*9 is no rating: write *1 to *5"),
    (
        "tree S --json --format svg",
        "--json asks for --format json",
    ),
    // Matrices.
    (
        "import X.npy --tensor a --out new",
        "--tensor a has no effect",
    ),
    ("import X.csv --out new", "only .npy and .safetensors"),
    ("import X.npy --out M", "is no study and holds other files"),
    ("import X.npy --out corpus.json", "is a file"),
    (
        "export S --out new.npz",
        "named .npz, and what is written is .safetensors",
    ),
    (
        "export S --out absent/new.safetensors",
        "no directory absent",
    ),
    (
        "export S --out new.safetensors --fit absent",
        "no fit 'absent'",
    ),
    (
        "export S --out new.safetensors --format npz",
        "named .safetensors, and what is written is .npz",
    ),
    (
        "export S --out X.csv --format csv",
        "is there already: name another, or pass --overwrite",
    ),
    (
        "export S --out M --format saelens",
        "is there already: name another, or pass --overwrite",
    ),
    (
        "export S --out X.npy --format saelens",
        "what is written is a directory",
    ),
    (
        "export S --out new.csv --format csv --rows",
        "--rows has no effect with --format csv",
    ),
    (
        "export S --out new.safetensors --feature 1",
        "--feature has no effect with --format safetensors",
    ),
    (
        "export S --out new.npz --format npz --device cpu",
        "--device has no effect with --format npz",
    ),
    (
        "export S --out new.gguf --format control-vector",
        "needs --feature",
    ),
    (
        "export S --out new.gguf --format control-vector --feature 1 --directions neuron",
        "--directions has no effect",
    ),
    (
        "export S --out new --format checkpoint --feature 1 --mode add",
        "needs --alpha",
    ),
    (
        "export S --out new.csv --format csv --mode add",
        "--mode has no effect with --format csv",
    ),
    (
        "export S --out new --format saelens --directions neuron",
        "takes a fit or an autoencoder, not neuron",
    ),
];

#[test]
fn options_that_would_be_ignored_or_cannot_be_met_are_refused_before_any_work() {
    let made = Made::new(
        "home",
        &[
            (
                "a",
                &["one text here", "two of them", "three texts", "a fourth"],
            ),
            ("b", &["other", "words", "again", "so"]),
        ],
    );
    made.study();
    std::fs::rename(made.home.join("s"), made.home.join("S")).unwrap();
    std::fs::rename(made.home.join("tiny-llama"), made.home.join("M")).unwrap();
    npy(&made.home.join("X.npy"));
    std::fs::write(made.home.join("X.csv"), "1,2\n").unwrap();
    made.run(&["import", "X.npy", "--out", "I"]);
    // The study names its model where it was collected.
    std::os::unix::fs::symlink(made.home.join("M"), made.home.join("tiny-llama")).unwrap();
    let before = everything(&made.home);
    let mut wrong = Vec::new();
    for (line, says) in REFUSED {
        let output = made
            .command(&line.split(' ').collect::<Vec<_>>())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let message = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        if output.status.code() != Some(2) || !message.contains(says) || !output.stdout.is_empty() {
            wrong.push(format!(
                "mlpeek {line}\n  exits with {:?}, not 2 with '{says}': {stderr}",
                output.status.code()
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        REFUSED.len(),
        wrong.join("\n")
    );
    let names =
        |all: &[(std::path::PathBuf, Vec<u8>)]| all.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
    let after = everything(&made.home);
    assert_eq!(names(&after), names(&before), "nothing is made");
    let changed = before
        .iter()
        .zip(&after)
        .filter(|(a, b)| a != b)
        .map(|(a, _)| &a.0);
    // The lock says who took it last.
    assert_eq!(
        changed.filter(|p| !p.ends_with("lock")).collect::<Vec<_>>(),
        [] as [&std::path::PathBuf; 0]
    );
}

#[test]
fn what_is_asked_for_with_a_cut_is_written() {
    let made = Made::new(
        "home",
        &[(
            "a",
            &["one text here", "two of them", "three texts", "a fourth"],
        )],
    );
    let study = made.study();
    for (format, ending) in [("text", "txt"), ("json", "json")] {
        let out = made.path(&format!("clusters.{ending}"));
        assert_eq!(
            made.run(&[
                "tree", &study, "--cut", "0.9", "--format", format, "--out", &out
            ]),
            ""
        );
        assert_eq!(
            std::fs::read_to_string(&out).unwrap(),
            made.run(&["tree", &study, "--cut", "0.9", "--format", format])
        );
    }
    // Both ask for the same.
    assert_eq!(
        made.run(&["tree", &study, "--json", "--format", "json"]),
        made.run(&["tree", &study, "--json"])
    );
}

#[test]
fn a_note_that_is_taken_away_is_still_a_line() {
    let made = Made::new("home", &[("a", &["one text here", "two of them", "three"])]);
    let study = made.study();
    made.run(&["notes", &study, "1", "a name #tag *4"]);
    let line = made.run(&["notes", &study, "1", "", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["feature"], 1);
    assert!(line["name"].is_null() && line["rating"].is_null(), "{line}");
    assert_eq!(made.run(&["notes", &study, "1", ""]).trim(), "1  (no note)");
    assert_eq!(made.run(&["notes", &study]), "");
}

#[test]
fn a_fit_that_goes_on_from_another_takes_no_name_that_is_taken() {
    let made = Made::new("home", &[("a", &["one text here", "two of them", "three"])]);
    let study = made.study();
    let fit = |more: &[&str]| {
        let line = [&["fit", &study, "--max-sweeps", "3", "--json"][..], more].concat();
        let lines = made.run(&line);
        let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        last["fit"].as_str().unwrap().to_owned()
    };
    assert_eq!(fit(&["-k", "2", "--sparsity", "0.3"]), "k2");
    let kept = made.run(&["feature", &study, "0", "--fit", "k2", "--json"]);
    // The same settings as k2's, and other features.
    assert_eq!(fit(&["--from", "k3", "--merge", "1"]), "k2-from-k3");
    assert_eq!(fit(&["--from", "k3", "--merge", "1"]), "k2-from-k3-2");
    assert_eq!(fit(&["--from", "k2-from-k3", "--add", "2"]), "k4-from-k2");
    assert_eq!(fit(&["-k", "2", "--sparsity", "0.4"]), "k2-2");
    assert_eq!(
        made.run(&["feature", &study, "0", "--fit", "k2", "--json"]),
        kept
    );
    assert_eq!(fit(&["-k", "1", "--name", "k2", "--fresh"]), "k2");
}

#[cfg(target_os = "linux")]
#[test]
fn help_that_cannot_be_written_is_a_failure() {
    let made = Made::new("home", &[("a", &["one"])]);
    for line in [
        &["--help"][..],
        &["--version"],
        &["fit", "--help"],
        &["help"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let output = made.command(line).stdout(full.unwrap()).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{line:?}: {message}");
        assert!(
            message.contains("cannot write to standard output"),
            "{message}"
        );
    }
}

/// A 4 × 2 matrix.
fn npy(path: &std::path::Path) {
    let mut header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 2), }".to_owned();
    header.push_str(&" ".repeat(64 - (10 + header.len() + 1) % 64));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    (0..8u8).for_each(|v| bytes.extend_from_slice(&f32::from(v).to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}
