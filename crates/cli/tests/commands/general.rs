use crate::support::{run, vlm};
use std::process::Stdio;

const COMMANDS: [&[&str]; 16] = [
    &[],
    &["caption"],
    &["ask"],
    &["world"],
    &["world", "shapes"],
    &["train"],
    &["eval"],
    &["eval", "caption"],
    &["eval", "vqa"],
    &["models"],
    &["bench"],
    &["bench", "encode"],
    &["bench", "generate"],
    &["bench", "train"],
    &["bench", "gemm"],
    &["doctor"],
];

#[test]
fn the_help_of_every_command_ends_with_an_example() {
    for command in COMMANDS.into_iter().chain([&["completions"][..]]) {
        let help = run(command.iter().chain(&["-h"])).with(0);
        let (_, example) = help.stdout.split_once("Example:\n").expect(&help.stdout);
        let own = format!("  vlm {}", command.first().unwrap_or(&"caption"));
        assert!(example.contains(&own), "{command:?}: {example}");
        assert!(
            example.lines().all(|l| l.starts_with("  ")),
            "{command:?}: {example}"
        );
    }
}

#[test]
fn wrong_usage_is_exit_code_2_with_nothing_on_stdout() {
    let cases: [&[&str]; 14] = [
        &[],
        &["describe"],
        &["caption"],
        &["caption", "--beam", "0", "x.png"],
        &["caption", "--beam", "2", "--sample", "x.png"],
        &["caption", "--temperature", "0.5", "x.png"],
        &["caption", "--sample", "--top-p", "1.5", "x.png"],
        &["caption", "--sample", "--temperature", "NaN", "x.png"],
        &["caption", "--threads", "99999", "x.png"],
        &["caption", "-", "-"],
        &["ask", "what colour is it?"],
        &[
            "world", "shapes", "--split", "tset", "--count", "1", "--seed", "1", "--out", "x",
        ],
        &[
            "world",
            "shapes",
            "--split",
            "test",
            "--count",
            "1",
            "--seed",
            "1",
            "--out",
            "x",
            "--difficulty",
            "2",
        ],
        &["eval", "vqa"],
    ];
    for arguments in cases {
        let ended = run(arguments).with(2);
        assert_eq!(ended.stdout, "", "{arguments:?}");
        assert!(!ended.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(["completions", shell]).with(0).stdout;
        assert!(
            script.contains("caption") && script.contains("max-tokens"),
            "{shell}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    for arguments in [&["models", "--json"][..], &["completions", "zsh"]] {
        let mut child = vlm(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_under_stdout_is_one_line() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = vlm(["models"]).stdout(full).output().unwrap();
    let ended = crate::support::Ended::from(output).with(2);
    ended.complains(&["<stdout>", "cannot write"]);
}
