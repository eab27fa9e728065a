use super::*;
use std::arch::asm;

const RAX: usize = 0;
const RCX: usize = 1;
const RSP: usize = 4;
const RBP: usize = 5;
const R12: usize = 12;
const R13: usize = 13;

std::arch::global_asm!(
    ".pushsection .text.amx_emulator_forms",
    ".globl amx_emulator_forms",
    "amx_emulator_forms:",
    "tileloadd tmm1, [rax+rcx*1]",
    "tileloaddt1 tmm7, [rax+r12*8+64]",
    "tileloadd tmm2, [r12+r13*2-128]",
    "tileloadd tmm3, [r13+rbp*4]",
    "tileloadd tmm4, [rbp+rax*1+4096]",
    "tileloadd tmm0, [rsp]",
    "tilestored [r12-70000], tmm5",
    "tilestored [rcx*2+16], tmm6",
    "ldtilecfg [r13]",
    "ldtilecfg [rax+rcx*4+5]",
    "ldtilecfg [rsp+8]",
    "ldtilecfg [rip+0x100]",
    "amx_emulator_behind_relative:",
    "sttilecfg [r12]",
    "tilezero tmm6",
    "tilerelease",
    "tdpbf16ps tmm1, tmm2, tmm3",
    "tdpbssd tmm7, tmm0, tmm4",
    "tdpbsud tmm0, tmm4, tmm6",
    "tdpbusd tmm3, tmm5, tmm1",
    "tdpbuud tmm2, tmm1, tmm7",
    ".globl amx_emulator_behind_forms",
    "amx_emulator_behind_forms:",
    ".globl amx_emulator_behind_relative",
    ".popsection",
);

unsafe extern "C" {
    static amx_emulator_forms: u8;
    static amx_emulator_behind_relative: u8;
    static amx_emulator_behind_forms: u8;
}

#[test]
fn instructions_are_read_as_the_assembler_writes_them() {
    use Instruction::*;
    let r: [usize; 16] = std::array::from_fn(|i| (i + 1) * 1_000_000);
    let at = |start, stride| Address { start, stride };
    let relative = (&raw const amx_emulator_behind_relative) as usize;
    let expected = [
        Load(1, at(r[RAX], r[RCX])),
        Load(7, at(r[RAX] + 64, 8 * r[R12])),
        Load(2, at(r[R12] - 128, 2 * r[R13])),
        Load(3, at(r[R13], 4 * r[RBP])),
        Load(4, at(r[RBP] + 4096, r[RAX])),
        Load(0, at(r[RSP], 0)),
        Store(at(r[R12] - 70_000, 0), 5),
        Store(at(16, 2 * r[RCX]), 6),
        LoadConfig(r[R13]),
        LoadConfig(r[RAX] + 4 * r[RCX] + 5),
        LoadConfig(r[RSP] + 8),
        LoadConfig(relative + 0x100),
        StoreConfig(r[R12]),
        Zero(6),
        Release,
        MultiplyPairs([1, 2, 3]),
        MultiplyBytes([7, 0, 4], [true, true]),
        MultiplyBytes([0, 4, 6], [true, false]),
        MultiplyBytes([3, 5, 1], [false, true]),
        MultiplyBytes([2, 1, 7], [false, false]),
    ];
    let mut code = &raw const amx_emulator_forms;
    for expected in expected {
        // SAFETY: an instruction above starts here.
        let (found, next) = unsafe { decode(code, &r) }.expect("an instruction of AMX");
        assert_eq!(found, expected);
        code = next;
    }
    assert_eq!(code, &raw const amx_emulator_behind_forms);
}

#[test]
fn other_instructions_are_refused() {
    let refused: [&[u8]; 9] = [
        // ud2, VFMADD132PS, TDPBF16PS with W, with L, with a ninth tile, with an operand in memory
        &[0x0f, 0x0b],
        &[0xc4, 0xe2, 0x69, 0x98, 0xcb],
        &[0xc4, 0xe2, 0xe2, 0x5c, 0xca],
        &[0xc4, 0xe2, 0x66, 0x5c, 0xca],
        &[0xc4, 0x62, 0x62, 0x5c, 0xca],
        &[0xc4, 0xe2, 0x62, 0x5c, 0x0a],
        // TILELOADD without SIB, with a register in VEX.vvvv; TILEZERO with a second operand
        &[0xc4, 0xe2, 0x7b, 0x4b, 0x08],
        &[0xc4, 0xe2, 0x63, 0x4b, 0x0c, 0x08],
        &[0xc4, 0xe2, 0x7b, 0x49, 0xc1],
    ];
    for code in refused {
        // SAFETY: whole instructions.
        let found = unsafe { decode(code.as_ptr(), &[0; 16]) };
        assert!(found.is_err(), "{code:x?}: {found:?}");
    }
}

