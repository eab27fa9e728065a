//! Running the binary, and files to run it on.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The binary with arguments, without anything on stdin.
pub fn vlm<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlm"));
    command.args(arguments).stdin(Stdio::null());
    // what someone has pulled is no matter of a test
    command.env("HF_HUB_CACHE", "no/such/cache");
    command
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Checks the exit code, and that nothing panicked.
    #[track_caller]
    pub fn with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        let panicked = ["internal error", "panicked", "RUST_BACKTRACE"];
        let found = panicked.iter().find(|word| self.stderr.contains(**word));
        assert_eq!(found, None, "{self:#?}");
        self
    }

    /// Checks that stderr is a single line of the program's, with all of `words`.
    #[track_caller]
    pub fn complains(&self, words: &[&str]) {
        assert_eq!(self.stderr.lines().count(), 1, "{self:#?}");
        assert!(self.stderr.starts_with("vlm: "), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} in {self:#?}");
        }
    }

    /// The lines of stdout as JSON.
    #[track_caller]
    pub fn records(&self) -> Vec<serde_json::Value> {
        let parse = |line| serde_json::from_str(line).expect("a line of JSON");
        self.stdout.lines().map(parse).collect()
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Runs the binary in a directory to its end.
pub fn run_in<S: AsRef<std::ffi::OsStr>>(
    directory: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Ended {
    let mut command = vlm(arguments);
    command.current_dir(directory);
    command.output().expect("the binary runs").into()
}

/// Runs the binary to its end.
pub fn run<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ended {
    run_in(Path::new(env!("CARGO_MANIFEST_DIR")), arguments)
}

/// Runs the binary in a directory with bytes on stdin.
pub fn run_with_stdin(directory: &Path, arguments: &[&str], bytes: &[u8]) -> Ended {
    let mut child = vlm(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // a program that does not want it all is a matter of the test
    let _ = stdin.write_all(bytes);
    drop(stdin);
    child.wait_with_output().expect("it ends").into()
}

/// Copies the files of a directory to a new one.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A directory that lasts until the tests end, made by the first who asks for it.
struct Shared(OnceLock<TempDir>);

impl Shared {
    fn get(&self, make: impl FnOnce(&Path)) -> &Path {
        let directory = self.0.get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            make(directory.path());
            directory
        });
        directory.path()
    }
}

/// Twelve pictures of the world with their items.
pub fn data() -> &'static Path {
    static DATA: Shared = Shared(OnceLock::new());
    DATA.get(|directory| {
        let out = directory.to_str().unwrap();
        run([
            "world", "shapes", "--split", "test", "--count", "12", "--seed", "5", "--size", "64",
            "--out", out,
        ])
        .with(0);
    })
}

/// Path of a picture of [`data`].
pub fn picture(index: usize) -> PathBuf {
    data().join(format!("{index:06}.png"))
}

/// The loop of such a recipe and what is measured on the way.
pub fn sections(steps: u64) -> String {
    format!(
        r#"[train]
seed = 1
steps = {steps}
batch_size = 2
accumulate = 1
learning_rate = 1e-3
min_learning_rate = 1e-5
warmup_steps = 2
decay_steps = 0
weight_decay = 0.05
betas = [0.9, 0.98]
clip_norm = 1.0
precision = "f32"
checkpoint_every = 1
output = "f32"
[validation]
every = 1000
pictures = 2
"#
    )
}

/// A recipe so small that a step takes hundredths of a second.
pub fn recipe(steps: u64) -> String {
    format!(
        r#"
name = "speck"
[data]
world = "shapes"
seed = 3
size = 64
difficulty = [0.0, 1.0]
difficulty_ramp_steps = 10
captions_per_picture = 1
questions_per_picture = 2
{}[model]
model_type = "coca"
projection_dim = 16
logit_scale_init_value = 2.6592
contrastive_loss_weight = 0.1
answer_loss_weight = 1.0
question_loss_weight = 0.5
token_label_classes = [9, 8, 3, 2, 8, 8, 2, 4, 6]
token_label_loss_weight = 1.0
decoder_memory = "tags"
[model.vision_config]
image_size = 64
patch_size = 16
num_channels = 3
stem = "conv"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 1
num_attention_heads = 2
layer_norm_eps = 1e-6
[model.text_config]
vocab_size = 113
max_position_embeddings = 96
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 1
num_multimodal_layers = 1
num_attention_heads = 2
layer_norm_eps = 1e-6
"#,
        sections(steps)
    )
}

/// The directory of a model that was trained for a moment.
pub fn model() -> PathBuf {
    static RUN: Shared = Shared(OnceLock::new());
    let directory = RUN.get(|directory| {
        std::fs::write(directory.join("speck.toml"), recipe(2)).unwrap();
        run_in(
            directory,
            ["train", "speck.toml", "--out", "run", "--quiet"],
        )
        .with(0);
    });
    directory.join("run/model")
}

/// A file or directory that a reference implementation has written.
pub fn published(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("../../testdata/models").join(name)
}

/// Text of a path.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
