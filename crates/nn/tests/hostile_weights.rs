//! Damaged and hostile checkpoints: one error each, which names the place; no panic, no hang, no memory without bound.

use std::path::{Path, PathBuf};
use vlm_nn::weights::Checkpoint;

fn golden(name: &str) -> Vec<u8> {
    let path: PathBuf = [
        env!("CARGO_MANIFEST_DIR"),
        "../../testdata/nn/weights",
        name,
    ]
    .iter()
    .collect();
    std::fs::read(path).unwrap()
}

fn error(bytes: &[u8]) -> String {
    let error = Checkpoint::parse(bytes, "file.pt").err();
    error.expect("must be refused").to_string()
}

/// A zip archive of stored records.
fn zip(records: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut list) = (Vec::new(), Vec::new());
    for (name, data) in records {
        let header = file.len() as u32;
        let (name_len, len) = (name.len() as u16, data.len() as u32);
        let common = |out: &mut Vec<u8>| {
            out.extend([20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // version, flags, method, time, date, CRC
            out.extend([len.to_le_bytes(), len.to_le_bytes()].concat());
            out.extend(name_len.to_le_bytes());
        };
        file.extend(b"PK\x03\x04");
        common(&mut file);
        file.extend([0, 0]);
        file.extend(name.as_bytes());
        file.extend(*data);
        list.extend(b"PK\x01\x02\x14\x00");
        common(&mut list);
        list.extend([0; 12]); // lengths of extra field and comment, disk, attributes
        list.extend(header.to_le_bytes());
        list.extend(name.as_bytes());
    }
    let begin = file.len() as u32;
    let len = list.len() as u32;
    file.extend(list);
    file.extend(b"PK\x05\x06\x00\x00\x00\x00");
    file.extend([(records.len() as u16).to_le_bytes(); 2].concat());
    file.extend([len.to_le_bytes(), begin.to_le_bytes()].concat());
    file.extend([0, 0]);
    file
}

/// A checkpoint with this pickle and one storage of four floats, `0`.
fn archive(pickle: &[u8]) -> Vec<u8> {
    zip(&[("a/data.pkl", pickle), ("a/data/0", &[0; 16])])
}

fn text(s: &str) -> Vec<u8> {
    [
        b"X".to_vec(),
        (s.len() as u32).to_le_bytes().to_vec(),
        s.as_bytes().to_vec(),
    ]
    .concat()
}

/// A dict with a tensor `w` of a storage `key` of `count` numbers.
fn tensor(key: &str, count: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let int = |n: i32| [b"J".to_vec(), n.to_le_bytes().to_vec()].concat();
    let ints = |all: &[i32]| {
        let all: Vec<u8> = all.iter().flat_map(|&n| int(n)).collect();
        [b"(".to_vec(), all, b"t".to_vec()].concat()
    };
    [
        b"\x80\x02}".to_vec(),
        text("w"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text(key),
        text("cpu"),
        int(count),
        b"tQ".to_vec(),
        int(offset),
        ints(shape),
        ints(strides),
        b"tRs.".to_vec(),
    ]
    .concat()
}

#[test]
fn the_archives_of_these_tests_are_readable() {
    let mut found = Checkpoint::parse(&archive(&tensor("0", 4, 0, &[2, 2], &[2, 1])), "x").unwrap();
    assert_eq!(found.take("w", &[2, 2]).unwrap(), [0.0; 4]);
}

#[test]
fn a_name_that_is_not_listed_is_refused_by_name_however_it_is_asked_for() {
    let stack_global = |module: &str, name: &str| {
        let short = |s: &str| [&[0x8c, s.len() as u8], s.as_bytes()].concat();
        [
            b"\x80\x04".to_vec(),
            short(module),
            short(name),
            b"\x93)R.".to_vec(),
        ]
        .concat()
    };
    let cases: [(&[u8], &str); 11] = [
        (b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.", "os.system"),
        (b"(S'id'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'id'\no.", "os.system"),
        (&stack_global("posix", "system"), "posix.system"),
        (&stack_global("builtins", "eval"), "builtins.eval"),
        (&stack_global("builtins", "getattr"), "builtins.getattr"),
        (
            &stack_global("torch.nn", "modules.os.system"),
            "torch.nn.modules.os.system",
        ),
        (&stack_global("torch", "hub.load"), "torch.hub.load"),
        (&stack_global("torch.nnx", "Linear"), "torch.nnx.Linear"),
        (
            &stack_global("torch.storage", "_load_from_bytes"),
            "torch.storage._load_from_bytes",
        ),
        (&stack_global("subprocess", "Popen"), "subprocess.Popen"),
    ];
    for (pickle, name) in cases {
        let found = error(&archive(pickle));
        assert!(found.contains(&format!("{name:?}")), "{found}");
        assert!(found.contains("nothing was run"), "{found}");
    }
    // beside good tensors, and in a file that is nothing but a pickle
    let mut with_tensor = tensor("0", 4, 0, &[4], &[1]);
    with_tensor.pop();
    with_tensor.extend(text("x"));
    with_tensor.extend(b"cos\nsystem\n)Rs.");
    assert!(error(&archive(&with_tensor)).contains("os.system"));
    assert!(error(b"\x80\x04cos\nsystem\n)R.").contains("os.system"));
    let long = stack_global("a", "b").len();
    assert!(error(&archive(&stack_global(&"a".repeat(200), "b"))).len() < 600 + long);
}

#[test]
fn pickles_that_would_exhaust_memory_time_or_the_stack_are_refused() {
    let nested = [
        vec![b']'; 1 << 20],
        vec![b'a'; (1 << 20) - 1],
        b".".to_vec(),
    ]
    .concat();
    // each value twice in the next: 2^60 values in all
    let doubled = [
        b"}".to_vec(),
        text("a"),
        b"]".to_vec(),
        b"2\x86".repeat(60),
        b"s.".to_vec(),
    ]
    .concat();
    let itself = [b"}q\0".to_vec(), text("model"), b"h\0s.".to_vec()].concat();
    let many = [vec![b'N'; 5 << 20], b".".to_vec()].concat();
    // a long text that is copied for two bytes each time
    let copies = [
        b"c_codecs\nencode\nq\0".to_vec(),
        text(&"a".repeat(1 << 20)),
        b"\x85q\x01".to_vec(),
        b"h\0h\x01R".repeat(1 << 18),
        b".".to_vec(),
    ]
    .concat();
    // a long list that is copied for two bytes each time
    let lists = [
        b"ccollections\nOrderedDict\nq\0(".to_vec(),
        b"]".repeat(1 << 16),
        b"l\x85q\x01".to_vec(),
        b"cbuiltins\nlist\nh\x01R".repeat(1 << 12),
        b".".to_vec(),
    ]
    .concat();
    for (pickle, expected) in [
        (nested, "deep"),
        (doubled, "bytes of names"),
        (itself, "deep"),
        (many, "values"),
        (copies, "values"),
        (lists, "values"),
    ] {
        let found = error(&archive(&pickle));
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn pickles_that_are_no_programs_are_refused_with_the_place() {
    let cases: [(&[u8], &str); 22] = [
        (b"", "expected 1 more bytes"),
        (b"\x80\x09N.", "protocol"),
        (b".", "stack"),
        (b"R.", "stack"),
        (b"(R.", "stack"),
        (b"(.", "stack"),
        (b"t.", "mark"),
        (b"N)R.", "name to call"),
        (b"ccollections\nOrderedDict\nNR.", "tuple"),
        (b"ccollections\nOrderedDict\nK\x01\x85R.", "pairs"),
        (b"h\0.", "memo"),
        (b"g-1\n.", "number"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.", "more bytes"),
        (b"\x8e\0\0\0\0\0\0\0\x80.", "more bytes"),
        (b"\x8b\xff\xff\xff\x7f.", "more bytes"),
        (b"X\xff\xff\xff\xff.", "more bytes"),
        (b"}(K\x01u.", "without one"),
        (b"NK\x01a.", "append"),
        (b"NK\x01K\x01s.", "dict"),
        (b"K\x01Q.", "storage"),
        (b"\x82\x01.", "extension"),
        (b"\xff.", "0xff"),
    ];
    for (pickle, expected) in cases {
        let found = error(&archive(pickle));
        assert!(
            found.contains("data.pkl") && found.contains(expected),
            "{pickle:?}: {found}"
        );
    }
    assert!(error(&archive(b"}.")).contains("expected tensors, found none"));
}

#[test]
fn tensors_outside_of_their_storage_are_refused_by_name() {
    let large = i32::MAX;
    for (pickle, expected) in [
        (
            tensor("0", 4, 1, &[4], &[1]),
            "w: expected at most 4 numbers",
        ),
        (
            tensor("0", 4, 0, &[2, 2], &[3, 1]),
            "w: expected at most 4 numbers",
        ),
        (
            tensor("0", 4, large, &[1], &[1]),
            "w: expected at most 4 numbers",
        ),
        (
            tensor("0", 4, 0, &[large; 4], &[large; 4]),
            "w: expected a tensor that fits memory",
        ),
        (
            tensor("0", 4, 0, &[large], &[0]),
            "w: expected a tensor no larger",
        ),
        (
            tensor("0", 4, 0, &[2], &[1, 1]),
            "w: expected a stride for each",
        ),
        (tensor("0", 4, 0, &[1; 17], &[1; 17]), "shape"),
        (tensor("0", 4, 0, &[-1], &[1]), "shape"),
        (tensor("0", 4, 0, &[2], &[-1]), "strides"),
        (tensor("0", 4, -1, &[2], &[1]), "offset"),
        (
            tensor("0", 5, 0, &[2], &[1]),
            "w: expected a storage of 5 numbers, found 16 bytes",
        ),
        (tensor("0", large, 0, &[2], &[1]), "w: expected a storage"),
        (tensor("0", -1, 0, &[2], &[1]), "storage"),
        (
            tensor("1", 4, 0, &[2], &[1]),
            "w: expected a record \"a/data/1\"",
        ),
        (
            tensor("../data.pkl", 4, 0, &[2], &[1]),
            "w: expected a record",
        ),
    ] {
        let found = error(&archive(&pickle));
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn archives_that_are_damaged_are_refused() {
    let good = tensor("0", 4, 0, &[4], &[1]);
    let with = |records: &[(&str, &[u8])]| error(&zip(records));
    for (found, expected) in [
        (with(&[("a/weights", b"x")]), "without data.pkl"),
        (with(&[("a/data.pkl", &good)]), "expected a record"),
        (
            with(&[("a/data.pkl", &good), ("a/data.pkl", &good)]),
            "found it twice",
        ),
        (
            with(&[("a/data.pkl", &good), ("a/byteorder", b"big")]),
            "little-endian",
        ),
        (
            with(&[("a/data.pkl", &good), ("a/data/0", &[0; 15])]),
            "found 15 bytes",
        ),
    ] {
        assert!(found.contains(expected), "{found}");
    }
    // the second record's entry points at the first record
    let mut overlapping = archive(&good);
    let at = overlapping.len() - 22 - 8 - 4;
    overlapping[at..at + 4].fill(0);
    assert!(
        error(&overlapping).contains("overlap"),
        "{}",
        error(&overlapping)
    );
    // more records than the list has room for, a list outside of the file, and one that is said to be compressed
    let end = archive(&good).len() - 22;
    for (at, bytes, expected) in [
        (end + 10, &[0xff, 0xff][..], "records"),
        (end + 12, &[0xff, 0xff, 0xff, 0x7f], "cut short"),
        (end + 16, &[0xff, 0xff, 0xff, 0x7f], "cut short"),
        (end - 54 + 10, &[8], "compressed"),
        (end - 54 + 10, &[99], "method"),
        (end - 54 + 8, &[1], "encrypted"),
    ] {
        let mut file = archive(&good);
        file[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(
            error(&file).contains(expected),
            "{expected}: {}",
            error(&file)
        );
    }
}

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let len = (header.len() as u64).to_le_bytes();
    [&len, header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn hostile_safetensors_headers_are_refused() {
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    for (header, data, expected) in [
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#,
            16,
            "twice",
        ),
        (r#"{"__metadata__":{},"__metadata__":{}}"#, 0, "twice"),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            12,
            "behind 8 used",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            12,
            "behind 0 used",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
            8,
            "\"a\" at bytes (8, 0)",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            9,
            "9 bytes of data",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            7,
            "7 bytes of data",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
            8,
            "shape [3] of F32 in 8 bytes",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}"#,
            8,
            "shape",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[18446744073709551615,2,0],"data_offsets":[0,0]}}"#,
            0,
            "shape",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}}"#,
            8,
            "header with",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}"#,
            8,
            "header with",
        ),
        (
            r#"{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,8]}}"#,
            8,
            "number type \"F4\"",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#,
            4,
            "dimensions",
        ),
        (r#"{"a":3}"#, 0, "header with"),
        (r#"{"a""#, 0, "header with"),
        (&deep, 0, "header with"),
    ] {
        let found = error(&safetensors(header, data));
        assert!(found.contains(expected), "{expected}: {found}");
    }
    for len in [u64::MAX, 1 << 62, 100_000_001, 100] {
        let found = error(&[&len.to_le_bytes()[..], b"{}"].concat());
        assert!(found.contains("cut short"), "{found}");
    }
}

#[test]
fn what_is_no_checkpoint_is_named_as_far_as_it_can_be() {
    for (bytes, expected) in [
        (&b""[..], "an empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "Git LFS",
        ),
        (b"<!DOCTYPE html>", "web page"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "GGUF"),
        (b"\x80\x04}.", "torch.save did not write"),
        (b"abc", "3 bytes that begin with 61 62 63"),
    ] {
        let found = error(bytes);
        assert!(
            found.starts_with("file.pt: ") && found.contains(expected),
            "{found}"
        );
    }
}

#[test]
fn an_index_of_shards_names_files_beside_it_that_have_its_tensors() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let one = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    std::fs::write(at("one.safetensors"), safetensors(one, 8)).unwrap();
    std::fs::write(at("two.safetensors"), safetensors(one, 8)).unwrap();
    for (map, expected) in [
        (r#"{"a": "../one.safetensors"}"#, "files beside it"),
        (r#"{"a": "/etc/passwd"}"#, "files beside it"),
        (r#"{"a": ".."}"#, "files beside it"),
        (r#"{"a": ""}"#, "files beside it"),
        (
            r#"{"a": "three.safetensors"}"#,
            "three.safetensors: cannot be read",
        ),
        (r#"{"a": "x.index.json"}"#, "expected safetensors"),
        (
            r#"{"a": "one.safetensors", "b": "two.safetensors"}"#,
            "found in two",
        ),
        (
            r#"{"b": "one.safetensors"}"#,
            "- b (listed in one.safetensors)",
        ),
        ("{}", "found 0"),
        ("[", "index of shards"),
    ] {
        let index = at("x.index.json");
        std::fs::write(&index, format!("{{\"weight_map\": {map}}}")).unwrap();
        let error = Checkpoint::open(&index).err().expect(map).to_string();
        assert!(error.contains(expected), "{map}: {error}");
    }
}

#[cfg(unix)]
#[test]
fn devices_directories_and_missing_files_are_refused_without_waiting() {
    for place in ["/dev/zero", "/", "/nowhere/model.safetensors"] {
        let error = Checkpoint::open(Path::new(place)).err().expect(place);
        assert!(error.to_string().starts_with(place), "{error}");
    }
}

const FILES: [&str; 7] = [
    "kinds.pt",
    "kinds_legacy.pth",
    "kinds_protocol5.pt",
    "kinds.expected.safetensors",
    "training.pt",
    "training_legacy.pth",
    "script.pt",
];

/// Takes everything out of a file that may be anything.
fn exercise(bytes: &[u8]) -> bool {
    let Ok(mut checkpoint) = Checkpoint::parse(bytes, "x") else {
        return false;
    };
    let names: Vec<String> = checkpoint.tensors().map(|t| t.name.to_owned()).collect();
    for name in names {
        // an error is as good as numbers
        let _ = checkpoint.clone().take_integers(&name);
        let _ = checkpoint.take_any(&name);
    }
    true
}

#[test]
fn truncated_files_are_refused_at_every_length() {
    for name in FILES {
        let bytes = golden(name);
        for end in 0..bytes.len() {
            let found = Checkpoint::parse(&bytes[..end], "x");
            assert!(found.is_err(), "{name} cut to {end} bytes");
        }
    }
}

#[test]
fn damaged_bytes_give_an_error_or_numbers_and_never_a_panic() {
    let mut state = 1u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize
    };
    let (mut read, mut refused) = (0, 0);
    for name in FILES {
        let bytes = golden(name);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (random() % 8);
            match exercise(&damaged) {
                true => read += 1,
                false => refused += 1,
            }
            if at % 4 > 0 {
                continue;
            }
            damaged[at] = random() as u8;
            let other = random() % bytes.len();
            damaged[other] = random() as u8;
            exercise(&damaged);
        }
    }
    // damage of numbers is not seen, damage of lists and programs is
    assert!(
        read > 1000 && refused > 1000,
        "{read} read, {refused} refused"
    );
}