/// A configuration of tiles by number, bytes per row, rows.
fn config(tiles: &[(usize, u16, u8)]) -> [u8; 64] {
    let mut config = [0; 64];
    config[0] = 1;
    for &(tile, row_bytes, rows) in tiles {
        config[16 + 2 * tile..][..2].copy_from_slice(&row_bytes.to_le_bytes());
        config[48 + tile] = rows;
    }
    config
}

/// Runs instructions, the last of which may be refused.
fn run(mut state: State, instructions: &[Instruction]) -> Result<State, Fault> {
    for &instruction in instructions {
        // SAFETY: tests name memory of their own.
        unsafe { perform(&mut state, instruction)? };
    }
    Ok(state)
}

#[test]
fn what_a_processor_refuses_is_refused() {
    let with = |change: &dyn Fn(&mut [u8; 64])| {
        let mut config = config(&[(0, 64, 16), (1, 64, 16)]);
        change(&mut config);
        let address = (&raw const config) as usize;
        run(State::INITIAL, &[Instruction::LoadConfig(address)])
    };
    assert!(with(&|_| {}).is_ok());
    let changes: [(usize, u8); 11] = [
        (0, 0),
        (0, 2),
        (1, 1),
        (2, 1),
        (15, 1),
        (32, 1),
        (47, 1),
        (56, 1),
        (63, 1),
        (16, 65),
        (48, 17),
    ];
    for (at, value) in changes {
        assert!(with(&|config| config[at] = value).is_err(), "{at}: {value}");
    }
    assert!(with(&|config| config[48] = 0).is_err(), "columns alone");
    assert!(with(&|config| config[50] = 1).is_err(), "rows alone");

    let multiply = Instruction::MultiplyPairs([0, 1, 2]);
    let after = |tiles: &[(usize, u16, u8)], last: Instruction| {
        let config = config(tiles);
        let load = Instruction::LoadConfig((&raw const config) as usize);
        run(State::INITIAL, &[load, last])
    };
    let fitting = [(0, 12, 3), (1, 20, 3), (2, 12, 5)];
    assert!(after(&fitting, multiply).is_ok());
    for (which, wrong) in [
        (0, (0, 16, 3)),
        (0, (0, 12, 4)),
        (1, (1, 24, 3)),
        (1, (1, 20, 4)),
    ] {
        let mut tiles = fitting;
        tiles[which] = wrong;
        assert!(after(&tiles, multiply).is_err(), "{tiles:?}");
    }
    assert!(after(&[(0, 10, 3), (1, 20, 3), (2, 10, 5)], multiply).is_err());
    for same in [[0, 0, 1], [0, 1, 0], [1, 0, 0]] {
        let square = [(0, 64, 16), (1, 64, 16)];
        assert!(after(&square, Instruction::MultiplyPairs(same)).is_err());
    }
    for tile_missing in [Instruction::Zero(3), multiply] {
        assert!(after(&[(0, 64, 16)], tile_missing).is_err());
    }
    let unconfigured = run(State::INITIAL, &[Instruction::Zero(0)]);
    assert!(unconfigured.is_err());
    let config = config(&[(0, 64, 16)]);
    let load = Instruction::LoadConfig((&raw const config) as usize);
    let released = [load, Instruction::Release, Instruction::Zero(0)];
    assert!(run(State::INITIAL, &released).is_err());
}

#[test]
fn a_load_clears_the_rest_of_its_tile_and_a_store_writes_no_more() {
    let config = config(&[(2, 5, 3)]);
    let source: [u8; 40] = std::array::from_fn(|i| i as u8 + 1);
    let mut stored = [0_u8; 40];
    let at = |start, stride| Address { start, stride };
    let load = Instruction::LoadConfig((&raw const config) as usize);
    let mut state = run(State::INITIAL, &[load]).expect("a valid configuration");
    state.tiles[2] = [[77; MOST_BYTES]; MOST_ROWS];
    let instructions = [
        Instruction::Load(2, at(source.as_ptr() as usize, 10)),
        Instruction::Store(at(stored.as_mut_ptr() as usize, 8), 2),
    ];
    let state = run(state, &instructions).expect("a configured tile");
    for (i, row) in state.tiles[2].iter().enumerate() {
        for (j, &byte) in row.iter().enumerate() {
            let expected = if i < 3 && j < 5 { 10 * i + j + 1 } else { 0 };
            assert_eq!(usize::from(byte), expected, "[{i}][{j}]");
        }
    }
    for (at, &byte) in stored.iter().enumerate() {
        let (i, j) = (at / 8, at % 8);
        let expected = if i < 3 && j < 5 { 10 * i + j + 1 } else { 0 };
        assert_eq!(usize::from(byte), expected, "[{i}][{j}]");
    }
}

#[test]
fn bytes_are_signed_or_not() {
    let (a, b) = (
        [[255, 2, 0, 0], [0, 0, 0, 1]],
        [[3, 254, 0, 0], [9, 9, 9, 200]],
    );
    let start = 10_i32.to_le_bytes();
    for (signed, expected) in [
        ([false, false], 10 + 255 * 3 + 2 * 254 + 200),
        ([false, true], 10 + 255 * 3 - 2 * 2 - 56),
        ([true, false], 10 - 3 + 2 * 254 + 200),
        ([true, true], 10 - 3 - 2 * 2 - 56),
    ] {
        let found = i32::from_le_bytes(dot_of_bytes(start, &a, &b, signed));
        assert_eq!(found, expected, "{signed:?}");
    }
}

#[test]
fn pairs_are_summed_apart_and_denormals_are_zero() {
    let pair = |low: f32, high: f32| {
        let [low, high] = [low, high].map(|x| x.to_le_bytes());
        [low[2], low[3], high[2], high[3]]
    };
    let dot = |start: f32, a: &[[u8; 4]], b: &[[u8; 4]]| {
        f32::from_le_bytes(dot_of_pairs(start.to_le_bytes(), a, b))
    };
    let one = pair(1.0, 1.0);
    // In any other order 1 is lost beside 2^30.
    let large = 2.0_f32.powi(30);
    let a = [pair(large, 1.0), pair(-large, 1.0)];
    assert_eq!(dot(0.5, &a, &[one, one]), 2.5);
    // What is small beside the sum of products goes with them.
    let a = [pair(large, 1.0)];
    assert_eq!(dot(-large, &a, &[one]), 0.0);
    // A product is not rounded before it is added.
    let (x, y) = (1.0 + 2.0_f32.powi(-7), 1.0 + 2.0_f32.powi(-6));
    let a = [pair(-large, 0.0), pair(x, 0.0), pair(large, 0.0)];
    assert_eq!(dot(0.0, &a, &[one, pair(y, 0.0), one]), 0.0);
    assert_eq!(dot(0.0, &[pair(x, 0.0)], &[pair(y, 0.0)]), x * y);

    let tiny = f32::MIN_POSITIVE;
    assert_eq!(dot(0.0, &[pair(tiny, 0.0)], &[one]), tiny);
    assert_eq!(dot(0.0, &[pair(tiny / 2.0, 0.0)], &[pair(4.0, 0.0)]), 0.0);
    assert_eq!(dot(0.0, &[pair(tiny, 0.0)], &[pair(0.5, 0.0)]), 0.0);
    assert_eq!(dot(tiny / 2.0, &[pair(tiny, 0.0)], &[one]), tiny);
    assert_eq!(dot(-1.5 * tiny, &[pair(tiny, 0.0)], &[one]), 0.0);
}

#[repr(align(64))]
struct Memory<T>(T);

/// All the instructions that kernels use, on the processor where it has them.
#[test]
fn executed_instructions_do_what_the_emulator_computes() {
    install();
    let number = |i: usize, seed: usize| i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 7;
    let config = Memory(config(&[(0, 28, 11), (4, 36, 11), (6, 28, 9)]));
    // As bfloat16, numbers of about 1.
    let halves = |seed: usize| -> Vec<u8> {
        (0..16 * 32)
            .flat_map(|i| (0x3f00 + (number(i, seed) % 0x180) as u16).to_le_bytes())
            .collect()
    };
    // As `f32`, with as few digits: sums are exact, in whatever order a processor adds.
    let floats: Vec<u8> = halves(1)
        .as_chunks()
        .0
        .iter()
        .flat_map(|&[a, b]| [0, 0, a, b])
        .collect();
    let bytes = |seed: usize| (0..1024).map(|i| number(i, seed) as u8).collect();
    let load = |tile, memory: &[u8], stride| {
        let start = memory.as_ptr() as usize;
        Instruction::Load(tile, Address { start, stride })
    };
    for (pairs, operands) in [
        (true, [floats, halves(2), halves(3)]),
        (false, [bytes(4), bytes(5), bytes(6)]),
    ] {
        let [c, a, b] = &operands;
        let [mut expected, mut found] = [vec![7_u8; 1024], vec![7_u8; 1024]];
        let tiles = [0, 4, 6];
        let to = Address {
            start: expected.as_mut_ptr() as usize,
            stride: 64,
        };
        let instructions = [
            Instruction::LoadConfig((&raw const config) as usize),
            load(0, c, 48),
            load(4, a, 40),
            load(6, b, 28),
            if pairs {
                Instruction::MultiplyPairs(tiles)
            } else {
                Instruction::MultiplyBytes(tiles, [true, false])
            },
            Instruction::Store(to, 0),
        ];
        run(State::INITIAL, &instructions).expect("valid instructions");
        // SAFETY: the processor has the instructions or they are emulated; rows of tiles lie in their operands. Tile
        // registers are used by nothing else on this thread.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                "tilezero tmm0",
                "tileloadd tmm0, [{c}+{c_stride}]",
                "tileloadd tmm4, [{a}+{a_stride}]",
                "tileloadd tmm6, [{b}+{b_stride}]",
                "test {pairs}, {pairs}",
                "jz 2f",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "jmp 3f",
                "2:",
                "tdpbsud tmm0, tmm4, tmm6",
                "3:",
                "tilestored [{to}+{to_stride}], tmm0",
                "tilerelease",
                config = in(reg) &raw const config,
                c = in(reg) c.as_ptr(),
                c_stride = in(reg) 48_usize,
                a = in(reg) a.as_ptr(),
                a_stride = in(reg) 40_usize,
                b = in(reg) b.as_ptr(),
                b_stride = in(reg) 28_usize,
                pairs = in(reg) usize::from(pairs),
                to = in(reg) found.as_mut_ptr(),
                to_stride = in(reg) 64_usize,
                options(nostack)
            );
        }
        assert_eq!(found, expected, "pairs: {pairs}");
    }
}

/// What a child process that executes `task` writes to stderr before a signal ends it, and the signal.
fn end_of_child(task: impl FnOnce()) -> (String, c_int) {
    let mut pipe = [0; 2];
    let mut message = [0_u8; 200];
    let mut status = 0;
    // SAFETY: the child only calls what a signal handler may, and ends; all memory passed is ours.
    let len = unsafe {
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            libc::dup2(pipe[1], libc::STDERR_FILENO);
            task();
            libc::_exit(0);
        }
        libc::close(pipe[1]);
        let len = libc::read(pipe[0], message.as_mut_ptr().cast(), message.len());
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        libc::close(pipe[0]);
        len
    };
    let message = &message[..usize::try_from(len).expect("readable")];
    let signal = libc::WTERMSIG(status) * c_int::from(libc::WIFSIGNALED(status));
    (String::from_utf8_lossy(message).into_owned(), signal)
}

#[test]
fn faults_end_the_process() {
    install();
    if !is_used() {
        return;
    }
    // SAFETY: the child is meant to end here.
    let (message, signal) = end_of_child(|| unsafe { asm!("ud2") });
    assert_eq!(signal, libc::SIGILL);
    assert!(message.contains("not of AMX"), "{message}");
    // SAFETY: as above.
    let (message, signal) = end_of_child(|| unsafe { asm!("tilezero tmm0") });
    assert_eq!(signal, libc::SIGILL);
    assert!(message.contains("not configured"), "{message}");
}
